//! The table of features with the tests that prove them, made of the tests themselves.
//!
//! A test says which rows of `features/ids.txt` it proves: `Proves: D1.4-1, --add-host` in its doc comment, or in a
//! comment within it; after a comma at the end of the line the list goes on in the next line of the comment, and
//! `R2-1..28` is twenty-eight rows. `features/not-done.txt` lists rows that nothing proves, each with its reason.
//! `FEATURES.md` is made of all three; `KILN_FEATURES=write` makes it anew, and drops from the list what is proved by now.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_tests::project;

/// Where tests are.
const FOLDERS: [&str; 4] = ["grammar", "builder", "registry-server", "tests"];
const MARK: &str = "Proves:";

/// A row of the list.
struct Feature {
    id: String,
    priority: String,
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines of a list: first word and rest.
fn list(path: &Path) -> Vec<(String, String)> {
    let lines = read(path);
    let lines = lines.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.split_once(' ') {
            Some((first, rest)) => (first.to_owned(), rest.trim().to_owned()),
            None => panic!("{}: {line:?} has one word", path.display()),
        })
        .collect()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("rs"))
            || name.to_lowercase().ends_with("dockerfile")
        {
            found.push(path);
        }
    }
}

/// The name of a function that a line begins.
fn function(line: &str) -> Option<&str> {
    let rest = line.trim_start();
    let rest =
        ["pub(crate) ", "pub ", "async "].iter().fold(rest, |rest, word| rest.strip_prefix(word).unwrap_or(rest));
    let name = rest.strip_prefix("fn ")?;
    name.split(['(', '<']).next()
}

/// The ids that one file proves, with the names of the tests: a doc comment speaks of the function below it, any
/// other comment of the one that it stands in, and a comment of a Dockerfile of that file.
fn proofs(file: &Path, text: &str) -> Vec<(String, String)> {
    let shown = file.strip_prefix(project()).unwrap_or(file).display().to_string();
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let is_rust = shown.ends_with(".rs");
        let comment = if is_rust { "//" } else { "#" };
        let Some((before, ids)) = trimmed.split_once(MARK) else { continue };
        if !before.starts_with(comment) || !before.trim_matches(['/', '!', '#', ' ']).is_empty() {
            continue;
        }
        let name = match (is_rust, trimmed.starts_with("///")) {
            (false, _) => None,
            (true, true) => lines[at..].iter().find_map(|line| function(line)),
            (true, false) => lines[..at].iter().rev().find_map(|line| function(line)),
        };
        let test = name.map_or_else(|| shown.clone(), |name| format!("{shown} {name}"));
        let ids = whole_list(ids, &lines[at + 1..]);
        let ids = ids.split(',').map(|id| id.trim().trim_end_matches('.')).filter(|id| !id.is_empty());
        found.extend(ids.flat_map(range).map(|id| (id, test.clone())));
    }
    found
}

/// `R2-1..28` is all from `R2-1` to `R2-28`.
fn range(id: &str) -> Vec<String> {
    let all = || {
        let (first, last) = id.split_once("..")?;
        let (part, first) = first.rsplit_once('-')?;
        let numbers = first.parse::<u32>().ok()?..=last.parse().ok()?;
        Some(numbers.map(|number| format!("{part}-{number}")).collect())
    };
    all().unwrap_or_else(|| vec![id.to_owned()])
}

/// A list that ends with a comma goes on in the comment's next line.
fn whole_list(first: &str, below: &[&str]) -> String {
    let mut list = first.trim().to_owned();
    for line in below {
        let line = line.trim_start();
        if !list.ends_with(',') || !line.starts_with(['/', '#']) {
            break;
        }
        list.push_str(line.trim_start_matches(['/', '!', '#', ' ']).trim());
    }
    list
}

fn table(
    features: &[Feature],
    proved: &BTreeMap<String, BTreeSet<String>>,
    reasons: &BTreeMap<String, String>,
) -> String {
    let mut text = "# Features and their tests\n\n\
        Made by `tests/tests/features.rs` from the tests themselves: `KILN_FEATURES=write` makes it anew.\n\n\
        | id | priority | proved by |\n| --- | --- | --- |\n"
        .to_owned();
    for Feature { id, priority } in features {
        if let Some(tests) = proved.get(id) {
            let tests: Vec<String> = tests.iter().map(|test| format!("`{test}`")).collect();
            writeln!(text, "| {id} | {priority} | {} |", tests.join("<br>")).expect("text grows");
        }
    }
    text.push_str("\n## Not done, or not proved\n\n| id | priority | why |\n| --- | --- | --- |\n");
    for Feature { id, priority } in features.iter().filter(|feature| !proved.contains_key(&feature.id)) {
        let reason = reasons.get(id).map_or("", String::as_str);
        writeln!(text, "| {id} | {priority} | {reason} |").expect("text grows");
    }
    text
}

#[test]
fn every_feature_has_its_test_or_a_reason() {
    let folder = project().join("tests/features");
    let features: Vec<Feature> =
        list(&folder.join("ids.txt")).into_iter().map(|(id, priority)| Feature { id, priority }).collect();
    let mut paths = Vec::new();
    FOLDERS.iter().for_each(|name| files(&project().join(name), &mut paths));
    paths.sort();
    let mut proved: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for path in paths.iter().filter(|path| !path.ends_with("tests/tests/features.rs")) {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for (id, test) in proofs(path, &String::from_utf8_lossy(&bytes)) {
            if features.iter().any(|feature| feature.id == id) {
                proved.entry(id).or_default().insert(test);
            } else {
                wrong.push(format!("{test} proves {id}, which is no row of the list"));
            }
        }
    }
    let not_done = folder.join("not-done.txt");
    let reasons: BTreeMap<String, String> = list(&not_done).into_iter().collect();
    for feature in features.iter().filter(|feature| feature.priority != "niche") {
        if !proved.contains_key(&feature.id) && !reasons.contains_key(&feature.id) {
            wrong.push(format!("{} ({}) has no test and no reason", feature.id, feature.priority));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let made = table(&features, &proved, &reasons);
    let path = project().join("tests/FEATURES.md");
    if std::env::var_os("KILN_FEATURES").is_some_and(|what| what == "write") {
        let kept: String = read(&not_done)
            .lines()
            .filter(|line| !line.split_once(' ').is_some_and(|(id, _)| proved.contains_key(id)))
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write(&not_done, kept).expect("the list can be written");
        fs::write(&path, &made).expect("the table can be written");
    }
    assert!(
        fs::read_to_string(&path).is_ok_and(|text| text == made),
        "tests/FEATURES.md is not what the tests say: run this test with KILN_FEATURES=write"
    );
}
