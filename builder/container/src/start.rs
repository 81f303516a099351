//! Starting a container: what the sandbox is to be, and the supervisor that holds it.

use std::os::fd::AsFd;
use std::path::PathBuf;

use kiln_image::user::User;
use kiln_sandbox::process::{document, start_again};
use kiln_sandbox::spec::{self, Device, Kernel, Mount, Root, Sharing};
use kiln_sandbox::{Channel, Spec};
use kiln_store::{Snapshot, Store};

use crate::attach::{Ended, Session, Terminal};
use crate::directory::Home;
use crate::network::{self, Mode};
use crate::protocol::{Attachment, Job, Packet, Request};
use crate::record::Container;
use crate::stop::wait_for_lock;
use crate::{Error, Namespace, Options, Record, RestartPolicy, Result, command, supervisor, volume};

/// Makes and starts a container, and stays attached to it unless its options say otherwise. The store is let go as soon
/// as the container is started. `made` is told of the record before.
///
/// # Errors
/// It could not be set up or started; [`crate::Error::exit_status`] tells docker's status for it.
pub fn run(
    store: Store,
    image: &kiln_image::Image,
    options: &Options,
    terminal: &Terminal,
    made: &mut dyn FnMut(&Record) -> Result<()>,
) -> Result<Ended> {
    let (home, record) = crate::create::make(&store, image, options)?;
    let attachment = Attachment {
        input: options.interactive && !options.detach && terminal.streams[0],
        output: !options.detach && terminal.streams != [true, false, false],
    };
    let begun = made(&record).and_then(|()| {
        let spec = spec(&store, &home.path, &record, terminal)?;
        // From here on signals are the container's, not kiln's.
        let session = Session::prepare(&record, terminal, attachment)?;
        session.started(launch(&home, &record, spec, attachment)?)
    });
    drop(store);
    let path = home.path.clone();
    drop(home);
    match begun {
        Ok(running) if attachment.output => running.follow(),
        Ok(_) => Ok(Ended::Detached),
        Err(error) => {
            // Unless a supervisor sees to it.
            if let Some(home) = Home::take(&path)?.filter(|_| options.remove) {
                home.remove(&record, true)?;
            }
            Err(error)
        }
    }
}

/// Starts a container that does not run; follows it when `attachment` asks for anything.
///
/// # Errors
/// It could not be started. One that runs already is no error.
pub fn start(
    store: &Store,
    container: &Container,
    attach: bool,
    interactive: bool,
    terminal: &Terminal,
) -> Result<Ended> {
    let record = &container.record;
    let attachment = Attachment { input: interactive && record.settings.interactive, output: attach };
    // Its supervisor may be on its way out.
    let home = Home::take(&container.path)?.map_or_else(|| wait_for_lock(container), |home| Ok(Some(home)))?;
    let Some(home) = home else {
        return if attach { crate::attach::attach(container, interactive, terminal) } else { Ok(Ended::Detached) };
    };
    let spec = spec(store, &home.path, record, terminal)?;
    let session = Session::prepare(record, terminal, attachment)?;
    let channel = launch(&home, record, spec, attachment)?;
    drop(home);
    let running = session.started(channel)?;
    if attach { running.follow() } else { Ok(Ended::Detached) }
}

/// Starts a supervisor, which gets the container's lock.
fn launch(home: &Home, record: &Record, spec: Spec, attachment: Attachment) -> Result<Channel> {
    let io = |error| Error::io("start the supervisor of", &record.name, error);
    let job = document(&Job { path: home.path.clone(), record: record.clone(), spec }).map_err(io)?;
    let (channel, theirs) = Channel::pair().map_err(io)?;
    // It is reaped by whoever reaps orphans: it outlives this process, or this process ends soon.
    drop(start_again(supervisor::NAME, theirs).map_err(io)?);
    Packet::Request(Request::Launch(attachment)).send(&channel, &[job.as_fd(), home.lock.as_fd()]).map_err(io)?;
    Ok(channel)
}

/// What the container's sandbox is to be.
pub(crate) fn spec(store: &Store, home: &std::path::Path, record: &Record, terminal: &Terminal) -> Result<Spec> {
    let snapshot = Snapshot::open(store, &record.layers)?;
    let settings = &record.settings;
    let mut user = kiln_image::user::resolve(&snapshot, &settings.user)?;
    add_groups(&snapshot, &settings.group_add, &mut user)?;
    let hostname = hostname(store, record);
    let mut mounts = vec![hostname_file(home, &hostname)?];
    for mount in &settings.mounts {
        mounts.push(volume::mount(store, mount)?);
    }
    let mut args = settings.command();
    // Somebody else's runtime executes this very program in the container.
    let is_executed = settings.init && settings.runtime.is_some();
    if is_executed {
        let source = std::env::current_exe().map_err(|error| Error::io("find", "/proc/self/exe", error))?;
        args.insert(0, kiln_sandbox::init::PLACE.to_owned());
        mounts.push(Mount::Bind { source, target: kiln_sandbox::init::PLACE.into(), readonly: true });
    }
    let cwd = if settings.workdir.is_empty() { "/" } else { &settings.workdir };
    Ok(Spec {
        root: Root {
            lower: snapshot.lower_directories(),
            upper: home.join("upper"),
            work: home.join("work"),
            stubs: home.join("stubs"),
            readonly: settings.readonly,
            volatile: settings.remove,
        },
        mounts,
        args,
        env: command::environment(&hostname, &user.home, settings.tty, &settings.env),
        cwd: PathBuf::from(cwd),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
        hostname,
        // The supervisor connects it, and knows then.
        hosts: None,
        network: spec::Network::None,
        resolv_conf: None,
        shm_size: settings.shm_size,
        security: settings.security.clone(),
        rlimits: settings.rlimits.clone(),
        terminal: settings.tty,
        terminal_size: terminal.size(),
        init: settings.init && !is_executed,
        program: None,
        devices: settings.devices.iter().map(device).collect(),
        cgroups: Vec::new(),
        kernel: kernel(store, record)?,
    })
}

fn kernel(store: &Store, record: &Record) -> Result<Kernel> {
    let settings = &record.settings;
    let sharing = |what: &str, namespace: &Namespace| match namespace {
        Namespace::Own => Ok(Sharing::Own),
        Namespace::Host => Ok(Sharing::Host),
        Namespace::Container(name) => {
            let other = crate::find(store, name)?;
            match other.state.is_alive() {
                true => Ok(Sharing::Of(other.state.pid)),
                false => Err(Error::Invalid(format!("cannot join {what} of a non running container: {name}"))),
            }
        }
    };
    Ok(Kernel {
        pid: sharing("PID", &settings.namespaces.pid)?,
        ipc: sharing("IPC", &settings.namespaces.ipc)?,
        uts: sharing("UTS", &settings.namespaces.uts)?,
        cgroup: sharing("control groups", &settings.namespaces.cgroup)?,
        domainname: settings.domainname.clone().unwrap_or_default(),
        sysctls: settings.sysctls.clone(),
        oom_score_adj: settings.oom_score_adj,
    })
}

/// Starts what ran when the machine, or a supervisor, went down, and is to run again by its restart policy; those that
/// are older first. Tells of each its name and whether it started.
///
/// # Errors
/// The store cannot be read.
pub fn start_what_should_run(store: &Store, tell: &mut dyn FnMut(&str, Result<Ended>)) -> Result<()> {
    for container in crate::list(store)?.into_iter().rev() {
        let state = &container.state;
        let has_run = state.started != 0 && !state.is_alive();
        let wanted = match container.record.settings.restart {
            RestartPolicy::No => false,
            RestartPolicy::Always => has_run,
            RestartPolicy::UnlessStopped => has_run && !state.stopped,
            RestartPolicy::OnFailure(_) => has_run && state.cut_off,
        };
        if wanted {
            tell(&container.record.name, start(store, &container, false, false, &Terminal::default()));
        }
    }
    Ok(())
}

fn device((source, target, permissions): &(PathBuf, PathBuf, String)) -> Device {
    Device { source: source.clone(), target: target.clone(), readonly: !permissions.contains('w') }
}

fn add_groups(snapshot: &Snapshot, groups: &[String], user: &mut User) -> Result<()> {
    for group in groups {
        let gid = kiln_image::user::resolve(snapshot, &format!("0:{group}"))?.gid;
        if !user.groups.contains(&gid) {
            user.groups.push(gid);
        }
    }
    Ok(())
}

/// `/etc/hostname`, which is the container's and not of its layer.
fn hostname_file(home: &std::path::Path, hostname: &str) -> Result<Mount> {
    let source = home.join("hostname");
    std::fs::write(&source, format!("{hostname}\n")).map_err(|error| Error::io("write", &source, error))?;
    Ok(Mount::Bind { source, target: PathBuf::from("/etc/hostname"), readonly: false })
}

/// With the host's network a container has the host's name, as docker's has.
fn hostname(store: &Store, record: &Record) -> String {
    let own_name = |name: &Option<String>| name.clone().filter(|_| record.settings.namespaces.uts == Namespace::Own);
    let mode = match record.settings.namespaces.uts {
        Namespace::Host => &Mode::Host,
        _ => &record.settings.network.mode,
    };
    match (own_name(&record.settings.hostname), mode) {
        (Some(name), _) => name,
        (None, Mode::Host) => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        (None, Mode::Container(other)) => crate::find(store, other)
            .ok()
            .and_then(|other| network::connected(store.root(), &other.record.id).ok().flatten())
            .map_or_else(|| record.short_id().to_owned(), |connected| connected.hostname),
        (None, Mode::None | Mode::Bridges(_)) => record.short_id().to_owned(),
    }
}
