//! Dockerfile text to a spanned syntax tree. Knows no file and no network.
//!
//! Two passes: `logical` joins physical lines to logical ones by hand (byte order mark, line ends, parser
//! directives, comments, continuations, heredoc bodies) and remembers where every byte came from; the pest grammar
//! `dockerfile.pest` takes each logical line apart, and `instruction` gives the parts their meaning.

pub mod ast;
pub mod diagnostic;
pub mod expand;
pub mod ignore;
mod instruction;
pub mod lint;
mod logical;
pub mod mount;
pub mod pattern;
pub mod position;
pub mod span;

pub use ast::Dockerfile;
pub use diagnostic::Diagnostic;
pub use span::{Span, Spanned};

use ast::{Directives, Instruction, InstructionKind};
use instruction::Context;
use logical::LogicalLines;

/// Bytes of a Dockerfile, at most: what BuildKit's own transport takes. The tree of one is several times its size.
const LARGEST: usize = 16 << 20;

/// Instructions of a Dockerfile, at most: ten times what a Dockerfile of ten thousand stages has.
const MOST_INSTRUCTIONS: usize = 100_000;

/// Parses the bytes of a Dockerfile.
///
/// Bytes that are not UTF-8 become U+FFFD, with a warning.
///
/// # Errors
/// The first syntax error, with the span of the words it is about.
pub fn parse(source: &[u8]) -> Result<Dockerfile, Box<Diagnostic>> {
    let (dockerfile, error) = parse_up_to_error(source);
    match error {
        None => Ok(dockerfile),
        Some(error) => Err(error),
    }
}

/// Parses as far as the first syntax error: what precedes it, and the error.
pub fn parse_up_to_error(source: &[u8]) -> (Dockerfile, Option<Box<Diagnostic>>) {
    let directives = Directives { syntax: None, escape: '\\', check: None };
    let mut dockerfile = Dockerfile { directives, instructions: Vec::new(), warnings: Vec::new() };
    let error = parse_into(source, &mut dockerfile).err();
    (dockerfile, error)
}

fn parse_into(source: &[u8], dockerfile: &mut Dockerfile) -> Result<(), Box<Diagnostic>> {
    if source.len() > LARGEST {
        return Err(Box::new(too_large(source)));
    }
    let mut lines = LogicalLines::new(source)?;
    dockerfile.directives = lines.directives().clone();
    let escape = dockerfile.directives.escape;
    let mut in_stage = false;
    while let Some(line) = lines.next_line(&mut dockerfile.warnings)? {
        let instruction = instruction::parse(&mut Context::new(&line, escape, &mut dockerfile.warnings))?;
        match instruction.kind {
            InstructionKind::From(_) => in_stage = true,
            InstructionKind::Arg(_) => {}
            _ if !in_stage => return Err(Box::new(before_first_from(&instruction))),
            _ => {}
        }
        if dockerfile.instructions.len() == MOST_INSTRUCTIONS {
            return Err(Box::new(too_many(&instruction)));
        }
        dockerfile.instructions.push(instruction);
    }
    match in_stage {
        true => Ok(()),
        false => Err(Box::new(without_from(source, &dockerfile.instructions))),
    }
}

/// Parses an ONBUILD trigger as an image's config stores it: one instruction, heredoc bodies after its first line.
///
/// Spans count from the start of `text`.
///
/// # Errors
/// A syntax error, no or more than one instruction, or an instruction that may not be a trigger.
pub fn parse_trigger(text: &str) -> Result<Instruction, Box<Diagnostic>> {
    let mut lines = LogicalLines::without_directives(text.as_bytes());
    let mut warnings = Vec::new();
    let Some(line) = lines.next_line(&mut warnings)? else {
        return Err(Diagnostic::error("the ONBUILD trigger is empty", Span::new(0, text.len())).boxed());
    };
    let escape = lines.directives().escape;
    let mut context = Context::new(&line, escape, &mut warnings);
    let instruction = instruction::parse_trigger(&mut context, 0)?;
    if let Some(second) = lines.next_line(&mut warnings)? {
        let message = "an ONBUILD trigger is a single instruction";
        return Err(Diagnostic::error(message, second.span).with_label("this is a second one").boxed());
    }
    Ok(instruction)
}

fn before_first_from(instruction: &Instruction) -> Diagnostic {
    let keyword = &instruction.keyword;
    let message = format!("{} stands before the first FROM", keyword.value.to_ascii_uppercase());
    Diagnostic::error(message, keyword.span)
        .with_label("expected FROM")
        .with_help("a Dockerfile starts with `FROM <image>`; only ARG, comments and parser directives may precede it")
}

fn too_large(source: &[u8]) -> Diagnostic {
    let line = source.iter().take(MOST_INSTRUCTIONS).position(|byte| *byte == b'\n').unwrap_or(0);
    let megabytes = source.len() >> 20;
    Diagnostic::error(format!("the Dockerfile has {megabytes} MiB, and 16 at most are read"), Span::new(0, line))
        .with_label("begins here")
        .with_help("put data into files of the context, and COPY them")
}

fn too_many(instruction: &Instruction) -> Diagnostic {
    Diagnostic::error(format!("more than {MOST_INSTRUCTIONS} instructions"), instruction.keyword.span)
        .with_label("one too many")
        .with_help("a Dockerfile that a program writes can join its steps, or copy a script and run it")
}

fn without_from(source: &[u8], instructions: &[Instruction]) -> Diagnostic {
    let help = "a Dockerfile starts with `FROM <image>`, or `FROM scratch` for an empty one";
    match instructions.last() {
        None => Diagnostic::error("the Dockerfile has no instructions", Span::new(source.len(), source.len()))
            .with_label("expected FROM")
            .with_help(help),
        Some(last) => Diagnostic::error("the Dockerfile has no FROM", last.span)
            .with_label("expected FROM after this")
            .with_help(help),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfile_has_a_largest_size_and_a_number_of_instructions() {
        let mut large = b"FROM x\n".to_vec();
        large.resize(LARGEST + 1, b'#');
        assert_eq!(parse(&large).unwrap_err().message, "the Dockerfile has 16 MiB, and 16 at most are read");
        let many = "FROM x\n".to_owned() + &"RUN x\n".repeat(MOST_INSTRUCTIONS);
        let (dockerfile, error) = parse_up_to_error(many.as_bytes());
        assert_eq!(dockerfile.instructions.len(), MOST_INSTRUCTIONS);
        let span = error.expect("one too many").span;
        assert_eq!(span, Span::new(many.len() - 6, many.len() - 3));
    }
}
