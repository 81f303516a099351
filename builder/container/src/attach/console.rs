//! Between the caller's terminal and a sandbox that is no container.

use std::fs::File;
use std::io::{Read, Write};

use kiln_sandbox::{Exit, Sandbox};
use rustix::termios::{Winsize, tcsetwinsize};
use signal_hook::consts::SIGWINCH;
use signal_hook::iterator::Signals;

use super::{RawMode, Terminal};

/// Passes the caller's terminal on to a sandbox that has one, until it ends; waits for one that has none.
///
/// # Errors
/// The terminal cannot be written; the sandbox's supervisor was killed.
pub fn follow(sandbox: &mut Sandbox) -> std::io::Result<Exit> {
    let Some(terminal) = sandbox.terminal.take() else { return sandbox.wait() };
    let mut terminal = File::from(terminal);
    let (mut input, size) = (terminal.try_clone()?, terminal.try_clone()?);
    let mut resized = Signals::new([SIGWINCH])?;
    let raw = RawMode::enter();
    // Both end with the process: a read of our input cannot be called off.
    std::thread::spawn(move || std::io::copy(&mut std::io::stdin().lock(), &mut input));
    std::thread::spawn(move || {
        for _ in resized.forever() {
            if let Some((ws_row, ws_col)) = Terminal::default().size() {
                let _ = tcsetwinsize(&size, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 });
            }
        }
    });
    let mut buffer = vec![0; 16 * 1024];
    let mut stdout = std::io::stdout();
    // It hangs up (EIO) with the last process that has it.
    while let Ok(length @ 1..) = terminal.read(&mut buffer) {
        stdout.write_all(&buffer[..length]).and_then(|()| stdout.flush())?;
    }
    drop(raw);
    sandbox.wait()
}
