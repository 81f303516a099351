//! An agent's socket in a step: a socket of its own with the owner and mode that were asked for, whose connections are
//! passed on to the agent. The agent's own socket is never seen by the step.

use std::io::Read;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::{Error, Result};

/// Passes connections on until it is dropped.
pub(crate) struct Relay {
    socket: PathBuf,
    ended: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Relay {
    /// Listens in `directory` on behalf of the agent behind `agent`.
    pub(crate) fn start(agent: &Path, directory: &Path, (mode, uid, gid): (u32, u32, u32)) -> Result<Self> {
        let io = |error| Error::io("forward the ssh agent", agent, error);
        let socket = directory.join("agent");
        // A socket's address is short: the directory's path may not be.
        let listener = bind_short(directory, "agent").map_err(io)?;
        // With one mapped id ownership cannot be given away: the one id there is owns it.
        match std::os::unix::fs::chown(&socket, Some(uid), Some(gid)) {
            Err(error) if error.raw_os_error() != Some(22) => return Err(io(error)),
            _ => {}
        }
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(mode)).map_err(io)?;
        UnixStream::connect(agent).map_err(io)?;
        let ended = Arc::new(AtomicBool::new(false));
        let (agent, stop) = (agent.to_path_buf(), Arc::clone(&ended));
        let listening = std::thread::spawn(move || accept(&listener, &agent, &stop));
        Ok(Self { socket, ended, listening: Some(listening) })
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // Wakes the listener up; when it is gone already there is nothing to wake.
        let _ = connect_short(&self.socket);
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

/// `/proc/self/fd/N/name`, which is short whatever the directory is.
fn through_descriptor(directory: &Path) -> std::io::Result<(std::fs::File, PathBuf)> {
    use std::os::fd::AsRawFd;
    let opened = std::fs::File::open(directory)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    Ok((opened, path))
}

fn bind_short(directory: &Path, name: &str) -> std::io::Result<UnixListener> {
    let (_open, path) = through_descriptor(directory)?;
    UnixListener::bind(path.join(name))
}

fn connect_short(socket: &Path) -> std::io::Result<UnixStream> {
    let (_open, path) = through_descriptor(socket.parent().unwrap_or(Path::new("/")))?;
    UnixStream::connect(path.join(socket.file_name().unwrap_or_default()))
}

fn accept(listener: &UnixListener, agent: &Path, ended: &AtomicBool) {
    while let Ok((step, _)) = listener.accept() {
        if ended.load(Ordering::Acquire) {
            return;
        }
        let agent = agent.to_path_buf();
        std::thread::spawn(move || {
            if let Err(error) = pass(&step, &agent) {
                tracing::debug!(%error, "the connection to the ssh agent ended");
            }
        });
    }
}

fn pass(step: &UnixStream, agent: &Path) -> std::io::Result<()> {
    let agent = UnixStream::connect(agent)?;
    let (from_agent, to_step) = (agent.try_clone()?, step.try_clone()?);
    let back = std::thread::spawn(move || copy(&from_agent, &to_step));
    copy(step, &agent);
    let _ = back.join();
    Ok(())
}

/// Copies until one side ends, and tells the other.
fn copy(mut from: &UnixStream, mut to: &UnixStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if std::io::Write::write_all(&mut to, &buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
