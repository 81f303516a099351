//! What holds for any bytes: no panic, spans within the source, errors that render. For the property tests and the
//! fuzz targets.

use kiln_grammar::ast::{Instruction, InstructionKind, Word};
use kiln_grammar::expand::{Variables, expand, expand_heredoc, expand_split, references};
use kiln_grammar::ignore::IgnorePatterns;
use kiln_grammar::pattern::Pattern;
use kiln_grammar::{Diagnostic, Span, lint, mount, parse, parse_trigger};

/// Some variables are set, one of them to something that patterns and splitting have to work on.
struct SomeVariables;

impl Variables for SomeVariables {
    fn get(&self, name: &str) -> Option<String> {
        match name {
            "a" => Some("a b/c*d".to_owned()),
            "x" => Some("x".repeat(500)),
            "e" => Some(String::new()),
            _ => None,
        }
    }
}

/// A whole Dockerfile.
pub(crate) fn check_dockerfile(source: &[u8]) {
    match parse(source) {
        Err(error) => check_diagnostic(&error, source),
        Ok(dockerfile) => {
            let findings = lint::check(&dockerfile).into_list(&lint::Settings::default());
            for warning in dockerfile.warnings.iter().chain(&findings) {
                check_diagnostic(warning, source);
            }
            let mut end = 0;
            for instruction in &dockerfile.instructions {
                assert!(instruction.span.start >= end, "instructions overlap");
                end = instruction.span.end;
                check_instruction(instruction, source);
            }
        }
    }
    let text = String::from_utf8_lossy(source);
    match parse_trigger(&text) {
        Err(error) => check_diagnostic(&error, text.as_bytes()),
        Ok(instruction) => check_instruction(&instruction, text.as_bytes()),
    }
}

fn check_instruction(instruction: &Instruction, source: &[u8]) {
    check_span(instruction.span, source);
    check_span(instruction.keyword.span, source);
    for word in words(&instruction.kind) {
        check_word(word, source);
        assert!(word.span.start >= instruction.span.start && word.span.end <= instruction.span.end);
    }
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

/// A word in every place that words are expanded in.
pub(crate) fn check_word(word: &Word, source: &[u8]) {
    check_span(word.span, source);
    for escape in ['\\', '`'] {
        for error in [
            expand(word, escape, &SomeVariables).err(),
            expand_split(word, escape, &SomeVariables).err(),
            expand_heredoc(word, escape, &SomeVariables).err(),
            mount::parse(word, escape, &SomeVariables).err(),
        ]
        .into_iter()
        .flatten()
        {
            assert!(error.span.start >= word.span.start && error.span.end <= word.span.end, "{error:?} {word:?}");
        }
        for reference in references(word, escape) {
            assert!(reference.span.start >= word.span.start && reference.span.end <= word.span.end, "{reference:?}");
        }
    }
}

/// A pattern, an ignore file, and a path.
pub(crate) fn check_pattern(pattern: &str, path: &str) {
    if let Ok(pattern) = Pattern::new(pattern) {
        pattern.matches(path);
    }
    if let Ok(pattern) = Pattern::without_double_star(pattern) {
        pattern.matches(path);
    }
    let normal = path.split('/').all(|name| !name.is_empty());
    if let Ok(patterns) = IgnorePatterns::parse(pattern) {
        let ignored = patterns.is_ignored(path);
        // whoever walks a directory that is left out would miss what is brought back below it
        let directories = path.match_indices('/').filter_map(|(at, _)| path.get(..at)).filter(|_| normal);
        for directory in directories.filter(|name| patterns.is_ignored(name)) {
            assert!(ignored || patterns.may_reinclude_below(directory), "{pattern:?} {path:?} {directory:?}");
        }
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
