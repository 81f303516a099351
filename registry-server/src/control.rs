//! Orders from `kiln registry`: carried out by the server that has the directory open, which is asked by its socket, or
//! here when there is none. One line of JSON asks, one answers.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Config;
use crate::collection::report::CollectionReport;
use crate::error::{Error, chain};
use crate::registry::Registry;
use crate::scrub::ScrubReport;
use crate::{Result, collection, scrub as scrubbing};

const SOCKET: &str = "control.sock";
/// Bytes of the longest order.
const LONGEST: u64 = 4_096;

/// What the server is asked to do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    Collect { dry_run: bool },
    Scrub,
}

/// Runs the collector once, by the rules of the server that has the directory open, else by those of `config`.
/// Must be called on a tokio runtime.
///
/// # Errors
/// Whatever keeps the collector from its end; what it removed before stays removed.
pub async fn collect(config: &Config, dry_run: bool) -> Result<CollectionReport> {
    if let Some(report) = ask(&config.data, Order::Collect { dry_run }).await? {
        return Ok(report);
    }
    collection::collect(&Arc::new(Registry::open(config)?), dry_run).await
}

/// Reads and hashes every blob and manifest once, and puts aside what is damaged.
/// Must be called on a tokio runtime.
///
/// # Errors
/// A disk that cannot be read, or not be written where something was to be put aside.
pub async fn scrub(config: &Config) -> Result<ScrubReport> {
    if let Some(report) = ask(&config.data, Order::Scrub).await? {
        return Ok(report);
    }
    scrubbing::scrub(&Arc::new(Registry::open(config)?)).await
}

/// Asks the server that has the directory open; `None` when there is none.
async fn ask<T: DeserializeOwned>(root: &Path, order: Order) -> Result<Option<T>> {
    let path = root.join(SOCKET);
    let failed = |error: io::Error| Error::io("ask the server at", &path)(error);
    let connected = match Short::of(root) {
        Ok(short) => UnixStream::connect(short.path()).await,
        Err(error) => Err(error),
    };
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let mut line = serde_json::to_vec(&order).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(failed)?;
    if answer.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, "the server ended before it was done")));
    }
    let answer: std::result::Result<T, String> =
        serde_json::from_slice(&answer).map_err(|error| failed(error.into()))?;
    answer.map(Some).map_err(Error::Refused)
}

/// Takes orders until the sender of `stopped` is gone. Only the owner of the directory can give any.
pub(crate) async fn listen(registry: Arc<Registry>, mut stopped: watch::Receiver<()>) {
    let listener = match bind(&registry.root) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(error = chain(&error), "no orders can be taken");
            return;
        }
    };
    let mut orders = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => break,
        };
        while orders.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let registry = Arc::clone(&registry);
                orders.spawn(async move {
                    if let Err(error) = obey(&registry, stream).await {
                        tracing::warn!(error = chain(&error), "an order was not understood or not answered");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "accept an order");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
    // Whatever is under way can be interrupted at any point.
    orders.shutdown().await;
    drop(fs::remove_file(registry.root.join(SOCKET)));
}

fn bind(root: &Path) -> Result<UnixListener> {
    let path = root.join(SOCKET);
    // The directory's lock is ours, so this is what a killed server left.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", &path)(error)),
        _ => {}
    }
    let listen = || {
        let listener = UnixListener::bind(Short::of(root)?.path())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    listen().map_err(Error::io("listen at", &path))
}

async fn obey(registry: &Arc<Registry>, stream: UnixStream) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(LONGEST)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line)? {
        Order::Collect { dry_run: false } if registry.read_only => {
            serde_json::to_vec(&Err::<(), _>("the registry is read-only"))
        }
        Order::Collect { dry_run } => answer(collection::collect(registry, dry_run).await),
        Order::Scrub => answer(scrubbing::scrub(registry).await),
    };
    writer.write_all(&answer?).await?;
    writer.shutdown().await
}

fn answer<T: Serialize>(result: Result<T>) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&result.map_err(|error| chain(&error)))
}

/// A socket's address has room for some hundred bytes only: this one reaches any directory, by its descriptor.
struct Short(fs::File);

impl Short {
    fn of(root: &Path) -> io::Result<Self> {
        fs::File::open(root).map(Self)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", self.0.as_raw_fd()))
    }
}
