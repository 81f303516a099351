//! One logical line to one instruction: the grammar's parts get their meaning.

mod command;
mod duration;
mod flags;
mod healthcheck;
mod pairs;
mod single;
mod stage;
mod transfer;
mod words;

use pest::Parser;
use pest::iterators::Pair;
use pest_derive::Parser;

use crate::ast::{Instruction, InstructionKind, OnBuild, Word};
use crate::diagnostic::{Diagnostic, quoted, shown};
use crate::logical::{HeredocBody, LogicalLine};
use crate::span::{Span, Spanned};
use flags::Flags;

pub(crate) use command::one_of;

/// The pest grammar of a logical line.
#[derive(Parser)]
#[grammar = "dockerfile.pest"]
pub(crate) struct Grammar;

/// Every instruction, for suggestions.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

type Parsed<T> = Result<T, Box<Diagnostic>>;

/// The line that is parsed, and what is known around it.
pub(crate) struct Context<'l> {
    line: &'l LogicalLine,
    escape: char,
    warnings: &'l mut Vec<Diagnostic>,
}

impl<'l> Context<'l> {
    pub(crate) fn new(line: &'l LogicalLine, escape: char, warnings: &'l mut Vec<Diagnostic>) -> Self {
        Self { line, escape, warnings }
    }

    fn span(&self, start: usize, end: usize) -> Span {
        self.line.map.span(start, end)
    }
}

/// A part of the logical line.
#[derive(Debug, Clone, Copy)]
struct Text<'l> {
    text: &'l str,
    /// Where it starts in the logical line.
    start: usize,
}

impl<'l> Text<'l> {
    /// A pair that was parsed from a part of the line that starts at `base`.
    fn of(pair: &Pair<'l, Rule>, base: usize) -> Self {
        Self { text: pair.as_str(), start: base + pair.as_span().start() }
    }

    fn end(&self) -> usize {
        self.start + self.text.len()
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    fn span(&self, context: &Context<'_>) -> Span {
        context.span(self.start, self.end())
    }

    fn word(&self, context: &Context<'_>) -> Word {
        Word { raw: self.text.to_owned(), span: self.span(context) }
    }

    fn spanned(&self, context: &Context<'_>) -> Spanned<String> {
        Spanned { value: self.text.to_owned(), span: self.span(context) }
    }
}

/// Keyword, flags and the rest.
struct Head<'l> {
    keyword: Text<'l>,
    flags: Flags<'l>,
    arguments: Text<'l>,
}

impl Head<'_> {
    fn name(&self) -> String {
        self.keyword.text.to_ascii_uppercase()
    }

    /// Where an argument that is missing would stand.
    fn missing_argument(&self, context: &Context<'_>, expected: &str) -> Diagnostic {
        let message = format!("{} needs {expected}", self.name());
        Diagnostic::error(message, self.keyword.span(context)).with_label(format!("expected {expected} after this"))
    }
}

/// Parses the whole line.
pub(crate) fn parse(context: &mut Context<'_>) -> Parsed<Instruction> {
    parse_at(context, 0, false)
}

/// Parses what stands after ONBUILD, at `start` of the line.
pub(crate) fn parse_trigger(context: &mut Context<'_>, start: usize) -> Parsed<Instruction> {
    parse_at(context, start, true)
}

fn parse_at(context: &mut Context<'_>, start: usize, trigger: bool) -> Parsed<Instruction> {
    let line = context.line;
    let head = head(context, start)?;
    if trigger {
        check_trigger(context, &head)?;
    }
    let kind = kind(context, &head)?;
    Ok(Instruction {
        span: Span::new(head.keyword.span(context).start, line.span.end),
        keyword: head.keyword.spanned(context),
        text: line.text.get(head.keyword.start..).unwrap_or_default().to_owned(),
        comments: if trigger { Vec::new() } else { line.comments.clone() },
        kind,
    })
}

fn head<'l>(context: &Context<'l>, start: usize) -> Parsed<Head<'l>> {
    let text = context.line.text.get(start..).unwrap_or_default();
    let whole = Text { text, start };
    let mut pairs = grammar_pairs(context, Rule::head, whole)?.into_iter();
    let Some(keyword) = pairs.next() else {
        return Err(Diagnostic::error("expected an instruction", whole.span(context)).boxed());
    };
    let mut flags = Flags::default();
    let mut arguments = Text { text: "", start: whole.end() };
    for pair in pairs {
        match pair.as_rule() {
            Rule::flag => flags.add(context, pair, start)?,
            Rule::arguments => arguments = Text::of(&pair, start),
            _ => {}
        }
    }
    Ok(Head { keyword: Text::of(&keyword, start), flags, arguments })
}

/// The pairs inside of a rule that is made to match any text.
fn grammar_pairs<'l>(context: &Context<'_>, rule: Rule, text: Text<'l>) -> Parsed<Vec<Pair<'l, Rule>>> {
    match try_grammar(rule, text.text) {
        Some(pairs) => Ok(pairs),
        None => Err(Diagnostic::error("this instruction could not be parsed", text.span(context)).boxed()),
    }
}

/// The pairs inside of a rule, or `None` when the text is not of its form.
fn try_grammar(rule: Rule, text: &str) -> Option<Vec<Pair<'_, Rule>>> {
    let pair = Grammar::parse(rule, text).ok()?.next()?;
    Some(pair.into_inner().filter(|pair| pair.as_rule() != Rule::EOI).collect())
}

fn kind(context: &mut Context<'_>, head: &Head<'_>) -> Parsed<InstructionKind> {
    use InstructionKind as Kind;
    let name = head.name();
    let kind = match name.as_str() {
        "FROM" => Kind::From(stage::from(context, head)?),
        "ARG" => Kind::Arg(pairs::arg(context, head)?),
        "RUN" => Kind::Run(command::run(context, head)?),
        "CMD" => Kind::Cmd(command::command_only(context, head)?),
        "ENTRYPOINT" => Kind::Entrypoint(command::command_only(context, head)?),
        "SHELL" => Kind::Shell(command::shell(context, head)?),
        "COPY" => Kind::Copy(transfer::copy(context, head)?),
        "ADD" => Kind::Add(transfer::add(context, head)?),
        "ENV" => Kind::Env(pairs::pairs(context, head)?),
        "LABEL" => Kind::Label(pairs::pairs(context, head)?),
        "EXPOSE" => Kind::Expose(words::expose(context, head)?),
        "VOLUME" => Kind::Volume(words::volume(context, head)?),
        "MAINTAINER" => Kind::Maintainer(single::single(context, head, "a name")?.raw),
        "USER" => Kind::User(single::single(context, head, "a user")?),
        "WORKDIR" => Kind::Workdir(single::single(context, head, "a directory")?),
        "STOPSIGNAL" => Kind::StopSignal(single::single(context, head, "a signal")?),
        "HEALTHCHECK" => Kind::HealthCheck(healthcheck::healthcheck(context, head)?),
        "ONBUILD" => Kind::OnBuild(onbuild(context, head)?),
        _ => return Err(unknown(context, head.keyword)),
    };
    Ok(kind)
}

fn unknown(context: &Context<'_>, keyword: Text<'_>) -> Box<Diagnostic> {
    let diagnostic = Diagnostic::error(format!("unknown instruction {}", quoted(keyword.text)), keyword.span(context))
        .with_label("expected an instruction");
    if keyword.text.contains(|character: char| !character.is_ascii() && character.is_whitespace()) {
        return diagnostic.with_help("there is a no-break space or the like in it: use an ordinary space").boxed();
    }
    let lower_case = !keyword.text.contains(|character: char| character.is_ascii_uppercase());
    let help = if lower_case {
        format!(
            "when this continues the instruction above, end the line before it with `{}`; a command of its own is `RUN {} …`",
            context.escape,
            shown(keyword.text)
        )
    } else {
        format!("the instructions are {}", KEYWORDS.join(", "))
    };
    diagnostic.with_help(help).with_nearest(keyword.text, &KEYWORDS).boxed()
}

fn onbuild(context: &mut Context<'_>, head: &Head<'_>) -> Parsed<OnBuild> {
    head.flags.finish(context, &[])?;
    if head.arguments.is_empty() {
        return Err(head.missing_argument(context, "an instruction").boxed());
    }
    let instruction = parse_trigger(context, head.arguments.start)?;
    let mut text = instruction.text.clone();
    for heredoc in &context.line.heredocs {
        append_heredoc(&mut text, heredoc);
    }
    Ok(OnBuild { text, instruction: Box::new(instruction) })
}

fn append_heredoc(text: &mut String, heredoc: &HeredocBody) {
    text.push('\n');
    text.push_str(&heredoc.raw);
    text.push_str(&heredoc.marker.name);
}

fn check_trigger(context: &Context<'_>, head: &Head<'_>) -> Parsed<()> {
    let name = head.name();
    if !matches!(name.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
        return Ok(());
    }
    let help = match name.as_str() {
        "ONBUILD" => "a trigger runs in the image that is built from this one, and not in that one's children",
        "FROM" => "a trigger cannot start a stage",
        _ => "use `ONBUILD LABEL org.opencontainers.image.authors=…`",
    };
    Err(Diagnostic::error(format!("ONBUILD cannot trigger {name}"), head.keyword.span(context))
        .with_label("not allowed as a trigger")
        .with_help(help)
        .boxed())
}

#[cfg(test)]
mod tests;
