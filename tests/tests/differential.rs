//! Builds every Dockerfile of `differential/` with kiln and with docker's BuildKit and compares the images.
//!
//! A case is a folder: a Dockerfile and its context, `prepare.sh` (what git cannot hold: owners, links, archives; run
//! in a copy of the folder) and `options` (more arguments of `build`, one per line). The differences that are allowed
//! stand in `differential/DIFFERENCES.md`, each with its reason; the test wants exactly these and no others.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use kiln_tests::{Difference, Docker, Kiln, command, compare, project, run};
use tempfile::TempDir;

struct Case {
    name: String,
    context: TempDir,
    options: Vec<String>,
}

fn folder() -> PathBuf {
    project().join("tests/differential")
}

fn cases() -> Vec<Case> {
    let mut folders: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("Dockerfile").is_file())
        .collect();
    folders.sort();
    folders.iter().map(|folder| prepare(folder)).collect()
}

fn prepare(folder: &Path) -> Case {
    let context = tempfile::Builder::new().prefix("kiln-case-").tempdir().unwrap();
    let path = context.path();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    let mut copy = command("cp", ["-R", "--preserve=mode"]);
    copy.arg(folder.join(".")).arg(path);
    run(copy).success();
    let script = path.join("prepare.sh");
    if script.exists() {
        let mut shell = command("sh", ["-euc", ". ./prepare.sh"]);
        shell.current_dir(path);
        run(shell).success();
        fs::remove_file(script).unwrap();
    }
    let options = path.join("options");
    let lines = fs::read_to_string(&options).unwrap_or_default();
    if options.exists() {
        fs::remove_file(options).unwrap();
    }
    Case {
        name: folder.file_name().unwrap().to_string_lossy().into_owned(),
        options: lines.lines().map(str::to_owned).collect(),
        context,
    }
}

/// A row of the table in DIFFERENCES.md: `| case | what | docker | kiln | why |`; `*` matches anything.
struct Decision {
    case: String,
    what: String,
    docker: String,
    kiln: String,
    line: usize,
}

fn decisions() -> Vec<Decision> {
    let text = fs::read_to_string(folder().join("DIFFERENCES.md")).unwrap();
    let cell = |text: &str| text.trim().trim_matches('`').replace("\\|", "|");
    text.lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with("| ") && !line.starts_with("| case "))
        .map(|(number, line)| {
            let protected = line.replace("\\|", "\u{1}");
            let cells: Vec<String> = protected.split('|').map(|text| cell(&text.replace('\u{1}', "|"))).collect();
            assert_eq!(cells.len(), 7, "line {} of DIFFERENCES.md has no five columns: {line}", number + 1);
            assert!(!cells[5].is_empty(), "line {} of DIFFERENCES.md gives no reason", number + 1);
            Decision {
                case: cells[1].clone(),
                what: cells[2].clone(),
                docker: cells[3].clone(),
                kiln: cells[4].clone(),
                line: number + 1,
            }
        })
        .collect()
}

impl Decision {
    fn allows(&self, case: &str, difference: &Difference) -> bool {
        let matches = |pattern: &str, text: &str| match pattern.split_once('*') {
            None => pattern == text,
            Some((head, tail)) => {
                text.len() >= head.len() + tail.len() && text.starts_with(head) && text.ends_with(tail)
            }
        };
        matches(&self.case, case)
            && matches(&self.what, &difference.what)
            && matches(&self.docker, &difference.first)
            && matches(&self.kiln, &difference.second)
    }
}

#[test]
fn images_are_those_that_dockers_buildkit_makes() {
    let docker = Docker::start().import_busybox();
    let kiln = Kiln::with_busybox();
    let cases = cases();
    assert!(cases.len() >= 150, "only {} cases", cases.len());
    let decisions = decisions();
    let mut used: BTreeMap<usize, usize> = BTreeMap::new();
    let mut report = String::new();
    for case in &cases {
        for found in differences(&docker, &kiln, case) {
            match found {
                Err(message) => report += &format!("{}: {message}\n", case.name),
                Ok(difference) => match decisions.iter().find(|decision| decision.allows(&case.name, &difference)) {
                    Some(decision) => *used.entry(decision.line).or_default() += 1,
                    None => {
                        let Difference { what, first, second } = difference;
                        report += &format!("{}: {what}\n    docker: {first}\n    kiln:   {second}\n", case.name);
                    }
                },
            }
        }
    }
    for decision in &decisions {
        if !used.contains_key(&decision.line) {
            report += &format!("DIFFERENCES.md:{}: this difference is not there any more\n", decision.line);
        }
    }
    println!("{} Dockerfiles, {} of the differences decided upon", cases.len(), used.values().sum::<usize>());
    assert!(report.is_empty(), "{} Dockerfiles were compared:\n{report}", cases.len());
}

fn differences(docker: &Docker, kiln: &Kiln, case: &Case) -> Vec<Result<Difference, String>> {
    let name = format!("case:{}", case.name);
    let context = case.context.path().to_str().unwrap();
    let mut arguments = vec!["build", "--progress=plain", "--network=host", "-t", &name];
    arguments.extend(case.options.iter().map(String::as_str));
    arguments.push(context);
    let theirs = run(docker.command(&arguments));
    let ours = run(kiln.command(&arguments));
    for outcome in [theirs, ours] {
        if !outcome.status.success() {
            return vec![Err(outcome.to_string())];
        }
    }
    let ours = kiln.saved(&name);
    match compare(&docker.saved(&name), &ours) {
        Ok(found) => found.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(format!("an image cannot be read: {error}"))],
    }
}
