use crate::ast::{Command, InstructionKind, TransferSource};
use crate::{parse, parse_trigger};

#[test]
fn triggers_are_parsed_as_an_image_stores_them() {
    let run = parse_trigger("RUN <<EOF\necho a\nEOF").unwrap();
    let InstructionKind::Run(run) = run.kind else { panic!("no RUN") };
    assert_eq!(run.heredocs[0].body, "echo a\n");
    let InstructionKind::Copy(copy) = parse_trigger("copy . /app/src").unwrap().kind else { panic!("no COPY") };
    assert!(matches!(&copy.sources[..], [TransferSource::Path(path)] if path.raw == "."));
    for (text, message) in [
        ("", "the ONBUILD trigger is empty"),
        ("# only", "the ONBUILD trigger is empty"),
        ("FROM x", "ONBUILD cannot trigger FROM"),
        ("ONBUILD RUN x", "ONBUILD cannot trigger ONBUILD"),
        ("RUN a\nRUN b", "an ONBUILD trigger is a single instruction"),
        ("NOPE", "unknown instruction `NOPE`"),
    ] {
        assert_eq!(parse_trigger(text).unwrap_err().message, message, "{text}");
    }
}

#[test]
fn an_onbuild_text_parses_to_the_same_instruction() {
    let source = "FROM x\nONBUILD COPY <<-'A' <<B /x/\n\tone\n\tA\ntwo\nB\n";
    let dockerfile = parse(source.as_bytes()).unwrap();
    let InstructionKind::OnBuild(onbuild) = &dockerfile.instructions[1].kind else { panic!("no ONBUILD") };
    let again = parse_trigger(&onbuild.text).unwrap();
    let bodies = |kind: &InstructionKind| -> Vec<(String, String)> {
        let InstructionKind::Copy(copy) = kind else { panic!("no COPY") };
        copy.sources
            .iter()
            .map(|source| match source {
                TransferSource::Heredoc(heredoc) => (heredoc.name.clone(), heredoc.body.clone()),
                TransferSource::Path(path) => (path.raw.clone(), String::new()),
            })
            .collect()
    };
    assert_eq!(bodies(&again.kind), bodies(&onbuild.instruction.kind));
    assert_eq!(bodies(&again.kind)[0].1, "one\n");
}

#[test]
fn exec_form_decodes_json() {
    for (text, expected) in [
        ("[\"a\\tb\", \"\\u00fc\"]", Some(&["a\tb", "ü"][..])),
        ("  [ ]  ", Some(&[])),
        ("[\"\\ud83d\\ude00\"]", Some(&["😀"])),
        ("[\"a\" \"b\"]", None),
        ("[\"a\"", None),
        ("[null]", None),
        ("[[\"a\"]]", None),
        ("[\"a\nb\"]", None),
    ] {
        let source = format!("FROM x\nCMD {}", text.replace('\n', "\u{1}"));
        let dockerfile = parse(source.as_bytes()).unwrap();
        let InstructionKind::Cmd(command) = &dockerfile.instructions[1].kind else { panic!("no CMD") };
        match (command, expected) {
            (Command::Exec(arguments), Some(expected)) => assert_eq!(arguments, expected),
            (Command::Shell(_), None) => {}
            _ => panic!("{text}: {command:?}"),
        }
    }
}
