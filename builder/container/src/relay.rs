//! Between the caller's terminal and the container: signals, sizes and bytes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use kiln_sandbox::process::Signaller;
use kiln_sandbox::{Exit, Sandbox};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use signal_hook::consts::{SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::{Error, Result};

/// Passes signals (and, with a terminal, bytes) on until the container ends.
pub(crate) fn until_end(mut sandbox: Sandbox, interactive: bool) -> Result<Exit> {
    let io = |error| Error::io("relay to", "the container", error);
    let terminal = sandbox.terminal.take();
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT, SIGWINCH]);
    let signals = signals.map_err(io)?;
    let handle = signals.handle();
    let signaller = sandbox.signaller().map_err(io)?;
    let sizes = terminal.as_ref().map(OwnedFd::try_clone).transpose().map_err(io)?;
    let forwarding = std::thread::spawn(move || forward(signals, &signaller, sizes.as_ref()));
    let exit = match terminal {
        None => sandbox.wait().map_err(io),
        Some(terminal) => with_terminal(&mut sandbox, terminal, interactive),
    };
    handle.close();
    let _ = forwarding.join();
    exit
}

fn forward(mut signals: Signals, signaller: &Signaller, terminal: Option<&OwnedFd>) {
    for signal in signals.forever() {
        if signal == SIGWINCH {
            if let (Some(terminal), Ok(size)) = (terminal, tcgetwinsize(std::io::stdin())) {
                let _ = tcsetwinsize(terminal, size);
            }
        } else {
            // It may have ended a moment ago.
            let _ = signaller.send(signal);
        }
    }
}

/// Copies between the container's terminal and ours, which is raw meanwhile.
fn with_terminal(sandbox: &mut Sandbox, terminal: OwnedFd, interactive: bool) -> Result<Exit> {
    let io = |error| Error::io("relay to", "the container's terminal", error);
    let _raw = if interactive { RawMode::enter() } else { None };
    let mut output = File::from(terminal.try_clone().map_err(io)?);
    if interactive {
        let mut input = File::from(terminal);
        // It ends with the process: a read of our terminal cannot be called off.
        std::thread::spawn(move || copy(&mut std::io::stdin(), &mut input));
    }
    let copying = std::thread::spawn(move || copy(&mut output, &mut std::io::stdout()));
    let exit = sandbox.wait().map_err(io)?;
    // The kernel ends the read when the last process of the terminal is gone.
    let _ = copying.join();
    Ok(exit)
}

/// Until either side ends; a terminal says EIO when nobody holds its other side.
fn copy(from: &mut dyn Read, to: &mut dyn Write) {
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if to.write_all(&buffer[..length]).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Our terminal in raw mode; as it was when this is dropped.
struct RawMode(Termios);

impl RawMode {
    fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        if !isatty(stdin.as_fd()) {
            return None;
        }
        let before = tcgetattr(stdin.as_fd()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Drain, &self.0);
    }
}
