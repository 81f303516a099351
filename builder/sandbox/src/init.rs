//! An init for commands that do not expect to be process 1: it passes signals on and reaps orphans.

use std::io::{self, Write};

use rustix::process::{Pid, WaitOptions, kill_process, wait};

use crate::channel::Channel;
use crate::execute::Command;
use crate::first::exit_of;
use crate::process::Error;
use crate::system_call::{Fork, block_signals, close_from, fork, reset_signals, wait_for_signal};

/// Where this binary is in a container that an OCI runtime runs with an init, and `argv[0]` of it there.
pub const PLACE: &str = "/dev/init";

/// The init of such a container: what follows is the command.
pub(crate) fn main(arguments: &[String]) -> ! {
    let started = (|| match fork()? {
        Fork::Child => {
            let _ = rustix::process::setpgid(None, None);
            if rustix::termios::isatty(rustix::stdio::stdin()) {
                block_signals()?;
                let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
            }
            reset_signals();
            let environment = std::env::vars_os().map(|(name, value)| [name, value].map(|text| text.into_string()));
            let environment: Vec<String> =
                environment.filter_map(|[name, value]| Some(format!("{}={}", name.ok()?, value.ok()?))).collect();
            let failed = Command::new(arguments, &environment).map_or_else(|error| error, |command| command.execute());
            let _ = writeln!(io::stderr(), "kiln: {failed}");
            std::process::exit(match failed {
                Error::NotFound(_) => 127,
                Error::NotExecutable(..) => 126,
                _ => 125,
            })
        }
        Fork::Parent(command) => serve(command),
    })();
    std::process::exit(started.unwrap_or(255))
}

/// Forks: the child returns and becomes the command, this process stays and exits as the command does.
pub(crate) fn stay_behind(supervisor: &Channel, terminal: bool) -> io::Result<()> {
    match fork()? {
        Fork::Child => {
            let _ = rustix::process::setpgid(None, None);
            if terminal {
                // It would be stopped for this while it is in the background.
                block_signals()?;
                let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
            }
            Ok(())
        }
        Fork::Parent(command) => {
            let _ = supervisor;
            // The supervisor takes the end of its channel for the start of the command: only the child holds it now.
            let _ = close_from(3);
            let _ = rustix::thread::set_name(c"kiln-init");
            std::process::exit(serve(command).unwrap_or(255))
        }
    }
}

fn serve(command: Pid) -> io::Result<i32> {
    block_signals()?;
    loop {
        // First of all: a command that ended before the signals were blocked is told by none.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == command {
                return Ok(exit_of(status));
            }
        }
        let signal = wait_for_signal()?;
        if signal != libc::SIGCHLD
            && let Some(signal) = rustix::process::Signal::from_named_raw(signal)
        {
            let _ = kill_process(command, signal);
        }
    }
}
