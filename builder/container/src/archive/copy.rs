//! `cp` from where the user is.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use kiln_sandbox::join::Joined;
use kiln_sandbox::process::Stdio;
use kiln_sandbox::spec::{self, Security};
use kiln_sandbox::{Channel, Exit, Sandbox};
use kiln_store::Store;
use rustix::pipe::{PipeFlags, pipe_with};

use super::program::{name_of, unpack};
use super::write::write;
use crate::attach::Terminal;
use crate::protocol::{Command, Packet, Request};
use crate::record::Container;
use crate::stop::{answer, supervisor_of, wait_for_lock};
use crate::{Error, Result};

/// One side of a copy.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// A path in a container.
    Container(Box<Container>, String),
    /// A path on the host.
    Host(String),
    /// Standard input or output, as a tar archive.
    Stream,
}

/// What `cp` was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// Keep owners.
    pub archive: bool,
    /// A symlink that is named means what it leads to.
    pub follow: bool,
}

/// Copies; returns the bytes of the files, as far as they are known.
///
/// # Errors
/// A side is not there, or cannot be read or written.
pub fn copy(store: &Store, from: &Endpoint, to: &Endpoint, options: CopyOptions) -> Result<u64> {
    match (from, to) {
        (Endpoint::Container(container, path), to) => copy_out(store, container, path, to, options),
        (from, Endpoint::Container(container, path)) => copy_in(store, container, from, path, options),
        _ => Err(Error::Invalid("copying is between a container and somewhere else: CONTAINER:PATH".to_owned())),
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn copy_out(store: &Store, container: &Container, path: &str, to: &Endpoint, options: CopyOptions) -> Result<u64> {
    let path = absolute(path);
    let follow = if options.follow { "follow" } else { "keep" };
    let helper = Helper::start(store, container, "send", &[&path, follow])?;
    let received = helper.output().and_then(|output| match to {
        Endpoint::Stream => io::copy(&mut File::from(output), &mut io::stdout().lock()),
        Endpoint::Host(target) => receive(File::from(output), target, &path, options),
        Endpoint::Container(..) => Err(io::Error::other("copying between containers is not supported")),
    });
    // What went wrong in the container is the cause of what went wrong here.
    helper.finish()?;
    received.map_err(|error| Error::io("copy from", format!("{}:{path}", container.record.name), error))
}

/// Writes the root file system of a container as a tar archive, without what is mounted in it; its bytes.
///
/// # Errors
/// The container's files cannot be read, or the archive not be written.
pub fn export(store: &Store, container: &Container, out: &mut dyn Write) -> Result<u64> {
    let helper = Helper::start(store, container, "export", &[])?;
    let written = helper.output().and_then(|output| io::copy(&mut File::from(output), out));
    helper.finish()?;
    written.map_err(|error| Error::io("export", &container.record.name, error))
}

/// Unpacks by docker's rules, which depend on what comes first.
fn receive(mut output: File, target: &str, path: &str, options: CopyOptions) -> io::Result<u64> {
    let (beginning, is_directory) = beginning(&mut output)?;
    let kind = match (is_directory, path.ends_with("/.")) {
        (true, true) => "contents",
        (true, false) => "directory",
        _ => "file",
    };
    let name = name_of(path);
    let mut whole = io::Cursor::new(beginning).chain(output);
    let total = unpack(target, &name.to_string_lossy(), kind, options.archive, &mut whole)?;
    // The rest of the archive, so that its writer can end.
    io::copy(&mut whole, &mut io::sink())?;
    Ok(total)
}

/// The blocks up to the first entry, with what is said of it before, and whether it is a directory.
fn beginning(output: &mut File) -> io::Result<(Vec<u8>, bool)> {
    const LIMIT: u64 = 1 << 20;
    let mut read = Vec::new();
    loop {
        let mut block = [0; 512];
        output.read_exact(&mut block).map_err(|_| io::Error::other("nothing came"))?;
        read.extend_from_slice(&block);
        let header = tar::Header::from_byte_slice(&block);
        let kind = header.entry_type();
        if !(kind.is_pax_local_extensions() || kind.is_gnu_longname() || kind.is_gnu_longlink()) {
            return Ok((read, kind == tar::EntryType::Directory));
        }
        let size = header.entry_size()?.next_multiple_of(512);
        if size > LIMIT || output.take(size).read_to_end(&mut read)? < usize::try_from(size).unwrap_or(usize::MAX) {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
    }
}

fn copy_in(store: &Store, container: &Container, from: &Endpoint, path: &str, options: CopyOptions) -> Result<u64> {
    let path = absolute(path);
    let owners = if options.archive { "owners" } else { "own" };
    let (name, kind) = match from {
        Endpoint::Host(source) => {
            let describe = |error| Error::io("read", source, error);
            let real = Path::new(source);
            let metadata = if options.follow || source.ends_with('/') || source.ends_with("/.") {
                real.metadata()
            } else {
                real.symlink_metadata()
            };
            let is_directory = metadata.map_err(describe)?.is_dir();
            let absolute = std::path::absolute(real).map_err(describe)?;
            let kind = match (is_directory, source.ends_with("/.") || source == ".") {
                (true, true) => "contents",
                (true, false) => "directory",
                _ => "file",
            };
            (name_of(&absolute.to_string_lossy()).to_string_lossy().into_owned(), kind)
        }
        _ => (String::new(), "archive"),
    };
    // A stopped container is for one at a time: whoever writes the archive may be waiting for it, too.
    let spooled = match from {
        Endpoint::Stream if !container.state.is_alive() => {
            Some(spool(container).map_err(|error| Error::io("keep the archive for", &container.path, error))?)
        }
        _ => None,
    };
    let helper = Helper::start(store, container, "receive", &[&path, &name, kind, owners])?;
    let sent = helper.input().and_then(|input| {
        let mut input = Counting(File::from(input), 0);
        match from {
            Endpoint::Host(source) => {
                let follow = options.follow || source.ends_with('/') || source.ends_with("/.");
                write(Path::new(source), Path::new(&name), follow, &mut input)?;
            }
            _ => match spooled {
                Some(mut file) => drop(io::copy(&mut file, &mut input)?),
                None => drop(io::copy(&mut io::stdin().lock(), &mut input)?),
            },
        }
        Ok(input.1)
    });
    helper.finish()?;
    sent.map_err(|error| Error::io("copy to", format!("{}:{path}", container.record.name), error))
}

/// Standard input, to its end, in a file without a name.
fn spool(container: &Container) -> io::Result<File> {
    let path = container.path.join(format!("spool-{}", std::process::id()));
    let mut file = File::options().create_new(true).read(true).write(true).open(&path)?;
    std::fs::remove_file(&path)?;
    io::copy(&mut io::stdin().lock(), &mut file)?;
    io::Seek::rewind(&mut file)?;
    Ok(file)
}

struct Counting(File, u64);

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.0.write(bytes)?;
        self.1 += u64::try_from(length).unwrap_or(0);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A program of kiln's in a container: in one that runs, or in a sandbox that is the same but for its command.
struct Helper {
    place: Place,
    stdin: std::cell::Cell<Option<OwnedFd>>,
    stdout: std::cell::Cell<Option<OwnedFd>>,
    complaints: std::thread::JoinHandle<String>,
}

enum Place {
    Running(Joined),
    /// Nobody starts the container meanwhile.
    Stopped(Sandbox, #[allow(dead_code, reason = "it is held")] crate::directory::Home),
}

impl Helper {
    fn start(store: &Store, container: &Container, program: &str, arguments: &[&str]) -> Result<Self> {
        let io = |error: io::Error| Error::io("copy files of", &container.record.name, error);
        let args: Vec<String> = [program].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| io(error.into()));
        let ((read, stdin), (stdout, write), (stderr, errors)) = (pipe()?, pipe()?, pipe()?);
        let place = match supervisor_of(container)? {
            Some(supervisor) => Place::Running(join(container, &supervisor, args, [read, write, errors])?),
            None => {
                let home = wait_for_lock(container)?.ok_or_else(|| Error::Running(container.record.name.clone()))?;
                let mut spec = crate::start::spec(store, &home.path, &container.record, &Terminal::default())?;
                spec.program = Some(program.to_owned());
                spec.args = args;
                spec.cwd = "/".into();
                (spec.uid, spec.gid, spec.groups) = (0, 0, Vec::new());
                (spec.terminal, spec.init, spec.network) = (false, false, spec::Network::None);
                (spec.root.readonly, spec.security) = (false, Security::default());
                let sandbox = Sandbox::spawn(&spec, Stdio::Fd(read), Stdio::Fd(write), Stdio::Fd(errors))?;
                Place::Stopped(sandbox, home)
            }
        };
        let complaints = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = File::from(stderr).take(64 * 1024).read_to_string(&mut text);
            text
        });
        let (stdin, stdout) = (std::cell::Cell::new(Some(stdin)), std::cell::Cell::new(Some(stdout)));
        Ok(Self { place, stdin, stdout, complaints })
    }

    fn output(&self) -> io::Result<OwnedFd> {
        self.stdin.take();
        self.stdout.take().ok_or_else(|| io::Error::other("it was read already"))
    }

    fn input(&self) -> io::Result<OwnedFd> {
        self.stdin.take().ok_or_else(|| io::Error::other("it was written already"))
    }

    fn finish(self) -> Result<()> {
        self.stdin.take();
        self.stdout.take();
        let exit = match self.place {
            Place::Running(joined) => joined.wait(),
            Place::Stopped(mut sandbox, _home) => sandbox.wait(),
        };
        let complaints = self.complaints.join().unwrap_or_default();
        match exit {
            Ok(Exit::Code(0)) => Ok(()),
            _ if !complaints.trim().is_empty() => Err(Error::Invalid(complaints.trim().to_owned())),
            Ok(exit) => Err(Error::Invalid(format!("the copy was ended: {exit:?}"))),
            Err(error) => Err(Error::io("wait for", "the copy", error)),
        }
    }
}

fn join(container: &Container, supervisor: &Channel, args: Vec<String>, streams: [OwnedFd; 3]) -> Result<Joined> {
    let io = |error| Error::io("copy files of", &container.record.name, error);
    let (channel, theirs) = Channel::pair().map_err(io)?;
    let theirs = theirs.into_fd();
    let command = Command {
        program: args.first().cloned(),
        args,
        user: Some("0:0".to_owned()),
        workdir: Some("/".to_owned()),
        ..Command::default()
    };
    let [stdin, stdout, stderr] = &streams;
    let fds = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), theirs.as_fd()];
    Packet::Request(Request::Execute(Box::new(command))).send(supervisor, &fds).map_err(io)?;
    drop((theirs, streams));
    answer(container, supervisor)?;
    Ok(Joined::follow(channel)?)
}
