//! `kiln registry`: a registry of one's own.

mod maintenance;

use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use kiln_registry_server::{Config, Server};
use tokio::signal::unix::{SignalKind, signal};

/// Serve a registry, and look after it
#[derive(Debug, Args)]
pub(crate) struct RegistryArguments {
    #[command(subcommand)]
    command: RegistryCommand,
}

#[derive(Debug, Subcommand)]
enum RegistryCommand {
    Serve(ServeArguments),
    Gc(Maintained<maintenance::CollectArguments>),
    Scrub(Maintained<maintenance::ScrubArguments>),
    Import(Maintained<maintenance::ImportArguments>),
}

/// A command about a registry's directory.
#[derive(Debug, Args)]
struct Maintained<T: Args> {
    #[command(flatten)]
    command: T,

    /// Directory of the registry [default: `registry` in kiln's root]
    #[arg(long, value_name = "DIR", env = "KILN_REGISTRY_DATA")]
    data: Option<PathBuf>,
}

impl<T: Args> Maintained<T> {
    fn config(&self, root: &Path) -> Config {
        Config::new(self.data.clone().unwrap_or_else(|| root.join("registry")))
    }
}

/// Serve a registry from one directory, until SIGINT or SIGTERM
///
/// Anything that speaks the OCI distribution API can push to it and pull from it: kiln, docker, podman, skopeo.
///
/// It speaks plain HTTP and asks nobody who they are: whoever can reach the address can read, push and delete.
/// Access control and TLS will come with a configuration file; until then keep it on loopback, or put a proxy that
/// does both before it.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Address to listen at (port 0 takes a free one); may be repeated
    #[arg(long, visible_alias = "addr", value_name = "IP:PORT", default_value = "127.0.0.1:5000")]
    listen: Vec<SocketAddr>,

    /// Directory of the registry [default: `registry` in kiln's root]
    #[arg(long, value_name = "DIR", env = "KILN_REGISTRY_DATA")]
    data: Option<PathBuf>,

    /// Accept images whose blobs were not pushed (an index may always lack some of its images)
    #[arg(long)]
    accept_sparse: bool,

    /// Refuse every push and every deletion
    #[arg(long)]
    read_only: bool,
}

/// Runs the command; `root` is kiln's own.
pub(crate) fn run(arguments: RegistryArguments, root: &Path) -> anyhow::Result<()> {
    // Every core answers requests; a few dozen threads keep any disk busy, and each takes memory.
    let runtime = tokio::runtime::Builder::new_multi_thread().max_blocking_threads(64).enable_all().build();
    runtime.context("start the runtime")?.block_on(async {
        match arguments.command {
            RegistryCommand::Serve(arguments) => serve(arguments, root).await,
            RegistryCommand::Gc(arguments) => {
                let config = arguments.config(root);
                maintenance::collect(arguments.command, &config).await
            }
            RegistryCommand::Scrub(arguments) => maintenance::scrub(&arguments.command, &arguments.config(root)).await,
            RegistryCommand::Import(arguments) => {
                maintenance::import(&arguments.command, &arguments.config(root)).await
            }
        }
    })
}

async fn serve(arguments: ServeArguments, root: &Path) -> anyhow::Result<()> {
    let ServeArguments { listen, data, accept_sparse, read_only } = arguments;
    let data = data.unwrap_or_else(|| root.join("registry"));
    let stop = stop_signal().context("watch for signals")?;
    let config = Config { listen, accept_sparse, read_only, ..Config::new(&data) };
    let server = Server::bind(&config)?;
    let mut stdout = io::stdout();
    for address in server.local_addrs() {
        writeln!(stdout, "serving {} at http://{address}", data.display()).context("write to standard output")?;
    }
    stdout.flush().context("write to standard output")?;
    server.serve(stop).await?;
    Ok(())
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
