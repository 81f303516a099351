//! The server: listeners, connections, the end.

use std::net::{SocketAddr, TcpListener as BoundListener};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::error::{Error, chain};
use crate::front::Front;
use crate::registry::Registry;
use crate::tls::Tls;
use crate::{Config, Result, collection, control};

/// How long a connection may be idle, or take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often files that may change (users, keys, certificates) are looked at.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// A registry that is open and listens, but does not answer before [`Server::serve`].
#[derive(Debug)]
pub struct Server {
    listeners: Vec<BoundListener>,
    front: Arc<Front>,
    tls: Option<Tls>,
}

impl Server {
    /// Opens the directory, reads what the configuration names, and listens.
    ///
    /// # Errors
    /// [`Error::InUse`] when another server has the directory, [`Error::Listen`] when an address cannot be had,
    /// [`Error::Config`] and [`Error::Certificate`] when a file says something that cannot be meant.
    pub fn bind(config: &Config) -> Result<Self> {
        let tls = Tls::open(&config.tls)?;
        let registry = Arc::new(Registry::open(config)?);
        let front = Arc::new(Front::open(config, registry)?);
        let listeners = config.http.listen.iter().map(|address| {
            let listen = || {
                let listener = BoundListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            };
            listen().map_err(|source| Error::Listen { address: *address, source })
        });
        Ok(Self { listeners: listeners.collect::<Result<_>>()?, front, tls })
    }

    /// The addresses it listens at, in the configuration's order, with the ports it got.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// The first address it listens at.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addrs().first().copied()
    }

    /// Whether everyone who reaches it may do everything.
    pub fn is_open(&self) -> bool {
        self.front.access.is_open()
    }

    /// Answers requests until `shutdown` completes; then those under way have some time to finish.
    /// Must be called on a tokio runtime with its I/O and time drivers enabled.
    ///
    /// # Errors
    /// [`Error::Listen`] when the runtime refuses a listener.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let Self { listeners, front, tls } = self;
        let (stop, stopped) = watch::channel(());
        let connections = usize::try_from(front.config.limits.connections).unwrap_or(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        let mut tasks = JoinSet::new();
        for listener in listeners {
            let address = listener.local_addr();
            let listener = TcpListener::from_std(listener)
                .map_err(|source| Error::Listen { address: address.unwrap_or(([0, 0, 0, 0], 0).into()), source })?;
            tasks.spawn(accept(listener, Arc::clone(&front), tls.clone(), Arc::clone(&permits), stopped.clone()));
        }
        tasks.spawn(control::listen(Arc::clone(&front.registry), stopped.clone()));
        tasks.spawn(collection::run(Arc::clone(&front.registry), stopped.clone()));
        tasks.spawn(refresh(Arc::clone(&front), tls, stopped));
        let (closed, closing) = watch::channel(());
        let deliveries = front.webhooks.start(&closing).await;
        drop(front);
        shutdown.await;
        drop(stop);
        while tasks.join_next().await.is_some() {}
        // What the last requests did is told as well.
        drop(closed);
        for delivery in deliveries {
            drop(delivery.await);
        }
        Ok(())
    }
}

/// Accepts connections until the sender of `stopped` is gone, then waits for them.
async fn accept(
    listener: TcpListener,
    front: Arc<Front>,
    tls: Option<Tls>,
    permits: Arc<Semaphore>,
    mut stopped: watch::Receiver<()>,
) {
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
            (Ok((stream, peer)), Ok(permit)) => {
                let connection = Connection { front: Arc::clone(&front), peer, _permit: permit };
                connections.spawn(connection.open(stream, tls.clone(), graceful.watcher()));
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
    if tokio::time::timeout(front.config.http.drain.0, drained).await.is_err() {
        tracing::warn!("requests that did not finish in time are cut off");
        connections.shutdown().await;
    }
}

/// A client's connection.
struct Connection {
    front: Arc<Front>,
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn open(self, stream: TcpStream, tls: Option<Tls>, watcher: Watcher) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = chain(&error), "set TCP_NODELAY");
        }
        self.front.metrics.connections.inc();
        let front = Arc::clone(&self.front);
        match tls {
            None => self.converse(stream, watcher).await,
            Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.acceptor.accept(stream)).await {
                Ok(Ok(stream)) => self.converse(stream, watcher).await,
                Ok(Err(error)) => tracing::debug!(error = chain(&error), "agree on TLS"),
                Err(_) => tracing::debug!("agree on TLS: it took too long"),
            },
        }
        front.metrics.connections.dec();
    }

    /// Serves requests to the connection's end.
    async fn converse(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, watcher: Watcher) {
        let Self { front, peer, _permit } = self;
        let head = usize::try_from(front.config.limits.head.0).unwrap_or(usize::MAX);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let front = Arc::clone(&front);
            async move { Ok::<_, std::convert::Infallible>(front.answer(peer, request.map(Body::new)).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(head)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            // A client that goes away is no news.
            tracing::debug!(error = chain(&error), "connection ended");
        }
    }
}

/// Takes up changes of users, keys and certificates.
async fn refresh(front: Arc<Front>, tls: Option<Tls>, mut stopped: watch::Receiver<()>) {
    if front.access.is_open() && tls.is_none() {
        return;
    }
    let mut interval = tokio::time::interval(REFRESH_INTERVAL);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stopped.changed() => return,
        }
        let (front, tls) = (Arc::clone(&front), tls.clone());
        let refreshed = tokio::task::spawn_blocking(move || {
            front.refresh();
            if let Some(tls) = tls {
                tls.refresh();
            }
        });
        drop(refreshed.await);
    }
}
