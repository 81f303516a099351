//! The server: listeners, connections, the end.

use std::net::{SocketAddr, TcpListener as BoundListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::collection::Collection;
use crate::error::{Error, chain};
use crate::registry::Registry;
use crate::{Result, collection, control, routes};

/// Connections that are served at once; others wait to be accepted.
const MOST_CONNECTIONS: usize = 1_024;
/// How long a connection may be idle, or take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// How long requests under way may take to finish after the shutdown began.
const DRAIN: Duration = Duration::from_secs(10);

/// How a registry is served.
#[derive(Debug, Clone)]
pub struct Config {
    /// The registry's directory; made when missing.
    pub data: PathBuf,
    /// Addresses to listen at, by plain HTTP. Port 0 chooses a free one. Everyone who reaches them may read and write.
    pub listen: Vec<SocketAddr>,
    /// Accept image manifests even when blobs they refer to were not pushed. (Indexes may always lack manifests.)
    pub accept_sparse: bool,
    /// Refuse every change; the collector does not run either.
    pub read_only: bool,
    /// What is removed when, and what may not be.
    pub collection: Collection,
}

impl Config {
    /// Nothing but a directory: it listens nowhere.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        let collection = Collection::default();
        Self { data: data.into(), listen: Vec::new(), accept_sparse: false, read_only: false, collection }
    }
}

/// A registry that is open and listens, but does not answer before [`Server::serve`].
#[derive(Debug)]
pub struct Server {
    listeners: Vec<BoundListener>,
    registry: Arc<Registry>,
}

impl Server {
    /// Opens the directory and listens.
    ///
    /// # Errors
    /// [`Error::InUse`] when another server has the directory, [`Error::Listen`] when an address cannot be had.
    pub fn bind(config: &Config) -> Result<Self> {
        let registry = Arc::new(Registry::open(config)?);
        let listeners = config.listen.iter().map(|address| {
            let listen = || {
                let listener = BoundListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            };
            listen().map_err(|source| Error::Listen { address: *address, source })
        });
        Ok(Self { listeners: listeners.collect::<Result<_>>()?, registry })
    }

    /// The addresses it listens at, in the configuration's order, with the ports it got.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// The first address it listens at.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addrs().first().copied()
    }

    /// Answers requests until `shutdown` completes; then those under way have some seconds to finish.
    /// Must be called on a tokio runtime with its I/O and time drivers enabled.
    ///
    /// # Errors
    /// [`Error::Listen`] when the runtime refuses a listener.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let Self { listeners, registry } = self;
        let router = routes::router(Arc::clone(&registry));
        let (stop, stopped) = watch::channel(());
        let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let mut tasks = JoinSet::new();
        for listener in listeners {
            let address = listener.local_addr();
            let listener = TcpListener::from_std(listener)
                .map_err(|source| Error::Listen { address: address.unwrap_or(([0, 0, 0, 0], 0).into()), source })?;
            tasks.spawn(accept(listener, router.clone(), Arc::clone(&permits), stopped.clone()));
        }
        tasks.spawn(control::listen(Arc::clone(&registry), stopped.clone()));
        tasks.spawn(collection::run(registry, stopped));
        shutdown.await;
        drop(stop);
        while tasks.join_next().await.is_some() {}
        Ok(())
    }
}

/// Accepts connections until the sender of `stopped` is gone, then waits for them.
async fn accept(listener: TcpListener, router: Router, permits: Arc<Semaphore>, mut stopped: watch::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            next = next => next,
            _ = stopped.changed() => break,
        };
        while connections.try_join_next().is_some() {}
        match (accepted, permit) {
            (Ok((stream, _)), Ok(permit)) => {
                connections.spawn(converse(stream, router.clone(), permit, graceful.watcher()));
            }
            (Err(error), _) => {
                // Usually the limit of open files: others will close theirs.
                tracing::warn!(error = chain(&error), "accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            (_, Err(_)) => break,
        }
    }
    drop(listener);
    let drained = async {
        graceful.shutdown().await;
        while connections.join_next().await.is_some() {}
    };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        connections.shutdown().await;
    }
}

/// Serves one connection to its end.
async fn converse(
    stream: TcpStream,
    router: Router,
    _permit: OwnedSemaphorePermit,
    watcher: hyper_util::server::graceful::Watcher,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = chain(&error), "set TCP_NODELAY");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(connection).await {
        // A client that goes away is no news.
        tracing::debug!(error = chain(&error), "connection ended");
    }
}
