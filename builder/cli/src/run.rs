//! `kiln run`.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Result, bail};
use kiln_container::{DetachKeys, Ended, Terminal};
use kiln_store::Store;

use crate::create::{self, ContainerArgs};
use crate::failure;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true, override_usage = "kiln run [OPTIONS] IMAGE [COMMAND] [ARG...]")]
pub(crate) struct RunArgs {
    /// Run in the background, and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Pass signals on
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, require_equals = true, num_args = 0..=1, default_missing_value = "true")]
    sig_proxy: bool,
    #[command(flatten)]
    container: ContainerArgs,
}

impl RunArgs {
    /// Whether the container may be on a bridge.
    pub(crate) fn uses_bridges(&self) -> bool {
        self.container.network.uses_bridges()
    }
}

/// Runs a container; its exit status is kiln's.
pub(crate) fn run(args: &RunArgs, store: Store) -> ExitCode {
    match try_run(args, store) {
        Ok(Ended::Status(status)) => ExitCode::from(status),
        Ok(ended) => left(ended),
        Err(error) => {
            if error.is::<failure::Shown>() {
                return failure::report(&error);
            }
            let status = error.downcast_ref().map_or(125, kiln_container::Error::exit_status);
            failure::report(&error);
            ExitCode::from(status)
        }
    }
}

fn try_run(args: &RunArgs, store: Store) -> Result<Ended> {
    let container = &args.container;
    check_terminal(container.interactive && !args.detach, container.tty)
        .map_err(|error| failure::with_status(error, 1))?;
    if args.detach && !container.attach.is_empty() {
        bail!("Conflicting options: -a and -d");
    }
    let terminal = Terminal {
        detach_keys: DetachKeys::parse(&container.detach_keys)?,
        signal_proxy: args.sig_proxy,
        streams: container.streams(),
    };
    let (image, options) = create::prepare(container, &store, args.detach)?;
    let mut id = String::new();
    let ended = kiln_container::run(store, &image, &options, &terminal, &mut |record| {
        id.clone_from(&record.id);
        container.write_cidfile(record).map_err(|error| kiln_container::Error::Invalid(format!("{error:#}")))
    })?;
    if args.detach {
        failure::print(&format!("{id}\n"))?;
    }
    Ok(ended)
}

/// A terminal for the container needs one of ours.
pub(crate) fn check_terminal(interactive: bool, tty: bool) -> Result<()> {
    if tty && interactive && !std::io::stdin().is_terminal() {
        bail!("the input device is not a TTY: leave out -t, or -i");
    }
    Ok(())
}

/// The exit code when the container runs on.
pub(crate) fn left(ended: Ended) -> ExitCode {
    match ended {
        Ended::Status(status) => ExitCode::from(status),
        Ended::Detached => ExitCode::SUCCESS,
        Ended::Interrupted(signal) => ExitCode::from(128_u8.saturating_add(u8::try_from(signal).unwrap_or(127))),
    }
}
