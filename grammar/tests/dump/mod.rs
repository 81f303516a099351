//! A syntax tree as text: every word with the place it was written at.

use kiln_grammar::ast::*;
use kiln_grammar::{Diagnostic, Span, Spanned};

/// One line for each instruction, and one for each part of it.
pub(crate) fn dump(dockerfile: &Dockerfile, source: &[u8]) -> String {
    let mut dump = Dump { source, text: String::new() };
    let directives = &dockerfile.directives;
    dump.line(0, &format!("escape {:?}", directives.escape));
    for (name, directive) in [("syntax", &directives.syntax), ("check", &directives.check)] {
        if let Some(directive) = directive {
            dump.part(name, &dump.spanned(directive));
        }
    }
    for instruction in &dockerfile.instructions {
        dump.instruction(instruction);
    }
    for warning in &dockerfile.warnings {
        let at = dump.at(warning.span);
        dump.line(0, &format!("warning: {} {at}", warning.message));
    }
    dump.text
}

struct Dump<'s> {
    source: &'s [u8],
    text: String,
}

impl Dump<'_> {
    fn line(&mut self, indent: usize, text: &str) {
        self.text.push_str(&"  ".repeat(indent));
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn part(&mut self, name: &str, value: &str) {
        self.line(1, &format!("{name}: {value}"));
    }

    fn at(&self, span: Span) -> String {
        let (line, column) = Diagnostic::line_column(self.source, span.start);
        let (end_line, end_column) = Diagnostic::line_column(self.source, span.end);
        if line == end_line {
            format!("@{line}:{column}-{end_column}")
        } else {
            format!("@{line}:{column}-{end_line}:{end_column}")
        }
    }

    fn spanned(&self, spanned: &Spanned<String>) -> String {
        format!("{:?} {}", spanned.value, self.at(spanned.span))
    }

    fn word(&self, word: &Word) -> String {
        format!("{:?} {}", word.raw, self.at(word.span))
    }

    fn words(&mut self, name: &str, words: &[Word]) {
        for word in words {
            self.part(name, &self.word(word));
        }
    }

    fn optional(&mut self, name: &str, word: Option<&Word>) {
        if let Some(word) = word {
            self.part(name, &self.word(word));
        }
    }

    fn instruction(&mut self, instruction: &Instruction) {
        let at = self.at(instruction.span);
        self.line(0, &format!("{} {at} {:?}", instruction.keyword.value, instruction.text));
        for comment in &instruction.comments {
            self.part("comment", &self.spanned(comment));
        }
        self.kind(&instruction.kind);
    }

    fn kind(&mut self, kind: &InstructionKind) {
        match kind {
            InstructionKind::From(from) => {
                self.optional("platform", from.platform.as_ref());
                self.part("image", &self.word(&from.image));
                if let Some(name) = &from.name {
                    self.part("name", &self.spanned(name));
                }
            }
            InstructionKind::Arg(declarations) => {
                for declaration in declarations {
                    let default = declaration.default.as_ref().map(|default| self.word(default));
                    self.part("arg", &format!("{} = {default:?}", self.word(&declaration.name)));
                }
            }
            InstructionKind::Run(run) => self.run(run),
            InstructionKind::Cmd(command) | InstructionKind::Entrypoint(command) => self.command(command),
            InstructionKind::Copy(transfer) | InstructionKind::Add(transfer) => self.transfer(transfer),
            InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
                for pair in pairs {
                    let legacy = if pair.legacy { " legacy" } else { "" };
                    self.part("pair", &format!("{} = {}{legacy}", self.word(&pair.key), self.word(&pair.value)));
                }
            }
            InstructionKind::Maintainer(name) => self.part("name", &format!("{name:?}")),
            InstructionKind::Expose(words) => self.words("port", words),
            InstructionKind::Volume(words) => self.words("path", words),
            InstructionKind::User(word) => self.part("user", &self.word(word)),
            InstructionKind::Workdir(word) => self.part("path", &self.word(word)),
            InstructionKind::StopSignal(word) => self.part("signal", &self.word(word)),
            InstructionKind::Shell(words) => self.part("exec", &format!("{words:?}")),
            InstructionKind::HealthCheck(health) => self.health(health),
            InstructionKind::OnBuild(onbuild) => {
                self.part("trigger", &format!("{:?}", onbuild.text));
                self.instruction(&onbuild.instruction);
            }
        }
    }

    fn run(&mut self, run: &Run) {
        self.words("mount", &run.mounts);
        self.optional("network", run.network.as_ref());
        self.optional("security", run.security.as_ref());
        self.words("device", &run.devices);
        self.command(&run.command);
        for heredoc in &run.heredocs {
            self.heredoc(heredoc);
        }
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Shell(text) => self.part("shell", &self.spanned(text)),
            Command::Exec(arguments) => self.part("exec", &format!("{arguments:?}")),
        }
    }

    fn heredoc(&mut self, heredoc: &Heredoc) {
        let Heredoc { name, expand, strip_tabs, fd, body, span } = heredoc;
        let at = self.at(*span);
        self.part("heredoc", &format!("{name:?} expand={expand} strip_tabs={strip_tabs} fd={fd} {body:?} {at}"));
    }

    fn transfer(&mut self, transfer: &Transfer) {
        self.optional("from", transfer.from.as_ref());
        self.optional("chown", transfer.chown.as_ref());
        self.optional("chmod", transfer.chmod.as_ref());
        self.optional("checksum", transfer.checksum.as_ref());
        self.words("exclude", &transfer.exclude);
        let Transfer { link, parents, keep_git_dir, unpack, .. } = transfer;
        let switches = format!("link={link} parents={parents} keep_git_dir={keep_git_dir:?} unpack={unpack:?}");
        self.part("switches", &switches);
        for source in &transfer.sources {
            match source {
                TransferSource::Path(path) => self.part("source", &self.word(path)),
                TransferSource::Heredoc(heredoc) => self.heredoc(heredoc),
            }
        }
        self.part("destination", &self.word(&transfer.destination));
    }

    fn health(&mut self, health: &HealthCheck) {
        match health {
            HealthCheck::None => self.part("none", ""),
            HealthCheck::Test { interval, timeout, start_period, start_interval, retries, command } => {
                self.part("every", &format!("{interval:?} timeout {timeout:?} retries {retries:?}"));
                self.part("start", &format!("{start_period:?} every {start_interval:?}"));
                self.command(command);
            }
        }
    }
}
