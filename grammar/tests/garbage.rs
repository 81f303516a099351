//! Whatever the bytes are: no panic, spans within the source, errors that render.

mod invariants;

use invariants::{check_dockerfile, check_pattern, check_word};
use kiln_grammar::Span;
use kiln_grammar::ast::Word;
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn dockerfiles_never_panic(source in dockerfile()) {
        check_dockerfile(&source);
    }

    #[test]
    fn bytes_never_panic(source in prop::collection::vec(any::<u8>(), 0..200)) {
        check_dockerfile(&source);
    }

    #[test]
    fn words_never_panic(raw in "[a$\\{\\}:+?#%/*'\"\\\\` =,é-]{0,30}") {
        let span = Span { start: 7, end: 7 + raw.len() };
        let source = vec![b'x'; span.end];
        check_word(&Word { raw, span }, &source);
    }

    #[test]
    fn patterns_never_panic(pattern in "[ab/*?\\[\\]^\\\\!. -]{0,20}", path in "[ab/.]{0,20}") {
        check_pattern(&pattern, &path);
    }
}
