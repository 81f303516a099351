//! `kiln debug`: a shell where a RUN failed.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Result, bail};
use kiln_build::Error;
use kiln_build::failed_step::{self, FailedStep};
use kiln_sandbox::Exit;
use kiln_sandbox::process::Error as Start;
use kiln_store::Store;

use crate::failure::{report, tell};

/// Open a shell in the root file system of the RUN that failed last, as its command left it
#[derive(Debug, clap::Args)]
pub(crate) struct DebugArgs {
    /// Execute this instead of the step's shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The command's exit status is kiln's.
pub(crate) fn run(args: &DebugArgs, store: &Store) -> Result<ExitCode> {
    let Some(step) = failed_step::last(store)? else {
        bail!("no step is kept: the last build did not fail in a RUN, or what it left was pruned");
    };
    let opened = open(&step, store, &args.command);
    Ok(opened.unwrap_or_else(|error| {
        let status = match &error {
            Error::Sandbox(Start::NotFound(_)) => 127,
            Error::Sandbox(Start::NotExecutable(..)) => 126,
            _ => 125,
        };
        report(&anyhow::Error::new(error));
        ExitCode::from(status)
    }))
}

/// After a build that failed, when somebody is there: whatever comes of it, the build has failed.
pub(crate) fn after_build(store: &Store) -> Result<()> {
    let Some(step) = failed_step::last(store)? else { return Ok(()) };
    open(&step, store, &[])?;
    Ok(())
}

fn open(step: &FailedStep, store: &Store, command: &[String]) -> kiln_build::Result<ExitCode> {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let mut shell = step.open(store, command, terminal)?;
    for missing in &shell.missing {
        tell(&format!("kiln: not as it was: {missing}\n"));
    }
    if terminal && command.is_empty() {
        let line = step.command().join(" ");
        tell(&format!("In {}, which ended with {}. It executed:\n  {line}\n", step.name(), step.reason()));
    }
    let exit = kiln_container::follow_sandbox(&mut shell.sandbox).map_err(|source| Error::Io {
        action: "follow the shell in",
        path: step.name().into(),
        source,
    })?;
    Ok(match exit {
        Exit::Code(code) => ExitCode::from(code),
        Exit::Signal(signal) => ExitCode::from(128_u8.saturating_add(u8::try_from(signal).unwrap_or(127))),
    })
}
