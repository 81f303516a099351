//! Between the caller's terminal and the container: signals, sizes and bytes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use kiln_sandbox::process::Signaller;
use kiln_sandbox::{Exit, Sandbox};
use rustix::termios::{OptionalActions, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use signal_hook::consts::{SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::{Error, Result};

/// How often a container may be asked to end: the next time it is not asked. As docker's client does, which leaves.
const PATIENCE: u32 = 2;

/// From here on signals no longer end this process: they wait for [`until_end`].
pub(crate) fn catch_signals() -> Result<Signals> {
    let all = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT, SIGWINCH];
    Signals::new(all).map_err(|error| Error::io("catch signals for", "the container", error))
}

/// Passes signals (and, with a terminal, bytes) on until the container ends.
pub(crate) fn until_end(mut sandbox: Sandbox, signals: Signals, interactive: bool) -> Result<Exit> {
    let io = |error| Error::io("relay to", "the container", error);
    let terminal = sandbox.terminal.take();
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
    let mut asked = 0;
    for signal in signals.forever() {
        if signal == SIGWINCH {
            if let (Some(terminal), Some(size)) = (terminal, size()) {
                let _ = tcsetwinsize(terminal, size);
            }
            continue;
        }
        asked += u32::from(matches!(signal, SIGINT | SIGTERM));
        // The first process of a pid namespace ignores what it has no handler for: the user would never get away.
        let signal = if asked > PATIENCE { SIGKILL } else { signal };
        // It may have ended a moment ago.
        let _ = signaller.send(signal);
    }
}

/// Of our terminal.
fn size() -> Option<Winsize> {
    tcgetwinsize(std::io::stdin()).or_else(|_| tcgetwinsize(std::io::stdout())).ok()
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
        // A panic may abort, and nothing is dropped then.
        let (restore, report) = (Self(before.clone()), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            restore.leave();
            report(panic);
        }));
        Some(Self(before))
    }

    fn leave(&self) {
        let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Drain, &self.0);
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.leave();
    }
}
