//! `kiln registry`: a registry of one's own.

use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use kiln_registry_server::{Config, Server};
use tokio::signal::unix::{SignalKind, signal};

/// Serve a registry
#[derive(Debug, Args)]
pub(crate) struct RegistryArguments {
    #[command(subcommand)]
    command: RegistryCommand,
}

#[derive(Debug, Subcommand)]
enum RegistryCommand {
    Serve(ServeArguments),
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
}

/// Runs the command; `root` is kiln's own.
pub(crate) fn run(arguments: RegistryArguments, root: &Path) -> anyhow::Result<()> {
    let RegistryCommand::Serve(arguments) = arguments.command;
    // Every core answers requests; a few dozen threads keep any disk busy, and each takes memory.
    let runtime = tokio::runtime::Builder::new_multi_thread().max_blocking_threads(64).enable_all().build();
    runtime.context("start the runtime")?.block_on(serve(arguments, root))
}

async fn serve(arguments: ServeArguments, root: &Path) -> anyhow::Result<()> {
    let ServeArguments { listen, data, accept_sparse } = arguments;
    let data = data.unwrap_or_else(|| root.join("registry"));
    let stop = stop_signal().context("watch for signals")?;
    let server = Server::bind(&Config { root: data.clone(), listen, sparse: accept_sparse })?;
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
