//! The `kiln` command: arguments in, messages and exit codes out.

mod build;
mod failure;
mod info;
mod progress;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kiln_sandbox::user_namespace::Identity;
use kiln_store::Store;
use kiln_store::store::Privilege;

/// Builds OCI images from Dockerfiles, runs them, and pushes them to a registry that it also serves.
#[derive(Parser)]
#[command(name = "kiln", version, about, max_term_width = 110)]
struct Arguments {
    /// Where images, layers and the build cache are kept [default: /var/lib/kiln, or ~/.local/share/kiln].
    #[arg(long, global = true, env = "KILN_ROOT", value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build an image from a Dockerfile
    Build(Box<build::BuildArgs>),
    /// Show what this machine lets kiln do, and what to install for the rest
    Info(info::InfoArgs),
}

fn main() -> ExitCode {
    kiln_sandbox::init();
    start_log();
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { root, command } = arguments;
    match command {
        Command::Info(args) => info::run(&args),
        Command::Build(args) => build::run(*args, &open_store(root)?),
    }
}

/// Becomes root of a user namespace where that is needed, and opens the store.
fn open_store(root: Option<PathBuf>) -> anyhow::Result<Store> {
    use anyhow::Context;
    let root = match root {
        Some(root) => std::path::absolute(root)?,
        None => default_root()?,
    };
    let identity = kiln_sandbox::user_namespace::enter().context("become root of a user namespace")?;
    let privilege = match identity {
        Identity::Root => Privilege::Root,
        Identity::Mapped => Privilege::Mapped,
        Identity::Single => Privilege::Single,
    };
    Ok(Store::open(&root, privilege)?)
}

fn default_root() -> anyhow::Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/kiln"));
    }
    let data = std::env::var_os("XDG_DATA_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    match data.or_else(home) {
        Some(data) => Ok(data.join("kiln")),
        None => anyhow::bail!("neither HOME nor XDG_DATA_HOME is set: say with --root where the store is"),
    }
}

/// `KILN_LOG=debug` shows what happens inside.
fn start_log() {
    if let Ok(filter) = std::env::var("KILN_LOG") {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
}
