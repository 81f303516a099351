//! The server: listeners, connections, the end.

use std::io;
use std::net::{SocketAddr, TcpListener as BoundListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as BoundSocket, UnixStream as SocketStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::config::ListenPlace;
use crate::direct::DirectStream;
use crate::error::{Error, chain};
use crate::front::Front;
use crate::registry::Registry;
use crate::tls::{HTTP_2, Tls};
use crate::{Config, Result, collection, control, pulls};

/// How long a connection may be idle, or take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests that one client makes at a time over one connection by HTTP/2.
const MOST_STREAMS: u32 = 16;
/// Bytes of one answer that wait for the connection; without a bound they are many times as many.
const SEND_BUFFER: usize = 64 << 10;
/// Bytes of one upload, and of all over one connection, that a client sends before they are read.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// How often files that may change (users, keys, certificates) are looked at.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// A registry that is open and listens, but does not answer before [`Server::serve`].
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Bound>,
    front: Arc<Front>,
    tls: Option<Tls>,
}

/// A place that it listens at.
#[derive(Debug)]
enum Bound {
    Address(BoundListener),
    Socket(BoundSocket, PathBuf),
}

/// The same on a runtime.
enum Listener {
    Address(TcpListener),
    Socket(UnixListener, PathBuf),
}

/// A connection of either kind.
enum Stream {
    Tcp(TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Bound {
    fn bind(place: &ListenPlace) -> io::Result<Self> {
        match place {
            ListenPlace::Address(address) => {
                let listener = BoundListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Address(listener))
            }
            ListenPlace::Socket(path) => {
                remove_abandoned(path)?;
                let listener = BoundSocket::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
                listener.set_nonblocking(true)?;
                Ok(Self::Socket(listener, path.clone()))
            }
        }
    }

    fn place(&self) -> Option<ListenPlace> {
        match self {
            Self::Address(listener) => listener.local_addr().ok().map(ListenPlace::Address),
            Self::Socket(_, path) => Some(ListenPlace::Socket(path.clone())),
        }
    }

    /// Needs a runtime.
    fn listen(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Address(listener) => Listener::Address(TcpListener::from_std(listener)?),
            Self::Socket(listener, path) => Listener::Socket(UnixListener::from_std(listener)?, path),
        })
    }
}

/// Removes a socket that nobody listens at any more.
fn remove_abandoned(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && SocketStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Address(listener) => listener.accept().await.map(|(stream, peer)| (Stream::Tcp(stream), peer)),
            // Whoever is on the other side has no address.
            Self::Socket(listener, _) => {
                listener.accept().await.map(|(stream, _)| (Stream::Unix(stream), ([0, 0, 0, 0], 0).into()))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Socket(_, path) = self
            && let Err(error) = std::fs::remove_file(&*path)
        {
            tracing::debug!(%error, "remove {}", path.display());
        }
    }
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
        let listeners = config
            .http
            .listen
            .iter()
            .map(|place| Bound::bind(place).map_err(|source| Error::Listen { address: place.to_string(), source }));
        Ok(Self { listeners: listeners.collect::<Result<_>>()?, front, tls })
    }

    /// Where it listens, in the configuration's order, with the ports it got.
    pub fn places(&self) -> Vec<ListenPlace> {
        self.listeners.iter().filter_map(Bound::place).collect()
    }

    /// The first address it listens at.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.places().into_iter().find_map(|place| match place {
            ListenPlace::Address(address) => Some(address),
            ListenPlace::Socket(_) => None,
        })
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
            let place = listener.place().map(|place| place.to_string()).unwrap_or_default();
            let listener = listener.listen().map_err(|source| Error::Listen { address: place, source })?;
            tasks.spawn(accept(listener, Arc::clone(&front), tls.clone(), Arc::clone(&permits), stopped.clone()));
        }
        tasks.spawn(control::listen(Arc::clone(&front.registry), stopped.clone()));
        tasks.spawn(collection::run(Arc::clone(&front.registry), stopped.clone()));
        tasks.spawn(pulls::run(Arc::clone(&front.registry), stopped.clone()));
        tasks.spawn(refresh(Arc::clone(&front), tls, stopped));
        let (closed, closing) = watch::channel(());
        let deliveries = front.webhooks.start(&closing).await;
        let registry = Arc::clone(&front.registry);
        drop(front);
        shutdown.await;
        drop(stop);
        while tasks.join_next().await.is_some() {}
        if let Err(error) = pulls::write(&registry).await {
            tracing::warn!(error = chain(&error), "the last pulls will not be known to retention");
        }
        drop(registry);
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
    listener: Listener,
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
    async fn open(self, stream: Stream, tls: Option<Tls>, watcher: Watcher) {
        let stream = match stream {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => {
                self.front.metrics.connections.inc();
                let front = Arc::clone(&self.front);
                // Bytes that do not leave the machine are not encrypted, whatever is spoken elsewhere.
                self.converse(stream, watcher).await;
                front.metrics.connections.dec();
                return;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = chain(&error), "set TCP_NODELAY");
        }
        self.front.metrics.connections.inc();
        let front = Arc::clone(&self.front);
        match tls {
            None => self.converse(stream, watcher).await,
            Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.acceptor.accept(stream)).await {
                Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) => {
                    self.converse_by_http2(stream, watcher).await;
                }
                Ok(Ok(stream)) => self.converse(stream, watcher).await,
                Ok(Err(error)) => tracing::debug!(error = chain(&error), "agree on TLS"),
                Err(_) => tracing::debug!("agree on TLS: it took too long"),
            },
        }
        front.metrics.connections.dec();
    }

    /// Serves requests to the connection's end.
    async fn converse(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, watcher: Watcher) {
        let stream = DirectStream::new(stream);
        let parts = stream.parts();
        let Self { front, peer, _permit } = self;
        let head = usize::try_from(front.config.limits.head.0).unwrap_or(usize::MAX);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            let front = Arc::clone(&front);
            request.extensions_mut().insert(parts.clone());
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

    /// The same by HTTP/2: many requests at a time over one connection, whose bytes the library gathers into frames. So
    /// none of them sends parts of files directly.
    async fn converse_by_http2(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, watcher: Watcher) {
        let Self { front, peer, _permit } = self;
        let head = u32::try_from(front.config.limits.head.0).unwrap_or(u32::MAX);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            let front = Arc::clone(&front);
            // As everything here knows it.
            let host = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
            if let Some(host) = host {
                request.headers_mut().entry(header::HOST).or_insert(host);
            }
            async move { Ok::<_, std::convert::Infallible>(front.answer(peer, request.map(Body::new)).await) }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            // Whoever answers may be idle for as long as he likes; a connection that is gone does not stay.
            .keep_alive_interval(HEAD_TIMEOUT)
            .max_concurrent_streams(MOST_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(head)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
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
