//! Running a container in the foreground.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_image::Image;
use kiln_image::user::User;
use kiln_sandbox::process::Stdio;
use kiln_sandbox::spec::{Mount, Root, Security};
use kiln_sandbox::{Exit, Sandbox, Spec, spec};
use kiln_store::{Snapshot, Store};

use crate::record::{Home, now, remove_files};
use crate::{Error, Record, Result, Volume, command, names, relay};

/// What `run` was asked for.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The image.
    pub image: Image,
    /// What the user called it.
    pub image_name: String,
    /// Replaces the image's CMD when not empty.
    pub args: Vec<String>,
    /// Replaces the image's ENTRYPOINT; an empty one removes it.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`, over the image's.
    pub env: Vec<String>,
    /// `-v`.
    pub volumes: Vec<Volume>,
    /// Replaces the image's working directory.
    pub workdir: Option<String>,
    /// Replaces the image's user.
    pub user: Option<String>,
    /// The container's name; one is found when it is not given.
    pub name: Option<String>,
    /// The container's host name.
    pub hostname: Option<String>,
    /// Remove the container when it ends.
    pub remove: bool,
    /// Pass standard input on.
    pub interactive: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// The network.
    pub network: Network,
    /// The root file system is read-only.
    pub readonly: bool,
    /// Capabilities and the like.
    pub security: Security,
}

/// The network of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The host's: for now the default too.
    Host,
    /// Nothing but loopback.
    None,
}

/// Runs a container until it ends; returns its command's exit status, 128 + n when signal n ended it.
///
/// # Errors
/// It could not be set up or started; [`crate::Error::exit_status`] tells docker's status for it.
pub fn run(store: &Store, options: &RunOptions) -> Result<u8> {
    if let Some(directory) = options.workdir.as_deref().filter(|directory| !directory.starts_with('/')) {
        return Err(Error::Invalid(format!("the working directory {directory:?} is not an absolute path")));
    }
    let snapshot = Snapshot::open(store, &options.image.layers)?;
    let config = &options.image.config.config;
    let command = command::arguments(config, options.entrypoint.as_deref(), &options.args)?;
    let user = kiln_image::user::resolve(&snapshot, options.user.as_deref().unwrap_or(&config.user))?;
    let volumes = with_image_volumes(options);
    let anonymous = volumes.iter().filter(|volume| matches!(volume, Volume::Anonymous { .. }));
    let anonymous = anonymous.map(|_| names::random_id()).collect::<Result<Vec<_>>>()?;
    let (home, record) = Home::create(store, options.name.as_deref(), |id, name| Record {
        id,
        name,
        image: options.image.id,
        image_name: options.image_name.clone(),
        layers: options.image.layers.clone(),
        command: command.clone(),
        created: now(),
        anonymous_volumes: anonymous.clone(),
    })?;
    let ran = mounts(store, &snapshot, &volumes, &anonymous)
        .and_then(|mounts| execute(options, &home, &record, &user, snapshot.lower_directories(), mounts));
    let status = match &ran {
        Ok(status) => *status,
        Err(error) => error.exit_status(),
    };
    let ended = home.end(status);
    drop(home);
    if options.remove {
        remove_files(store, &record, true)?;
    }
    ended?;
    ran
}

/// The volumes that were given, and those that the image declares and nobody gave.
fn with_image_volumes(options: &RunOptions) -> Vec<Volume> {
    let mut volumes = options.volumes.clone();
    for path in options.image.config.config.volumes.iter().flatten().map(|(path, _)| PathBuf::from(path)) {
        if path.is_absolute() && !volumes.iter().any(|volume| volume.target() == path) {
            volumes.push(Volume::Anonymous { target: path });
        }
    }
    volumes
}

fn mounts(store: &Store, snapshot: &Snapshot, volumes: &[Volume], anonymous: &[String]) -> Result<Vec<Mount>> {
    let mut names = anonymous.iter();
    let mut mounts = Vec::with_capacity(volumes.len());
    for volume in volumes {
        let name = if matches!(volume, Volume::Anonymous { .. }) { names.next() } else { None };
        mounts.push(volume.mount(store, snapshot, name.map_or("", String::as_str))?);
    }
    Ok(mounts)
}

fn execute(
    options: &RunOptions,
    home: &Home,
    record: &Record,
    user: &User,
    lower: Vec<PathBuf>,
    mounts: Vec<Mount>,
) -> Result<u8> {
    let mut spec = spec(options, home, record, user, lower, mounts);
    spec.mounts.insert(0, hostname_file(home, &spec.hostname)?);
    let stdin = if options.interactive { Stdio::Inherit } else { Stdio::Null };
    let signals = relay::catch_signals()?;
    let sandbox = Sandbox::spawn(&spec, stdin, Stdio::Inherit, Stdio::Inherit)?;
    Ok(match relay::until_end(sandbox, signals, options.interactive)? {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128_u8.saturating_add(u8::try_from(signal).unwrap_or(127)),
    })
}

fn spec(
    options: &RunOptions,
    home: &Home,
    record: &Record,
    user: &User,
    lower: Vec<PathBuf>,
    mounts: Vec<Mount>,
) -> Spec {
    let config = &options.image.config.config;
    let network = match options.network {
        Network::Host => spec::Network::Host,
        Network::None => spec::Network::None,
    };
    let hostname = hostname(options, record);
    let cwd = options.workdir.as_deref().unwrap_or(&config.working_dir);
    Spec {
        root: Root {
            lower,
            upper: home.path.join("upper"),
            work: home.path.join("work"),
            stubs: home.path.join("stubs"),
            readonly: options.readonly,
            volatile: options.remove,
        },
        mounts,
        args: record.command.clone(),
        env: command::environment(config, &hostname, &user.home, options.tty, &options.env),
        cwd: PathBuf::from(if cwd.is_empty() { "/" } else { cwd }),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
        hosts: Some(hosts(&hostname, options.network)),
        hostname,
        network,
        resolv_conf: Some(std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
        shm_size: None,
        security: options.security.clone(),
        rlimits: BTreeMap::new(),
        terminal: options.tty,
    }
}

/// `/etc/hostname`, which is the container's and not of its layer.
fn hostname_file(home: &Home, hostname: &str) -> Result<Mount> {
    let source = home.path.join("hostname");
    std::fs::write(&source, format!("{hostname}\n")).map_err(|error| Error::io("write", &source, error))?;
    Ok(Mount::Bind { source, target: PathBuf::from("/etc/hostname"), readonly: false })
}

/// With the host's network a container has the host's name, as docker's has.
fn hostname(options: &RunOptions, record: &Record) -> String {
    match (&options.hostname, options.network) {
        (Some(name), _) => name.clone(),
        (None, Network::Host) => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        (None, Network::None) => record.id.chars().take(12).collect(),
    }
}

/// With the host's network, the host's names; the container's own name always.
fn hosts(hostname: &str, network: Network) -> String {
    let own = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    let mut text = match network {
        Network::Host => std::fs::read_to_string("/etc/hosts").unwrap_or(own),
        Network::None => own,
    };
    let has_name = text.lines().any(|line| line.split_whitespace().skip(1).any(|word| word == hostname));
    if !has_name {
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&format!("127.0.1.1\t{hostname}\n"));
    }
    text
}
