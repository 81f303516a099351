//! Dockerfiles beside the plans that are made of them: `tests/plans/*.dockerfile` and `*.snap`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use kiln_build::plan::{ImageSource, Operation, Plan, make};
use kiln_build::{Error, Request};
use kiln_image::config::{History, RunConfig};
use kiln_image::{Image, ImageConfig, Platform, Reference};
use kiln_store::Digest;

/// Images that exist only by name: a plan needs nothing but their configs.
struct Named;

impl ImageSource for Named {
    fn image(&self, reference: &Reference, _: &Platform) -> Result<Image, Error> {
        let layer = Digest::of(reference.to_string().as_bytes());
        let mut config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
        config.rootfs.diff_ids = vec![layer];
        config.history = vec![History { created_by: Some(format!("made {reference}")), ..History::default() }];
        config.config = RunConfig {
            env: Some(vec!["PATH=/bin".into(), "BASE=image".into()]),
            cmd: Some(vec!["sh".into()]),
            on_build: reference
                .to_string()
                .contains("trigger")
                .then(|| vec!["RUN echo triggered".into(), "ENV T=1".into()]),
            ..RunConfig::default()
        };
        Ok(Image { id: layer, config, layers: vec![layer], manifest: None, elsewhere: BTreeMap::new() })
    }

    fn layout(&self, _: &Path, _: Option<&str>, platform: &Platform) -> Result<Image, Error> {
        self.image(&Reference::parse("layout").unwrap(), platform)
    }
}

fn request(dockerfile: &[u8]) -> Request {
    Request {
        build_args: BTreeMap::from([("GIVEN".into(), "given".into()), ("http_proxy".into(), "http://proxy".into())]),
        labels: vec![("by".into(), "flag".into())],
        platform: Platform::parse("linux/amd64").unwrap(),
        ..Request::new(dockerfile.to_vec())
    }
}

fn show(plan: &Plan) -> String {
    let mut text = String::new();
    for (id, vertex) in plan.vertices.iter().enumerate() {
        writeln!(text, "{id}: {} ← {:?}", vertex.name, vertex.inputs()).unwrap();
        match &vertex.operation {
            Operation::Image { layers } => writeln!(text, "   {} layer(s)", layers.len()).unwrap(),
            operation => writeln!(text, "{}", indent(&format!("{operation:#?}"))).unwrap(),
        }
    }
    let [target] = plan.targets.as_slice() else { panic!("one platform") };
    writeln!(text, "result: {:?}", target.result).unwrap();
    for (line, vertex) in
        target.config.history.iter().rev().zip(target.history.iter().rev().map(Some).chain(std::iter::repeat(None)))
    {
        writeln!(text, "history: {vertex:?} {}", line.created_by.as_deref().unwrap_or_default()).unwrap();
    }
    writeln!(text, "config: {}", indent(&serde_json::to_string_pretty(&target.config.config).unwrap())).unwrap();
    text
}

/// Without the places, which are the parser's to test.
fn indent(text: &str) -> String {
    let mut lines = Vec::new();
    let mut skip = 0;
    for line in text.lines() {
        if line.trim_start().ends_with("span: Span {") || line.trim_start() == "Span {" {
            skip = 4;
        }
        if skip > 0 {
            skip -= 1;
            continue;
        }
        lines.push(format!("   {line}"));
    }
    lines.join("\n")
}

#[test]
fn plans_are_as_written_down() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plans");
    let mut names: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "dockerfile"));
    names.sort();
    assert!(!names.is_empty());
    for path in names {
        let source = std::fs::read(&path).unwrap();
        let dockerfile = kiln_grammar::parse(&source).unwrap();
        let text = match make(&dockerfile, &request(&source), &Named) {
            Ok(plan) => show(&plan),
            Err(Error::Dockerfile(diagnostic)) => diagnostic.render("Dockerfile", &source, false),
            Err(error) => panic!("{}: {error}", path.display()),
        };
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        insta::with_settings!({ snapshot_path => "plans", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, text);
        });
    }
}

#[test]
fn ten_thousand_stages_are_planned_without_recursion() {
    let mut text = String::from("FROM scratch AS s0\n");
    for stage in 1..10_000 {
        writeln!(text, "FROM s{} AS s{stage}\nENV N={stage}", stage - 1).unwrap();
    }
    let dockerfile = kiln_grammar::parse(text.as_bytes()).unwrap();
    let plan = make(&dockerfile, &request(text.as_bytes()), &Named).unwrap();
    assert_eq!(plan.targets[0].result, None);
    assert_eq!(plan.targets[0].history.len(), 9_999);
}
