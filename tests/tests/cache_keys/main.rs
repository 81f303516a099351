//! What a step is found by: nothing that cannot change its result, and everything that can. Each rule both ways.

#![allow(clippy::too_many_lines, reason = "each test is a table")]

mod bases;
mod copies;
mod mounts;
mod platforms;
mod runs;

use kiln_tests::{Context, Kiln, Outcome};

/// Two builds of one context with an edit in between. `CASE` in the Dockerfile and the files stands for a text that no
/// other case has.
struct Case {
    rule: &'static str,
    dockerfile: &'static str,
    files: &'static [(&'static str, &'static str)],
    /// Options of the first build.
    before: &'static [&'static str],
    /// A shell script, in the context, before both.
    prepare: &'static str,
    /// A shell script, in the context, between them.
    edit: &'static str,
    /// Options of the second build.
    after: &'static [&'static str],
    /// A text of the step that is looked at.
    step: &'static str,
}

const fn case(rule: &'static str, dockerfile: &'static str, edit: &'static str, step: &'static str) -> Case {
    Case {
        rule,
        dockerfile,
        files: &[("a", "a CASE\n"), ("b", "b CASE\n")],
        before: &[],
        prepare: "",
        edit,
        after: &[],
        step,
    }
}

impl Case {
    const fn files(self, files: &'static [(&'static str, &'static str)]) -> Self {
        Self { files, ..self }
    }

    const fn prepared(self, prepare: &'static str) -> Self {
        Self { prepare, ..self }
    }

    const fn step(self, step: &'static str) -> Self {
        Self { step, ..self }
    }

    const fn options(self, before: &'static [&'static str], after: &'static [&'static str]) -> Self {
        Self { before, after, ..self }
    }
}

/// Whether the step that shows this text was done, and not found.
fn ran(outcome: &Outcome, step: &str) -> bool {
    let text = outcome.output();
    let line = text.lines().find(|line| line.starts_with('#') && line.contains("] ") && line.contains(step));
    let line = line.unwrap_or_else(|| panic!("no step {step:?} in\n{outcome}"));
    let number = line.split(' ').next().expect("a number");
    let is = |end: &str| text.lines().any(|line| line.starts_with(&format!("{number} {end}")));
    assert!(is("CACHED") != is("DONE"), "{step} is neither cached nor done, or both:\n{outcome}");
    is("DONE")
}

fn check(kiln: &Kiln, cases: &[Case], hit: bool) {
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let unique =
            format!("{}-{hit}-{number}-{}", case.rule.replace(|c: char| !c.is_alphanumeric(), "-"), case.step.len());
        let fill = |text: &str| text.replace("CASE", &unique);
        let context = kiln.directory();
        context.write("Dockerfile", fill(case.dockerfile));
        for (path, text) in case.files {
            context.write(path, fill(text));
        }
        edit(&context, case.prepare);
        let name = format!("case{number}");
        let first = kiln.build(&context, &name, case.before);
        assert!(ran(&first, case.step), "{}: the first time there is nothing to find:\n{first}", case.rule);
        edit(&context, case.edit);
        let second = kiln.build(&context, &name, case.after);
        if ran(&second, case.step) == hit {
            wrong.push(format!("{}: expected a {}\n{second}", case.rule, if hit { "hit" } else { "miss" }));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn edit(context: &Context, script: &str) {
    if !script.is_empty() {
        context.shell(script);
    }
}

/// A directory with one below it, and a file beside it.
const TREE: &[(&str, &str)] = &[("d/one", "1 CASE\n"), ("d/sub/two", "2 CASE\n"), ("other", "CASE\n")];
