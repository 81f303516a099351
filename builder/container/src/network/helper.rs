//! The process that serves a container's published ports and its names: this very binary, started again, because
//! whoever runs the container must stay single-threaded. It ends with whoever started it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use kiln_sandbox::network_namespace::NetworkNamespace;
use serde::{Deserialize, Serialize};

use super::publish::{Binding, Publish};
use super::record::Networks;
use super::service::Service;
use super::{dns, listener, proxy};
use crate::{Error, Result};

/// `argv[0]` of a helper.
pub(crate) const NAME: &str = "kiln-network";

/// What a helper does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Duty {
    /// The container's namespace, open in whoever starts the helper.
    pub(crate) namespace: PathBuf,
    /// Ports to publish.
    pub(crate) publish: Vec<Publish>,
    /// Where they lead.
    pub(crate) address: Ipv4Addr,
    /// The container is reached from its own namespace only.
    pub(crate) from_inside: bool,
    /// Names to resolve, where that is wanted.
    pub(crate) names: Option<Names>,
}

/// For the responder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Names {
    /// The store's.
    pub(crate) root: PathBuf,
    /// The container's id.
    pub(crate) container: String,
    /// Servers for other names.
    pub(crate) upstream: Vec<IpAddr>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Serving(Vec<Binding>),
    /// What was being done, and the error's number and words.
    Failed(String, Option<i32>, String),
}

/// A running helper; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Child,
    socket: Option<UnixStream>,
}

impl Helper {
    /// Starts one; returns once it serves.
    pub(crate) fn start(duty: &Duty) -> Result<(Self, Vec<Binding>)> {
        let failed = |source| Error::Network { action: "start the helper for ports and names".to_owned(), source };
        let (socket, theirs) = UnixStream::pair().map_err(failed)?;
        let child = Command::new("/proc/self/exe")
            .arg0(NAME)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()
            .map_err(failed)?;
        let mut helper = Self { child, socket: None };
        let mut line = serde_json::to_vec(duty).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        let mut answer = String::new();
        (&socket).write_all(&line).map_err(failed)?;
        BufReader::new(&socket).read_line(&mut answer).map_err(failed)?;
        helper.socket = Some(socket);
        match serde_json::from_str(&answer) {
            Ok(Report::Serving(bindings)) => Ok((helper, bindings)),
            Ok(Report::Failed(action, code, text)) => {
                let source = code.map_or_else(|| io::Error::other(text), io::Error::from_raw_os_error);
                Err(Error::Network { action, source })
            }
            Err(_) => Err(failed(io::Error::other("it ended"))),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.socket.take());
        let _ = self.child.wait();
    }
}

/// Where a process that was started as a helper goes.
pub(crate) fn main() -> ! {
    let _ = rustix::thread::set_name(c"kiln-network");
    // Signals of the terminal are for whoever runs the container.
    let _ = rustix::process::setsid();
    let outcome = serve();
    std::process::exit(i32::from(outcome.is_err()))
}

fn serve() -> io::Result<()> {
    let socket = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?);
    let mut line = String::new();
    BufReader::new(&socket).read_line(&mut line)?;
    let duty: Duty = serde_json::from_str(&line)?;
    let (report, _services) = match begin(duty) {
        Ok((bindings, services)) => (Report::Serving(bindings), services),
        Err(Error::Network { action, source }) => {
            (Report::Failed(action, source.raw_os_error(), source.to_string()), Vec::new())
        }
        Err(error) => (Report::Failed("serve ports and names".to_owned(), None, error.to_string()), Vec::new()),
    };
    let mut answer = serde_json::to_vec(&report)?;
    answer.push(b'\n');
    (&socket).write_all(&answer)?;
    // Until the other side closes, however it ends.
    (&socket).read_to_end(&mut Vec::new())?;
    Ok(())
}

fn begin(duty: Duty) -> Result<(Vec<Binding>, Vec<Service>)> {
    let failed = |action: &str| {
        let action = action.to_owned();
        move |source| Error::Network { action, source }
    };
    let namespace = NetworkNamespace::at(&duty.namespace).map_err(failed("open the container's network"))?;
    let listeners = duty.publish.iter().map(listener::bind).collect::<Result<Vec<_>>>()?;
    let listeners: Vec<_> = listeners.into_iter().flatten().collect();
    let bindings: Vec<Binding> = listeners.iter().map(|listener| listener.binding.clone()).collect();
    let mut services = Vec::new();
    if let Some(Names { root, container, upstream }) = duty.names {
        let responder = dns::Responder { networks: Networks::at(&root)?, container, upstream };
        services.push(dns::start(responder, &namespace).map_err(failed("resolve names for the container"))?);
    }
    if !listeners.is_empty() {
        let inside = duty.from_inside.then_some(namespace);
        services.push(proxy::start(listeners, duty.address, inside).map_err(failed("publish ports"))?);
    }
    Ok((bindings, services))
}
