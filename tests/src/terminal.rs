//! A program on a terminal of its own, as somebody sits before it.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Reached only by what hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program, its terminal, and what it wrote.
pub struct OnTerminal {
    child: Child,
    keys: File,
    written: Receiver<Vec<u8>>,
    screen: String,
}

impl OnTerminal {
    /// Starts it with a terminal as all three standard streams.
    pub fn start(mut command: Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other side");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let slave = File::options().read(true).write(true).open(name.to_str().expect("text")).expect("its other side");
        let end = || OwnedFd::from(slave.try_clone().expect("a file can be shared"));
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("it starts");
        drop((slave, command));
        let keys = File::from(master);
        let mut screen = keys.try_clone().expect("a file can be shared");
        let (writer, written) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                if writer.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keys, written, screen: String::new() }
    }

    /// Types a line.
    pub fn types(&mut self, line: &str) {
        self.presses(&format!("{line}\n"));
    }

    /// Presses keys.
    pub fn presses(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("it reads");
    }

    /// Waits until it has written a text after what was waited for before.
    #[track_caller]
    pub fn sees(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.screen.find(text) {
                self.screen.drain(..at + text.len());
                return;
            }
            match self.written.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.screen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("no {text:?} ({error}) in\n{}", self.screen),
            }
        }
    }

    /// Waits for its end.
    pub fn ends(mut self) -> ExitStatus {
        self.child.wait().expect("it can be waited for")
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
