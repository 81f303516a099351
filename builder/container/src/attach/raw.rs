//! Our terminal in raw mode, and back.

use std::os::fd::AsFd;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// Our terminal in raw mode; as it was when this is dropped.
pub(crate) struct RawMode(Termios);

impl RawMode {
    /// `None` without a terminal.
    pub(crate) fn enter() -> Option<Self> {
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
