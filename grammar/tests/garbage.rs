//! Whatever the bytes are: no panic, spans within the source, errors that render.

use kiln_grammar::ast::{InstructionKind, Word};
use kiln_grammar::expand::{NoVariables, expand, expand_heredoc, expand_split, names};
use kiln_grammar::ignore::IgnorePatterns;
use kiln_grammar::pattern::Pattern;
use kiln_grammar::{Diagnostic, Span, mount, parse, parse_trigger};
use proptest::prelude::*;

/// Pieces that Dockerfiles are made of, so that garbage gets past the first line.
const PIECES: &[&str] = &[
    "FROM ",
    "RUN ",
    "COPY ",
    "ADD ",
    "ENV ",
    "LABEL ",
    "ARG ",
    "CMD ",
    "ONBUILD ",
    "HEALTHCHECK ",
    "SHELL ",
    "EXPOSE ",
    "VOLUME ",
    "USER ",
    "WORKDIR ",
    "STOPSIGNAL ",
    "MAINTAINER ",
    "ENTRYPOINT ",
    "x",
    " AS y",
    "\n",
    "\r\n",
    "\\\n",
    "`\n",
    "# c\n",
    "# escape=`\n",
    "# syntax=a\n",
    "--from=",
    "--mount=type=",
    "--link",
    "-- ",
    "[\"a\"",
    ", ",
    "]",
    "\"",
    "'",
    "$",
    "${a",
    ":-",
    "}",
    "=",
    "<<EOF",
    "<<-",
    "EOF\n",
    "\nEOF\n",
    "3<<A ",
    "\t",
    " ",
    "\u{a0}",
    "é",
    "\u{FEFF}",
    "--interval=1s",
    "NONE",
    "\u{1}",
    "((",
    "))",
    "<",
    "\\",
];

fn dockerfile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        9 => prop::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    (any::<bool>(), prop::collection::vec(piece, 0..40)).prop_map(|(from, pieces)| {
        let head: &[u8] = if from { b"FROM x\n" } else { b"" };
        [head, &pieces.concat()].concat()
    })
}

fn check_span(span: Span, source: &[u8]) {
    assert!(span.start <= span.end && span.end <= source.len(), "{span:?} of {} bytes", source.len());
}

fn check_diagnostic(diagnostic: &Diagnostic, source: &[u8]) {
    check_span(diagnostic.span, source);
    let rendered = diagnostic.render("Dockerfile", source, false);
    let (line, column) = Diagnostic::line_column(source, diagnostic.span.start);
    assert!(rendered.contains(&format!("--> Dockerfile:{line}:{column}")), "{line}:{column}\n{rendered}");
}

fn check_word(word: &Word, source: &[u8]) {
    check_span(word.span, source);
    for escape in ['\\', '`'] {
        for error in [
            expand(word, escape, &NoVariables).err(),
            expand_split(word, escape, &NoVariables).err(),
            expand_heredoc(word, escape, &NoVariables).err(),
            mount::parse(word, escape, &NoVariables).err(),
        ]
        .into_iter()
        .flatten()
        {
            assert!(error.span.start >= word.span.start && error.span.end <= word.span.end, "{error:?} {word:?}");
        }
        names(word, escape);
    }
}

/// The words of an instruction whose place can be checked.
fn words(kind: &InstructionKind) -> Vec<&Word> {
    match kind {
        InstructionKind::From(from) => from.platform.iter().chain([&from.image]).collect(),
        InstructionKind::Arg(all) => all.iter().flat_map(|arg| [&arg.name].into_iter().chain(&arg.default)).collect(),
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
            pairs.iter().flat_map(|pair| [&pair.key, &pair.value]).collect()
        }
        InstructionKind::Expose(words) | InstructionKind::Volume(words) => words.iter().collect(),
        InstructionKind::User(word) | InstructionKind::Workdir(word) | InstructionKind::StopSignal(word) => vec![word],
        InstructionKind::Run(run) => run.mounts.iter().chain(&run.network).chain(&run.security).collect(),
        InstructionKind::Copy(transfer) | InstructionKind::Add(transfer) => {
            transfer.from.iter().chain(&transfer.chown).chain([&transfer.destination]).collect()
        }
        InstructionKind::OnBuild(onbuild) => words(&onbuild.instruction.kind),
        _ => Vec::new(),
    }
}

fn check(source: &[u8]) {
    match parse(source) {
        Err(error) => check_diagnostic(&error, source),
        Ok(dockerfile) => {
            for warning in &dockerfile.warnings {
                check_diagnostic(warning, source);
            }
            let mut end = 0;
            for instruction in &dockerfile.instructions {
                check_span(instruction.span, source);
                check_span(instruction.keyword.span, source);
                assert!(instruction.span.start >= end, "instructions overlap");
                end = instruction.span.end;
                for word in words(&instruction.kind) {
                    check_word(word, source);
                    assert!(word.span.start >= instruction.span.start && word.span.end <= instruction.span.end);
                }
            }
        }
    }
    let text = String::from_utf8_lossy(source);
    if let Err(error) = parse_trigger(&text) {
        check_diagnostic(&error, text.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn dockerfiles_never_panic(source in dockerfile()) {
        check(&source);
    }

    #[test]
    fn bytes_never_panic(source in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&source);
    }

    #[test]
    fn words_never_panic(raw in "[a$\\{\\}:+?#%/*'\"\\\\` =,é-]{0,30}") {
        let span = Span { start: 7, end: 7 + raw.len() };
        let source = vec![b'x'; span.end];
        check_word(&Word { raw, span }, &source);
    }

    #[test]
    fn patterns_never_panic(pattern in "[ab/*?\\[\\]^\\\\!. -]{0,20}", path in "[ab/.]{0,20}") {
        if let Ok(pattern) = Pattern::new(&pattern) {
            pattern.matches(&path);
        }
        if let Ok(patterns) = IgnorePatterns::parse(&pattern) {
            patterns.is_ignored(&path);
            patterns.may_reinclude_below(&path);
        }
    }
}
