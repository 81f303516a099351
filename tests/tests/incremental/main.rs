//! Random projects, random edits: a build that takes what it can from the cache gives the very image that a build on
//! nothing gives, and does exactly the steps that the edit affects.
//!
//! `KILN_PROPERTY_CASES` is the number of projects (24), for a longer search.

mod model;
mod project;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_tests::{Kiln, Outcome, run};
use proptest::collection::vec;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::Value;

use model::{Model, Place};
use project::{Edit, Project, edit, project};

/// All that steps write is later: its times are set back to this.
const EPOCH: &str = "1000000000";

/// Two stores that have busybox: one for building again and again, one for building on nothing.
struct Stores<'a> {
    kiln: &'a Kiln,
    home: tempfile::TempDir,
}

impl<'a> Stores<'a> {
    fn new(kiln: &'a Kiln) -> Self {
        let stores = Self { kiln, home: tempfile::tempdir().expect("a directory") };
        stores.renew("kept");
        stores
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn renew(&self, name: &str) {
        let _ = fs::remove_dir_all(self.path(name));
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(self.kiln.root()).arg(self.path(name));
        run(copy).success();
    }

    fn build(&self, store: &str, context: &Path, project: &Project, options: &[&str]) -> Outcome {
        let context = context.to_str().expect("text");
        let mut line = vec!["build", "--progress=json", "-t", "t", "--timestamp", EPOCH, context];
        line.extend(options);
        let argument = project.argument.map(|value| format!("V={value}"));
        if let Some(argument) = &argument {
            line.extend(["--build-arg", argument]);
        }
        let mut command = self.kiln.command(line);
        command.env("KILN_ROOT", self.path(store));
        run(command).success()
    }
}

/// What a build told: the vertices that it looked at, those that it did, and the image.
struct Told {
    seen: BTreeSet<Place>,
    done: BTreeSet<Place>,
    image: String,
}

impl Told {
    fn of(outcome: &Outcome) -> Self {
        let mut labels: HashMap<u64, (String, usize)> = HashMap::new();
        let (mut done, mut image) = (Vec::new(), String::new());
        for line in outcome.stderr.lines() {
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            let vertex = event["vertex"].as_u64().unwrap_or(u64::MAX);
            match event["event"].as_str() {
                Some("started") => {
                    let label = label(event["name"].as_str().expect("a name"));
                    labels.extend(label.map(|label| (vertex, label)));
                }
                Some("missed") => done.push(vertex),
                Some("image") => event["id"].as_str().expect("an id").clone_into(&mut image),
                _ => {}
            }
        }
        // All steps of a stage are looked at: their order says which is which, however they are numbered.
        let place = |(stage, number): &(String, usize)| {
            let before = labels.values().filter(|(other, at)| other == stage && at < number).count();
            (stage.clone(), before)
        };
        let done = done.iter().filter_map(|vertex| labels.get(vertex)).map(place).collect();
        Self { seen: labels.values().map(place).collect(), done, image }
    }
}

/// Stage and number of `[stage 2/4] RUN …`; base images, and what bind mounts of the context take along, are no steps.
fn label(name: &str) -> Option<(String, usize)> {
    let (label, text) = name.strip_prefix('[')?.split_once("] ")?;
    if !["COPY", "RUN", "WORKDIR"].iter().any(|word| text.starts_with(word)) {
        return None;
    }
    let (stage, numbers) = label.rsplit_once(' ').unwrap_or(("", label));
    let (number, _) = numbers.split_once('/')?;
    Some((stage.trim().to_owned(), number.parse().ok()?))
}

fn write(project: &Project, model: &Model, context: &Path) {
    let _ = fs::remove_dir_all(context.join("d"));
    fs::create_dir_all(context.join("d")).expect("a directory");
    let put = |path: &str, text: &str, mode: u32| {
        let path = context.join(path);
        // What stays as it is is left alone, as an editor would.
        if fs::read_to_string(&path).ok().as_deref() != Some(text) {
            fs::write(&path, text).expect("written");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    };
    put("Dockerfile", &model.dockerfile, 0o644);
    put("d/keep", "", 0o644);
    for (number, (text, mode)) in project.files.iter().enumerate() {
        put(&format!("c{number}"), text, *mode);
    }
    for (number, text) in &project.directory {
        put(&format!("d/f{number}"), text, 0o644);
    }
}

/// Builds a project again after each edit.
fn check(kiln: &Kiln, first: &Project, edits: &[Edit]) -> Result<(), TestCaseError> {
    let stores = Stores::new(kiln);
    let context = stores.path("context");
    let mut known: HashSet<u64> = HashSet::new();
    let mut built: Vec<Project> = Vec::new();
    let mut project = first.clone();
    for edit in std::iter::once(None).chain(edits.iter().map(Some)) {
        if let Some(edit) = edit {
            project = project.edited(edit, &built);
        }
        let model = Model::of(&project);
        write(&project, &model, &context);
        if let Some(Edit::Touch { file }) = edit {
            let now = std::time::SystemTime::now();
            fs::File::open(context.join(format!("c{file}"))).and_then(|file| file.set_modified(now)).expect("touched");
        }
        let incremental = stores.build("kept", &context, &project, &[]);
        let told = Told::of(&incremental);
        let story = || format!("after {edit:?}\n{}\n{incremental}", model.dockerfile);

        let needed: BTreeSet<Place> = model.needed.keys().cloned().collect();
        expect(&told.seen, &needed, "the steps that were looked at", &story)?;
        // Of several that are the same one is done.
        let mut done: Vec<u64> = told.done.iter().map(|place| model.needed[place]).collect();
        let mut affected: Vec<u64> = model.needed.values().copied().collect::<BTreeSet<_>>().into_iter().collect();
        affected.retain(|key| !known.contains(key));
        done.sort_unstable();
        let places: BTreeMap<&u64, &Place> = model.needed.iter().map(|(place, key)| (key, place)).collect();
        let show = |keys: &[u64]| keys.iter().map(|key| places[key].clone()).collect::<Vec<_>>();
        expect(&show(&done), &show(&affected), "the steps that were done", &story)?;
        known.extend(affected);

        stores.renew("clean");
        let clean = Told::of(&stores.build("clean", &context, &project, &["--no-cache"]));
        assert!(told.image.starts_with("sha256:"), "{}", story());
        expect(&told.image, &clean.image, "the image", &story)?;
        built.push(project.clone());
    }
    Ok(())
}

fn expect<T: PartialEq + std::fmt::Debug>(
    found: &T,
    wanted: &T,
    what: &str,
    story: &dyn Fn() -> String,
) -> Result<(), TestCaseError> {
    if found == wanted {
        return Ok(());
    }
    Err(TestCaseError::fail(format!("{what}: {found:?}, expected {wanted:?}\n{}", story())))
}

#[test]
fn an_incremental_build_is_a_clean_build() {
    let kiln = Kiln::with_busybox();
    let cases = std::env::var("KILN_PROPERTY_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(24);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 150, ..Config::default() };
    let property = (project(), vec(edit(), 1..6));
    let outcome = TestRunner::new(config).run(&property, |(project, edits)| check(&kiln, &project, &edits));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
