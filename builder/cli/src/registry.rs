//! `kiln registry`: a registry of one's own.

mod maintenance;

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use kiln_registry_server::config::{ListenPlace, Log};
use kiln_registry_server::{Config, MemoryDirectory, Server, config, hash_password, robot_secret};
use tokio::signal::unix::{SignalKind, signal};

use crate::login::ask;

/// Serve a registry, and look after it
#[derive(Debug, Args)]
pub(crate) struct RegistryArguments {
    #[command(subcommand)]
    command: RegistryCommand,
}

#[derive(Debug, Subcommand)]
enum RegistryCommand {
    Serve(ServeArguments),
    Config(ConfigArguments),
    Password(PasswordArguments),
    Gc(Maintained<maintenance::CollectArguments>),
    Scrub(Maintained<maintenance::ScrubArguments>),
    Import(Maintained<maintenance::ImportArguments>),
}

/// A command about a registry's directory.
#[derive(Debug, Args)]
struct Maintained<T: Args> {
    #[command(flatten)]
    command: T,

    /// Configuration file of the registry
    #[arg(long, short, value_name = "FILE", env = "KILN_REGISTRY_CONFIG")]
    config: Option<PathBuf>,

    /// Directory of the registry [default: `registry` in kiln's root]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl<T: Args> Maintained<T> {
    fn config(&self, root: &Path) -> anyhow::Result<Config> {
        load(self.config.as_deref(), self.data.clone(), root)
    }
}

/// Serve a registry from one directory, until SIGINT or SIGTERM
///
/// Anything that speaks the OCI distribution API can push to it and pull from it: kiln, docker, podman, skopeo.
///
/// Without a configuration it speaks plain HTTP on loopback and asks nobody who they are. `kiln registry config`
/// prints a configuration file with every key explained: TLS, users and their rights, limits, logs, and the rest.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "KILN_REGISTRY_CONFIG")]
    config: Option<PathBuf>,

    /// Address to listen at (port 0 takes a free one), or unix:PATH; may be repeated [default: 127.0.0.1:5000]
    #[arg(long, visible_alias = "addr", value_name = "IP:PORT")]
    listen: Vec<ListenPlace>,

    /// Directory of the registry [default: `registry` in kiln's root]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Keep everything in memory, and forget it at the end
    #[arg(long, conflicts_with = "data")]
    memory: bool,

    /// Accept images whose blobs were not pushed (an index may always lack some of its images)
    #[arg(long)]
    accept_sparse: bool,

    /// Refuse every push and every deletion
    #[arg(long)]
    read_only: bool,
}

/// Print a configuration file with every key, or check one
#[derive(Debug, Args)]
struct ConfigArguments {
    /// Check this file instead
    file: Option<PathBuf>,
}

/// Print the lines that make a user of somebody, for the file that `access.users` names
///
/// The password is asked for, or read from standard input.
#[derive(Debug, Args)]
struct PasswordArguments {
    /// The user's name
    name: String,

    /// Make a robot with a random secret, which is printed to standard error, instead of a user with a password
    #[arg(long)]
    robot: bool,
}

/// Runs the command; `root` is kiln's own.
pub(crate) fn run(arguments: RegistryArguments, root: &Path) -> anyhow::Result<()> {
    let arguments = match arguments.command {
        RegistryCommand::Config(arguments) => return print_or_check(&arguments, root),
        RegistryCommand::Password(arguments) => return make_user(&arguments),
        other => other,
    };
    // Every core answers requests; a few dozen threads keep any disk busy, and each takes memory.
    let runtime = tokio::runtime::Builder::new_multi_thread().max_blocking_threads(32).enable_all().build();
    runtime.context("start the runtime")?.block_on(async {
        match arguments {
            RegistryCommand::Serve(arguments) => serve(arguments, root).await,
            RegistryCommand::Gc(arguments) => {
                let config = arguments.config(root)?;
                maintenance::collect(arguments.command, &config).await
            }
            RegistryCommand::Scrub(arguments) => maintenance::scrub(&arguments.command, &arguments.config(root)?).await,
            RegistryCommand::Import(arguments) => {
                maintenance::import(&arguments.command, &arguments.config(root)?).await
            }
            RegistryCommand::Config(_) | RegistryCommand::Password(_) => Ok(()),
        }
    })
}

/// The configuration by its file, the environment and `--data`, which wins.
fn load(file: Option<&Path>, data: Option<PathBuf>, root: &Path) -> anyhow::Result<Config> {
    let mut config = Config::load(file, |variable| std::env::var(variable).ok())?;
    if let Some(data) = data {
        config.data = data;
    } else if config.data.as_os_str().is_empty() {
        config.data = root.join("registry");
    }
    Ok(config)
}

async fn serve(arguments: ServeArguments, root: &Path) -> anyhow::Result<()> {
    let mut config = load(arguments.config.as_deref(), arguments.data, root)?;
    let memory = if arguments.memory { Some(MemoryDirectory::create()?) } else { None };
    if let Some(memory) = &memory {
        config.data = memory.data();
    }
    if !arguments.listen.is_empty() {
        config.http.listen = arguments.listen;
    }
    config.accept_sparse |= arguments.accept_sparse;
    config.read_only |= arguments.read_only;
    start_log(&config.log);
    let stop = stop_signal().context("watch for signals")?;
    let server = Server::bind(&config)?;
    let scheme = if config.tls.certificate.is_some() { "https" } else { "http" };
    let mut stdout = io::stdout();
    let places = server.places();
    for place in &places {
        let shown = match place {
            ListenPlace::Address(address) => format!("{scheme}://{address}"),
            ListenPlace::Socket(_) => place.to_string(),
        };
        writeln!(stdout, "serving {} at {shown}", config.data.display()).context("write to standard output")?;
    }
    stdout.flush().context("write to standard output")?;
    if server.is_open()
        && places.iter().any(|place| matches!(place, ListenPlace::Address(address) if !address.ip().is_loopback()))
    {
        let warning = "warning: others than this machine can reach it, and whoever does can read, push and delete; \
                       `kiln registry config` tells of `access`";
        writeln!(io::stderr(), "{warning}").context("write to standard error")?;
    }
    server.serve(stop).await?;
    Ok(())
}

/// Says on standard error what happens, as the configuration has it; `KILN_LOG` was heeded at the start.
fn start_log(log: &Log) {
    let filter = tracing_subscriber::EnvFilter::new(log.level.filter());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // There is a log already when the variable is set.
    drop(if log.json { lines.json().try_init() } else { lines.try_init() });
}

fn print_or_check(arguments: &ConfigArguments, root: &Path) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    match &arguments.file {
        None => stdout.write_all(config::REFERENCE.as_bytes()).context("write to standard output"),
        Some(file) => {
            load(Some(file), None, root)?;
            writeln!(stdout, "{} is a configuration of the registry", file.display())
                .context("write to standard output")
        }
    }
}

fn make_user(arguments: &PasswordArguments) -> anyhow::Result<()> {
    let name = serde_json::to_string(&arguments.name)?; // a quoted key, as TOML has it too
    let lines = if arguments.robot {
        let (secret, digest) = robot_secret()?;
        writeln!(io::stderr(), "{secret}").context("write to standard error")?;
        format!("[robot.{name}]\nsecret = \"{digest}\"\n")
    } else {
        let password = if io::stdin().is_terminal() {
            ask("Password: ", true)?
        } else {
            io::read_to_string(io::stdin()).context("read the password")?.trim_end_matches(['\n', '\r']).to_owned()
        };
        format!("[user.{name}]\npassword = \"{}\"\n", hash_password(&password)?)
    };
    io::stdout().write_all(lines.as_bytes()).context("write to standard output")
}

/// Completes with the first SIGINT or SIGTERM.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
