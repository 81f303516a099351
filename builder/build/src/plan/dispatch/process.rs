//! RUN.

use kiln_grammar::ast::{Command, Heredoc, Instruction, Run, Word};
use kiln_grammar::mount::Mount;

use super::instructions::{absolute, shell_words};
use super::{Planner, StageState};
use crate::plan::history::LAYER_MARK;
use crate::plan::variables::PROXIES;
use crate::plan::{CopySource, CopyStep, Operation, Origin, RunStep, StepMount, Vertex};
use crate::progress::VertexId;
use crate::request::Network;
use crate::{Error, Result};

/// Where a here-document with a `#!` line is mounted while it runs.
pub(crate) const SCRIPT_DIRECTORY: &str = "/dev/pipes";
/// Where an agent's socket is mounted when the mount does not say.
const AGENT_SOCKET: &str = "/run/buildkit/ssh_agent.0";

impl Planner<'_> {
    pub(super) fn run(&mut self, state: &mut StageState, instruction: &Instruction, run: &Run) -> Result<()> {
        let insecure = self.is_insecure(state, run)?;
        let network = self.network(state, run)?;
        let (args, script) = arguments(state, run);
        let mut mounts = Vec::with_capacity(run.mounts.len());
        for word in &run.mounts {
            mounts.push(self.mount(state, word)?);
        }
        let shown = script.as_ref().map_or_else(|| args.clone(), |(name, _)| vec![format!("<<{name}")]);
        let words = state.scope.history_words().into_iter().chain(shown);
        let created_by = format!("RUN {}", words.collect::<Vec<_>>().join(" "));
        let working_directory = &state.config.config.working_dir;
        let step = RunStep {
            args,
            env: state.scope.process_env(),
            proxies: self.proxies(state),
            cwd: if working_directory.is_empty() { "/".to_owned() } else { working_directory.clone() },
            user: state.config.config.user.clone(),
            network,
            mounts,
            script,
            insecure,
            platform: state.platform.clone(),
        };
        self.add_layer(state, instruction, Operation::Run(Box::new(step)), created_by + LAYER_MARK);
        Ok(())
    }

    /// `--security=insecure`, when the build allows it.
    fn is_insecure(&self, state: &StageState, run: &Run) -> Result<bool> {
        if let Some(device) = run.devices.first() {
            return Err(Error::at(device.span, "devices are not supported yet"));
        }
        let Some(word) = &run.security else { return Ok(false) };
        match self.expand(word, &state.scope)?.as_str() {
            "sandbox" => Ok(false),
            "insecure" if self.request.allow.insecure => Ok(true),
            "insecure" => Err(Error::at_with_help(
                word.span,
                "security.insecure is not allowed in this build",
                "allow it with --allow security.insecure",
            )),
            other => Err(Error::at_with_help(
                word.span,
                format!("unknown security mode {other:?}"),
                "expected `sandbox` or `insecure`",
            )),
        }
    }

    fn network(&self, state: &StageState, run: &Run) -> Result<Network> {
        let Some(word) = &run.network else { return Ok(self.request.network) };
        match self.expand(word, &state.scope)?.as_str() {
            "default" => Ok(self.request.network),
            "host" if self.request.allow.host_network => Ok(Network::Host),
            "host" => Err(Error::at_with_help(
                word.span,
                "network.host is not allowed in this build",
                "allow it with --allow network.host, or with --network=host for every step",
            )),
            "none" => Ok(Network::None),
            other => Err(Error::at_with_help(
                word.span,
                format!("unknown network {other:?}"),
                "expected `default`, `none` or `host`",
            )),
        }
    }

    /// `--build-arg HTTP_PROXY=…` without an ARG of that name, and those of kiln's own environment that are passed on.
    fn proxies(&self, state: &StageState) -> Vec<(String, String)> {
        let declared = |name: &str| state.scope.args.iter().any(|(known, _)| known == name);
        let (given, own) = (&self.request.build_args, &self.request.run.proxies);
        let given = |name: &&str| Some(((*name).to_owned(), given.get(*name).or_else(|| own.get(*name))?.clone()));
        PROXIES.iter().filter(|name| !declared(name)).filter_map(given).collect()
    }

    fn mount(&mut self, state: &StageState, word: &Word) -> Result<StepMount> {
        let working_directory = state.config.config.working_dir.clone();
        let place = |target: String| match absolute(&working_directory, &target).as_str() {
            "/" => Err(Error::at_with_help(
                word.span,
                "a mount's target can not be the root directory",
                "mount it below, such as target=/mnt",
            )),
            path => Ok(path.to_owned()),
        };
        match kiln_grammar::mount::parse(word, self.escape, &state.scope)? {
            Mount::Bind { from, source, target, writable } => {
                let (from, source) = self.bind_source(state, word, from, source)?;
                Ok(StepMount::Bind { from, source, target: place(target)?, writable })
            }
            Mount::Cache { id, target, readonly, sharing, mode, uid, gid, from, source } => {
                let from = match from {
                    Some(from) => self.source_vertex(state, &Word { raw: from, span: word.span })?,
                    None => None,
                };
                let id = match self.request.build_args.get("BUILDKIT_CACHE_MOUNT_NS") {
                    Some(namespace) if !namespace.is_empty() => format!("{namespace}/{id}"),
                    _ => id,
                };
                let target = place(target)?;
                Ok(StepMount::Cache { id, target, readonly, sharing, mode, uid, gid, from, source })
            }
            Mount::Tmpfs { target, size, copy_up } => Ok(StepMount::Tmpfs { target: place(target)?, size, copy_up }),
            Mount::Secret { id, target, env, required, mode, uid, gid } => {
                if required && !self.request.secrets.contains_key(&id) {
                    return Err(Error::at_with_help(
                        word.span,
                        format!("secret {id:?} is required and was not given"),
                        format!("give it with --secret id={id},src=FILE"),
                    ));
                }
                let target = target.map(place).transpose()?;
                Ok(StepMount::Secret { id, target, env, required, mode, uid, gid })
            }
            Mount::Ssh { id, required, .. } if required && !self.request.agents.contains_key(&id) => {
                Err(Error::at_with_help(
                    word.span,
                    format!("ssh agent {id:?} is required and was not given"),
                    format!("give it with --ssh {id}, or --ssh {id}=SOCKET-OR-KEY"),
                ))
            }
            Mount::Ssh { id, target, mode, uid, gid, .. } => {
                let target = place(target.unwrap_or_else(|| AGENT_SOCKET.to_owned()))?;
                Ok(StepMount::Ssh { id, target, mode, uid, gid })
            }
        }
    }

    /// A bind mount of the context is a copy of just what it names, on nothing: it is keyed by content like any COPY,
    /// and what the ignore file hides stays hidden.
    fn bind_source(
        &mut self,
        state: &StageState,
        word: &Word,
        from: Option<String>,
        source: String,
    ) -> Result<(Option<VertexId>, String)> {
        let origin = match from {
            Some(from) => self.origin(state, &Word { raw: from, span: word.span })?,
            None => self.context_origin(),
        };
        let Origin::Context(_) = origin else {
            let vertex = self.origin_vertex(origin, word.span);
            return Ok((vertex, source));
        };
        let path = absolute("/", &source);
        let copy = CopyStep {
            sources: vec![CopySource { origin, path: path.clone(), span: word.span, unpack: false }],
            heredocs: Vec::new(),
            destination: path.clone(),
            destination_span: word.span,
            chown: None,
            chmod: None,
            exclude: Vec::new(),
            link: true,
            parents: false,
        };
        let stage = &self.stages.stages[state.number].name;
        let vertex = Vertex {
            name: format!("[context] load {source}"),
            step: self.step(stage, &path),
            span: word.span,
            parent: None,
            operation: Operation::Copy(Box::new(copy)),
        };
        Ok((Some(self.add(vertex)), path))
    }
}

/// The argument vector, and the script when a here-document has a `#!` line.
fn arguments(state: &StageState, run: &Run) -> (Vec<String>, Option<(String, String)>) {
    let line = match &run.command {
        Command::Exec(words) => return (words.clone(), None),
        Command::Shell(line) => &line.value,
    };
    let mut args = shell_words(state);
    match run.heredocs.as_slice() {
        [] => args.push(line.clone()),
        [heredoc] if is_only_marker(line) => {
            if heredoc.body.starts_with("#!") {
                let path = format!("{SCRIPT_DIRECTORY}/{}", heredoc.name);
                return (vec![path], Some((heredoc.name.clone(), heredoc.body.clone())));
            }
            args.push(heredoc.body.clone());
        }
        heredocs => args.push(with_bodies(line, heredocs)),
    }
    (args, None)
}

/// The whole command is `<<EOF`.
fn is_only_marker(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("<<") && !line.contains(char::is_whitespace)
}

/// The command with its bodies below it, for the shell to read.
fn with_bodies(line: &str, heredocs: &[Heredoc]) -> String {
    let mut text = line.to_owned();
    for heredoc in heredocs {
        text.push('\n');
        text.push_str(&heredoc.body);
        text.push_str(&heredoc.name);
    }
    text.push('\n');
    text
}
