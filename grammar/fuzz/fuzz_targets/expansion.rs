//! Any word: quotes, escapes, `$name`, `${name…}` and its patterns, in every place that words are expanded in.

#![no_main]

use kiln_grammar::Span;
use kiln_grammar::ast::Word;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/invariants/mod.rs"]
#[allow(dead_code, reason = "each target checks one thing")]
mod invariants;

fuzz_target!(|text: &str| {
    let word = Word { raw: text.to_owned(), span: Span::new(0, text.len()) };
    invariants::check_word(&word, text.as_bytes());
});
