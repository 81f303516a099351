//! The user and network namespace that all of an ordinary user's containers share, so that they can be connected. A
//! process of kiln's keeps them, and ends when nobody has needed it for a while.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::{Identity, enter, find_program};
use crate::mount::failed;
use crate::network_namespace::NetworkNamespace;
use crate::process::Error;
use crate::system_call::{raise_loopback, unshare};

/// `argv[0]` of the process that keeps the namespaces.
pub(crate) const KEEPER: &str = "kiln-namespaces";
/// How long the namespaces stay after their last use.
const LINGER: Duration = Duration::from_secs(5);
/// How long the way to the world may take to be there.
const EGRESS_LIMIT: Duration = Duration::from_secs(3);

/// The files in the directory that belongs to the namespaces.
struct Files<'a>(&'a Path);

impl Files<'_> {
    /// The keeper's pid; locked by the keeper as long as it lives.
    fn keeper(&self) -> PathBuf {
        self.0.join(".keeper")
    }

    /// Locked, shared, by everyone who needs the namespaces.
    fn users(&self) -> PathBuf {
        self.0.join(".users")
    }

    /// Locked while a keeper is started, or ends.
    fn change(&self) -> PathBuf {
        self.0.join(".change")
    }

    /// What leads to the world, or why nothing does.
    fn egress(&self) -> PathBuf {
        self.0.join(".egress")
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).read(true).write(true).open(path)
}

fn locked(path: &Path, operation: FlockOperation) -> io::Result<File> {
    let file = open(path)?;
    flock(&file, operation)?;
    Ok(file)
}

/// The pid of the keeper that lives.
fn keeper(files: &Files<'_>) -> Option<u32> {
    let file = File::open(files.keeper()).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => io::read_to_string(file).ok()?.trim().parse().ok(),
        _ => None,
    }
}

/// As [`enter`], but into the user namespace that the containers of this directory share; it is made when it is not
/// there. Does as `enter` where namespaces need not be shared: as root.
///
/// # Errors
/// As `enter`; the directory cannot be written.
pub fn enter_shared(directory: &Path) -> Result<Identity, Error> {
    if geteuid().is_root() && super::is_privileged()? {
        return enter();
    }
    let step = || failed(format!("share namespaces by {}", directory.display()));
    std::fs::create_dir_all(directory).map_err(step())?;
    let files = Files(directory);
    let _change = locked(&files.change(), FlockOperation::LockExclusive).map_err(step())?;
    // Held by this process until it ends: its containers need it from here on.
    let users = locked(&files.users(), FlockOperation::LockShared).map_err(step())?;
    std::mem::forget(users);
    match keeper(&files) {
        Some(pid) => join(pid).map_err(failed("join the namespaces that this user's containers share")),
        None => {
            let identity = enter()?;
            start(&files).map_err(failed("start the keeper of the namespaces that this user's containers share"))?;
            Ok(identity)
        }
    }
}

/// As [`enter`], into the shared namespace if there is one.
///
/// # Errors
/// As [`enter`].
pub fn enter_where_shared(directory: &Path) -> Result<Identity, Error> {
    if geteuid().is_root() && super::is_privileged()? {
        return enter();
    }
    match keeper(&Files(directory)) {
        Some(_) => enter_shared(directory),
        None => enter(),
    }
}

fn join(pid: u32) -> io::Result<Identity> {
    let namespace = File::open(format!("/proc/{pid}/ns/user"))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User))?;
    unshare(UnshareFlags::NEWNS)?;
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::DOWNSTREAM | rustix::mount::MountPropagationFlags::REC,
    )?;
    Identity::current()
}

/// Starts the keeper; it is there when this returns.
fn start(files: &Files<'_>) -> io::Result<()> {
    let (ready, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut child = Command::new("/proc/self/exe")
        .arg0(KEEPER)
        .arg(files.0)
        .stdin(Stdio::null())
        .stdout(Stdio::from(theirs))
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()?;
    let told = io::read_to_string(File::from(ready))?;
    if told.trim() != "ready" {
        let _ = child.wait();
        return Err(io::Error::other(told.trim().to_owned()));
    }
    Ok(())
}

/// Where a process that was started as a keeper goes.
pub(crate) fn main() -> ! {
    let directory = PathBuf::from(std::env::args_os().nth(1).unwrap_or_default());
    let outcome = keep(&Files(&directory));
    if let Err(error) = outcome {
        let _ = writeln!(io::stdout(), "{error}");
    }
    std::process::exit(1)
}

fn keep(files: &Files<'_>) -> io::Result<()> {
    let _ = rustix::thread::set_name(c"kiln-namespaces");
    let _ = rustix::process::setsid();
    let mut egress = Egress::prepare();
    unshare(UnshareFlags::NEWNET)?;
    raise_loopback()?;
    // Whoever looks whether it is locked lets go at once.
    let file = locked(&files.keeper(), FlockOperation::LockExclusive)?;
    file.set_len(0)?;
    write!(&file, "{}", std::process::id())?;
    let _ = std::fs::write(files.egress(), egress.start());
    tell_ready()?;
    loop {
        // Waits for the last user.
        drop(locked(&files.users(), FlockOperation::LockExclusive)?);
        std::thread::sleep(LINGER);
        let Ok(_change) = locked(&files.change(), FlockOperation::NonBlockingLockExclusive) else { continue };
        let Ok(_nobody) = locked(&files.users(), FlockOperation::NonBlockingLockExclusive) else { continue };
        egress.stop();
        for path in [files.keeper(), files.egress()] {
            let _ = std::fs::remove_file(path);
        }
        std::process::exit(0)
    }
}

/// The starter reads to the end, so the pipe must close.
fn tell_ready() -> io::Result<()> {
    writeln!(io::stdout(), "ready")?;
    io::stdout().flush()?;
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

/// The program that leads from the namespace to the world. It runs in the host's network, which the keeper leaves and
/// has no way back to: a thread stays there to start it.
struct Egress {
    program: Result<(&'static str, PathBuf), (String, &'static str)>,
    go: Option<Sender<()>>,
    starter: Option<JoinHandle<Option<Child>>>,
    child: Option<Child>,
}

impl Egress {
    fn prepare() -> Self {
        let program = egress_program();
        let (go, wait) = std::sync::mpsc::channel();
        let command = program.as_ref().ok().map(|(name, path)| egress_command(name, path));
        let starter = std::thread::spawn(move || {
            wait.recv().ok()?;
            command?.spawn().ok()
        });
        Self { program, go: Some(go), starter: Some(starter), child: None }
    }

    /// Starts it, now that the namespace is there; returns what [`SharedNamespaces::egress`] tells.
    fn start(&mut self) -> String {
        if let Some(go) = self.go.take() {
            let _ = go.send(());
        }
        self.child = self.starter.take().and_then(|starter| starter.join().ok()).flatten();
        let name = match &self.program {
            Ok((name, _)) => *name,
            Err((why, remedy)) => return format!("none: {why} ({remedy})"),
        };
        let began = Instant::now();
        while began.elapsed() < EGRESS_LIMIT {
            let ended = self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended {
                break;
            }
            if has_default_route() {
                return name.to_owned();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        format!("none: {name} failed")
    }

    fn stop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn has_default_route() -> bool {
    let routes = std::fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    routes.lines().any(|line| line.split_whitespace().nth(1) == Some("00000000"))
}

fn egress_command(name: &str, path: &Path) -> Command {
    let namespace = format!("/proc/{}/ns/net", std::process::id());
    let mut command = Command::new(path);
    match name {
        "pasta" => command
            .args(["--foreground", "--quiet", "--config-net", "--netns-only", "--no-map-gw"])
            .args(["-t", "none", "-u", "none", "-T", "none", "-U", "none", "--netns", &namespace]),
        _ => command.args([
            "--configure",
            "--mtu=65520",
            "--disable-host-loopback",
            "--netns-type=path",
            &namespace,
            "tap0",
        ]),
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// What would lead to the world, or what is missing and what to do.
pub(crate) fn egress_program() -> Result<(&'static str, PathBuf), (String, &'static str)> {
    let device = rustix::fs::access("/dev/net/tun", rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK);
    if let Err(error) = device {
        let why = format!("/dev/net/tun: {}", io::Error::from(error));
        return Err((why, "modprobe tun; chmod 0666 /dev/net/tun"));
    }
    ["pasta", "slirp4netns"]
        .into_iter()
        .find_map(|name| Some((name, find_program(name)?)))
        .ok_or_else(|| ("neither pasta nor slirp4netns is installed".to_owned(), "apt install passt"))
}

/// The shared namespaces, as long as somebody needs them.
#[derive(Debug)]
pub struct SharedNamespaces {
    pid: u32,
    _users: File,
}

impl SharedNamespaces {
    /// Those of a directory, for a process that is in them.
    ///
    /// # Errors
    /// They are not there, or this process is not in them.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let step = || failed("use the network that this user's containers share");
        let files = Files(directory);
        let _change = locked(&files.change(), FlockOperation::LockExclusive).map_err(step())?;
        let users = locked(&files.users(), FlockOperation::LockShared).map_err(step())?;
        let pid = match keeper(&files) {
            Some(pid) => pid,
            None => {
                start(&files).map_err(step())?;
                keeper(&files).ok_or_else(|| step()(io::Error::from(io::ErrorKind::NotFound)))?
            }
        };
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user"));
        if namespace("self").map_err(step())? != namespace(&pid.to_string()).map_err(step())? {
            return Err(step()(io::Error::other("this command began before they were made: repeat it")));
        }
        Ok(Self { pid, _users: users })
    }

    /// The network with the bridges.
    ///
    /// # Errors
    /// The keeper was killed.
    pub fn network(&self) -> io::Result<NetworkNamespace> {
        NetworkNamespace::of_process(self.pid)
    }

    /// What leads to the world: a program's name, or `none:` and why.
    pub fn egress(directory: &Path) -> Option<String> {
        std::fs::read_to_string(Files(directory).egress()).ok()
    }
}
