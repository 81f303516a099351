//! An init for commands that do not expect to be process 1: it passes signals on and reaps orphans.

use std::io;

use rustix::process::{Pid, WaitOptions, kill_process, wait};

use crate::channel::Channel;
use crate::first::exit_of;
use crate::system_call::{Fork, block_signals, close_from, fork, wait_for_signal};

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
        let signal = wait_for_signal()?;
        if signal != libc::SIGCHLD {
            if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
                let _ = kill_process(command, signal);
            }
            continue;
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == command {
                return Ok(exit_of(status));
            }
        }
    }
}
