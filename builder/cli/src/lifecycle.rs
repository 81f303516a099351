//! `kiln start`, `stop`, `restart`, `kill`, `wait`, `rm` and `rename`.

use std::process::ExitCode;

use anyhow::Result;
use kiln_container::{Container, DetachKeys, RestartPolicy, Terminal, find};
use kiln_store::Store;

use crate::create::limits::LimitArgs;
use crate::failure::{Shown, print, tell};
use crate::run::left;

/// Arguments of `start`.
#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Attach to its output, and pass signals on
    #[arg(short, long)]
    attach: bool,
    /// Attach to its standard input too
    #[arg(short, long)]
    interactive: bool,
    /// Keys that let go of the container
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: String,
}

/// Arguments of `stop` and `restart`.
#[derive(Debug, clap::Args)]
pub(crate) struct StopArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Seconds until it is killed; never when negative
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
    /// The signal to send
    #[arg(short, long)]
    signal: Option<String>,
}

/// Arguments of `kill`.
#[derive(Debug, clap::Args)]
pub(crate) struct KillArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    /// The signal to send
    #[arg(short, long, default_value = "KILL")]
    signal: String,
}

/// Arguments of `wait`.
#[derive(Debug, clap::Args)]
pub(crate) struct WaitArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Arguments of `rm`.
#[derive(Debug, clap::Args)]
pub(crate) struct RmArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Kill it if it runs
    #[arg(short, long)]
    force: bool,
    /// Its anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
}

/// Arguments of `update`.
#[derive(Debug, clap::Args)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    limits: LimitArgs,
    /// When to start again: no, on-failure[:N], always or unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Arguments of `rename`.
#[derive(Debug, clap::Args)]
pub(crate) struct RenameArgs {
    /// Name, id, or beginning of an id
    container: String,
    /// Its new name
    name: String,
}

/// Does something to each, prints what it was called, and fails when any failed.
pub(crate) fn each(
    store: &Store,
    containers: &[String],
    act: &mut dyn FnMut(&mut Container) -> Result<()>,
) -> Result<()> {
    let mut failed = false;
    for text in containers {
        match find(store, text).map_err(Into::into).and_then(|mut container| act(&mut container)) {
            Ok(()) => print(&format!("{text}\n"))?,
            Err(error) => {
                failed = true;
                tell(&format!("kiln: {error:#}\n"));
            }
        }
    }
    if failed { Err(Shown(1).into()) } else { Ok(()) }
}

pub(crate) fn start(args: &StartArgs, store: &Store) -> Result<ExitCode> {
    let terminal = Terminal { detach_keys: DetachKeys::parse(&args.detach_keys)?, ..Terminal::default() };
    if args.attach || args.interactive {
        let [container] = args.containers.as_slice() else {
            anyhow::bail!("you cannot start and attach multiple containers at once");
        };
        let container = find(store, container)?;
        return Ok(left(kiln_container::start(store, &container, true, args.interactive, &terminal)?));
    }
    each(store, &args.containers, &mut |container| {
        kiln_container::start(store, container, false, false, &terminal)?;
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn stop(args: &StopArgs, store: &Store) -> Result<()> {
    let signal = args.signal.as_deref().map(kiln_container::parse_signal).transpose()?;
    each(store, &args.containers, &mut |container| Ok(kiln_container::stop(container, signal, args.time)?))
}

pub(crate) fn restart(args: &StopArgs, store: &Store) -> Result<()> {
    let signal = args.signal.as_deref().map(kiln_container::parse_signal).transpose()?;
    each(store, &args.containers, &mut |container| {
        kiln_container::stop(container, signal, args.time)?;
        container.refresh();
        kiln_container::start(store, container, false, false, &Terminal::default())?;
        Ok(())
    })
}

pub(crate) fn kill(args: &KillArgs, store: &Store) -> Result<()> {
    let signal = kiln_container::parse_signal(&args.signal)?;
    each(store, &args.containers, &mut |container| Ok(kiln_container::kill(container, signal)?))
}

pub(crate) fn wait(args: &WaitArgs, store: &Store) -> Result<()> {
    for text in &args.containers {
        let status = kiln_container::wait(&mut find(store, text)?)?;
        print(&format!("{status}\n"))?;
    }
    Ok(())
}

pub(crate) fn remove(args: &RmArgs, store: &Store) -> Result<()> {
    let mut failed = false;
    for text in &args.containers {
        match find(store, text).and_then(|container| kiln_container::remove(&container, args.force, args.volumes)) {
            Ok(()) => print(&format!("{text}\n"))?,
            // As docker's: with force, what is not there is gone already.
            Err(error @ kiln_container::Error::Unknown(_)) if args.force => tell(&format!("kiln: {error}\n")),
            Err(error) => {
                failed = true;
                tell(&format!("kiln: {:#}\n", anyhow::Error::from(error)));
            }
        }
    }
    if failed { Err(Shown(1).into()) } else { Ok(()) }
}

pub(crate) fn update(args: &UpdateArgs, store: &Store) -> Result<()> {
    let limits = args.limits.limits()?;
    let restart = args.restart.as_deref().map(RestartPolicy::parse).transpose()?;
    each(store, &args.containers, &mut |container| Ok(kiln_container::update(container, &limits, restart)?))
}

/// `system start`: what ran before the machine went down.
pub(crate) fn start_all(store: &Store) -> Result<()> {
    let mut failed = false;
    kiln_container::start_what_should_run(store, &mut |name, started| match started {
        Ok(_) => drop(print(&format!("{name}\n"))),
        Err(error) => {
            failed = true;
            tell(&format!("kiln: {name}: {:#}\n", anyhow::Error::from(error)));
        }
    })?;
    if failed { Err(Shown(1).into()) } else { Ok(()) }
}

pub(crate) fn rename(args: &RenameArgs, store: &Store) -> Result<()> {
    Ok(kiln_container::rename(store, &find(store, &args.container)?, &args.name)?)
}
