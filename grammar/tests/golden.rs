//! Every Dockerfile below `cases/` against the snapshot beside it.

#![allow(clippy::unwrap_used, reason = "a case that cannot be read fails its test")]

mod dump;

use std::path::{Path, PathBuf};

use kiln_grammar::parse;

/// The folder, and the Dockerfiles in it by name.
fn cases(folder: &str) -> (PathBuf, Vec<(String, Vec<u8>)>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "Dockerfile"));
    files.sort();
    let cases = files.into_iter().map(|file| {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read(&file).unwrap())
    });
    (folder, cases.collect())
}

fn compare(folder: &Path, name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Proves: D1.1-2, D1.1-13, D1.1-16, D1.1-17, D1.1-18, D1.1-19, D1.2-11, D1.6-3, D1.7-5, D1.7-7, D1.9-10, D1.10-16
#[test]
fn errors_are_rendered() {
    let (folder, cases) = cases("errors");
    assert!(cases.len() >= 40);
    for (name, source) in cases {
        let error = parse(&source).expect_err(&name);
        assert!(error.label.is_some(), "{name} has no label");
        compare(&folder, &name, &error.render("Dockerfile", &source, false));
    }
}

/// Proves: D1.1-1, D1.1-3, D1.1-4, D1.1-5, D1.1-6, D1.1-10, D1.1-14, D1.2-4, D1.9-4, D1.9-8
#[test]
fn syntax_trees() {
    let (folder, cases) = cases("syntax");
    for (name, source) in cases {
        let dockerfile =
            parse(&source).unwrap_or_else(|error| panic!("{name}: {}", error.render("Dockerfile", &source, false)));
        compare(&folder, &name, &dump::dump(&dockerfile, &source));
    }
}

#[test]
fn warnings_are_rendered() {
    let (folder, cases) = cases("warnings");
    for (name, source) in cases {
        let dockerfile = parse(&source).unwrap();
        assert!(!dockerfile.warnings.is_empty(), "{name}");
        let rendered: Vec<String> =
            dockerfile.warnings.iter().map(|warning| warning.render("Dockerfile", &source, false)).collect();
        compare(&folder, &name, &rendered.join("\n\n"));
    }
}
