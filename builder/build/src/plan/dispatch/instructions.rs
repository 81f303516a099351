//! Instructions that change the config, and the switch to those that make layers.

use std::time::Duration;

use kiln_grammar::ast::{ArgDeclaration, Command, HealthCheck, Instruction, InstructionKind, OnBuild, Pair, Word};
use kiln_grammar::diagnostic::nearest;
use kiln_image::config::Healthcheck;
use serde_json::Value;

use super::{Planner, StageState, push_history};
use crate::plan::{Operation, WorkdirStep, history, ports};
use crate::{Error, Result};

impl Planner<'_> {
    /// Works one instruction into a stage.
    pub(super) fn dispatch(&mut self, state: &mut StageState, instruction: &Instruction) -> Result<()> {
        match &instruction.kind {
            InstructionKind::From(_) => Err(Error::at(instruction.span, "FROM cannot stand here")),
            InstructionKind::Run(run) => self.run(state, instruction, run),
            InstructionKind::Copy(transfer) => self.transfer(state, instruction, transfer, false),
            InstructionKind::Add(transfer) => self.transfer(state, instruction, transfer, true),
            InstructionKind::Workdir(word) => self.workdir(state, instruction, word),
            InstructionKind::Arg(declarations) => self.arg(state, declarations),
            InstructionKind::Env(pairs) => self.env(state, pairs),
            InstructionKind::Label(pairs) => self.label_instruction(state, pairs),
            InstructionKind::Expose(words) => self.expose(state, words),
            InstructionKind::User(word) => self.user(state, word),
            InstructionKind::Volume(words) => self.volume(state, words),
            InstructionKind::StopSignal(word) => self.stop_signal(state, word),
            InstructionKind::Maintainer(name) => maintainer(state, name),
            InstructionKind::Cmd(command) => cmd(state, command),
            InstructionKind::Entrypoint(command) => entrypoint(state, command),
            InstructionKind::Shell(words) => shell(state, words),
            InstructionKind::HealthCheck(check) => health_check(state, check),
            InstructionKind::OnBuild(trigger) => on_build(state, trigger),
        }
    }

    fn workdir(&mut self, state: &mut StageState, instruction: &Instruction, word: &Word) -> Result<()> {
        let text = self.expand(word, &state.scope)?;
        let path = absolute(&state.config.config.working_dir, &text);
        path.clone_into(&mut state.config.config.working_dir);
        if path == "/" {
            push_history(state, "WORKDIR /".to_owned(), None);
            return Ok(());
        }
        let created_by = format!("WORKDIR {path}");
        let user = state.config.config.user.clone();
        self.add_layer(state, instruction, Operation::Workdir(WorkdirStep { path, user }), created_by);
        Ok(())
    }

    fn arg(&mut self, state: &mut StageState, declarations: &[ArgDeclaration]) -> Result<()> {
        let mut words = vec!["ARG".to_owned()];
        for declaration in declarations {
            let name = self.expand(&declaration.name, &state.scope)?;
            let default = match &declaration.default {
                Some(word) => Some(self.expand(word, &state.scope)?),
                None => None,
            };
            words.push(match &default {
                Some(default) => format!("{name}={default}"),
                None => name.clone(),
            });
            let inherited = default.or_else(|| self.globals.0.get(&name).cloned().flatten());
            let value = self.request.build_args.get(&name).cloned().or(inherited);
            self.consumed.insert(name.clone());
            state.scope.set_arg(name, value);
        }
        push_history(state, words.join(" "), None);
        Ok(())
    }

    fn env(&self, state: &mut StageState, pairs: &[Pair]) -> Result<()> {
        let (expanded, line) = self.pairs(state, pairs, "ENV")?;
        for (name, value) in expanded {
            state.scope.set_env(name, value);
        }
        let env = state.scope.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        state.config.config.env = Some(env);
        push_history(state, line, None);
        Ok(())
    }

    fn label_instruction(&self, state: &mut StageState, pairs: &[Pair]) -> Result<()> {
        let (expanded, line) = self.pairs(state, pairs, "LABEL")?;
        state.config.config.labels.get_or_insert_default().extend(expanded);
        push_history(state, line, None);
        Ok(())
    }

    /// Expands all pairs with the variables as they were before the instruction.
    fn pairs(&self, state: &StageState, pairs: &[Pair], keyword: &str) -> Result<(Vec<(String, String)>, String)> {
        let mut line = keyword.to_owned();
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let key = self.expand(&pair.key, &state.scope)?;
            if key.is_empty() {
                return Err(Error::at_with_help(
                    pair.key.span,
                    format!("{keyword} names can not be blank"),
                    "the variables in it are not set: give them a value, or write the name",
                )
                .labelled("becomes an empty name"));
            }
            let value = self.expand(&pair.value, &state.scope)?;
            line.push_str(&format!(" {key}={value}"));
            expanded.push((key, value));
        }
        Ok((expanded, line))
    }

    fn expose(&self, state: &mut StageState, words: &[Word]) -> Result<()> {
        let mut listed = Vec::new();
        for word in words {
            for text in kiln_grammar::expand::expand_split(word, self.escape, &state.scope)? {
                listed.extend(ports::parse(&text).map_err(|reason| Error::at(word.span, reason))?);
            }
        }
        listed.sort();
        listed.dedup();
        let shown: Vec<String> = listed.iter().map(|port| format!("{port}:{{}}")).collect();
        let exposed = state.config.config.exposed_ports.get_or_insert_default();
        exposed.extend(listed.into_iter().map(|port| (port, empty_object())));
        push_history(state, format!("EXPOSE map[{}]", shown.join(" ")), None);
        Ok(())
    }

    fn user(&self, state: &mut StageState, word: &Word) -> Result<()> {
        let user = self.expand(word, &state.scope)?;
        push_history(state, format!("USER {user}"), None);
        state.config.config.user = user;
        Ok(())
    }

    fn volume(&self, state: &mut StageState, words: &[Word]) -> Result<()> {
        let mut paths = Vec::with_capacity(words.len());
        for word in words {
            let path = self.expand(word, &state.scope)?;
            if path.is_empty() {
                return Err(Error::at(word.span, "a VOLUME's path can not be empty").labelled("expected a path"));
            }
            paths.push(path);
        }
        let line = format!("VOLUME [{}]", paths.join(" "));
        let volumes = state.config.config.volumes.get_or_insert_default();
        volumes.extend(paths.into_iter().map(|path| (path, empty_object())));
        push_history(state, line, None);
        Ok(())
    }

    fn stop_signal(&self, state: &mut StageState, word: &Word) -> Result<()> {
        let signal = self.expand(word, &state.scope)?;
        if !is_signal(&signal) {
            let meant = nearest(signal.trim_start_matches("SIG"), &SIGNALS);
            let help = match meant {
                Some(name) => format!("did you mean `SIG{name}`?"),
                None => "use a name such as SIGTERM, or a number from 1 to 64".to_owned(),
            };
            return Err(Error::at_with_help(word.span, format!("unknown signal {signal:?}"), help));
        }
        push_history(state, format!("STOPSIGNAL {signal}"), None);
        state.config.config.stop_signal = Some(signal);
        Ok(())
    }
}

/// A path below the working directory unless it is absolute; `.` and `..` resolved, no trailing slash.
pub(super) fn absolute(working_directory: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{working_directory}/{path}") };
    let mut names: Vec<&str> = Vec::new();
    for name in joined.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

fn empty_object() -> Value {
    Value::Object(serde_json::Map::new())
}

/// The signals' names.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    SIGNALS.contains(&name) || name.starts_with("RTMIN") || name.starts_with("RTMAX")
}

/// The shell that shell forms are given to.
pub(super) fn shell_words(state: &StageState) -> Vec<String> {
    match &state.config.config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
    }
}

fn command_words(state: &StageState, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(line) => {
            let mut words = shell_words(state);
            words.push(line.value.clone());
            words
        }
    }
}

fn maintainer(state: &mut StageState, name: &str) -> Result<()> {
    state.config.author = Some(name.to_owned());
    push_history(state, format!("MAINTAINER {name}"), None);
    Ok(())
}

fn cmd(state: &mut StageState, command: &Command) -> Result<()> {
    let words = command_words(state, command);
    push_history(state, format!("CMD {}", history::quoted_list(&words)), None);
    state.config.config.args_escaped = Some(true);
    state.config.config.cmd = Some(words);
    state.cmd_set = true;
    Ok(())
}

fn entrypoint(state: &mut StageState, command: &Command) -> Result<()> {
    let words = command_words(state, command);
    push_history(state, format!("ENTRYPOINT {}", history::quoted_list(&words)), None);
    state.config.config.entrypoint = Some(words);
    if !state.cmd_set {
        state.config.config.cmd = None;
    }
    Ok(())
}

fn shell(state: &mut StageState, words: &[String]) -> Result<()> {
    push_history(state, format!("SHELL [{}]", words.join(" ")), None);
    state.config.config.shell = Some(words.to_vec());
    Ok(())
}

fn health_check(state: &mut StageState, check: &HealthCheck) -> Result<()> {
    let check = match check {
        HealthCheck::None => Healthcheck { test: Some(vec!["NONE".to_owned()]), ..Healthcheck::default() },
        HealthCheck::Test { interval, timeout, start_period, start_interval, retries, command } => Healthcheck {
            test: Some(match command {
                Command::Shell(line) => vec!["CMD-SHELL".to_owned(), line.value.clone()],
                Command::Exec(words) => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
            }),
            interval: nanoseconds(*interval),
            timeout: nanoseconds(*timeout),
            start_period: nanoseconds(*start_period),
            start_interval: nanoseconds(*start_interval),
            retries: i64::from(retries.unwrap_or(0)),
        },
    };
    push_history(state, history::healthcheck(&check), None);
    state.config.config.healthcheck = Some(check);
    Ok(())
}

fn nanoseconds(duration: Option<Duration>) -> i64 {
    duration.map_or(0, |duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

fn on_build(state: &mut StageState, trigger: &OnBuild) -> Result<()> {
    state.config.config.on_build.get_or_insert_default().push(trigger.text.clone());
    Ok(())
}
