//! `kiln exec` and `kiln attach`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use kiln_container::{DetachKeys, ExecOptions, Terminal, find};
use kiln_store::Store;

use crate::create::lines_of;
use crate::failure;
use crate::run::{check_terminal, left};

/// Arguments of `exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExecArgs {
    /// Do not wait for the command
    #[arg(short, long)]
    detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable; without `=` it is taken from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file, one a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// User in the container: name or id, with :group
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// All capabilities
    #[arg(long)]
    privileged: bool,
    /// Keys that let go of the command
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: String,
    /// Name, id, or beginning of an id
    container: String,
    /// The command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Arguments of `attach`.
#[derive(Debug, clap::Args)]
pub(crate) struct AttachArgs {
    /// Leave the container's standard input alone
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, require_equals = true, num_args = 0..=1, default_missing_value = "true")]
    sig_proxy: bool,
    /// Keys that let go of the container
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: String,
    /// Name, id, or beginning of an id
    container: String,
}

/// Executes a command; its exit status is kiln's.
pub(crate) fn run(args: &ExecArgs, store: Store) -> ExitCode {
    let execute = || -> Result<_> {
        check_terminal(args.interactive, args.tty)?;
        let container = find(&store, &args.container)?;
        // Nothing of it is needed while the command runs.
        drop(store);
        let own = |name: &String| std::env::var(name).map_or(name.clone(), |value| format!("{name}={value}"));
        let mut env = Vec::new();
        for path in &args.env_file {
            env.extend(lines_of(path)?);
        }
        env.extend(args.env.iter().cloned());
        let options = ExecOptions {
            args: args.command.clone(),
            env: env.iter().map(|line| if line.contains('=') { line.clone() } else { own(line) }).collect(),
            user: args.user.clone(),
            workdir: args.workdir.clone(),
            detach: args.detach,
            interactive: args.interactive,
            tty: args.tty,
            privileged: args.privileged,
        };
        let terminal = Terminal { detach_keys: DetachKeys::parse(&args.detach_keys)?, ..Terminal::default() };
        Ok(kiln_container::exec(&container, &options, &terminal)?)
    };
    execute().map_or_else(|error| reported(&error), left)
}

/// 126 and 127 are the command's, the rest is 1, as docker's.
fn reported(error: &anyhow::Error) -> ExitCode {
    let status = error.downcast_ref().map_or(125, kiln_container::Error::exit_status);
    failure::report(error);
    ExitCode::from(if status == 125 { 1 } else { status })
}

pub(crate) fn attach(args: &AttachArgs, store: Store) -> Result<ExitCode> {
    let container = find(&store, &args.container)?;
    drop(store);
    let terminal = Terminal {
        detach_keys: DetachKeys::parse(&args.detach_keys)?,
        signal_proxy: args.sig_proxy,
        ..Terminal::default()
    };
    Ok(left(kiln_container::attach(&container, !args.no_stdin, &terminal)?))
}
