//! Work that blocks (files, hashes) runs on threads of its own, so that it holds up nobody else.

use crate::error::Error;

/// Runs it there. Once begun, it runs to its end, also when nobody waits for it any more.
pub(crate) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Error::Interrupted.into()))
}
