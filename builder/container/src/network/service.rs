//! A thread that serves until it is no longer wanted.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

/// A running thread with an event loop of its own. Dropping it ends it and closes what it served.
#[derive(Debug)]
pub(crate) struct Service {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts one. `prepare` runs in the thread; the service is up when it has returned.
    pub(crate) fn start<F>(name: &str, prepare: impl FnOnce() -> io::Result<F> + Send + 'static) -> io::Result<Self>
    where
        F: Future<Output = io::Result<()>>,
    {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(512 * 1024).spawn(move || {
            let prepared = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
                let work = prepare()?;
                Ok((runtime, work))
            });
            match prepared {
                Ok((runtime, work)) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(async {
                        tokio::select! {
                            outcome = work => {
                                if let Err(error) = outcome {
                                    tracing::warn!("{error}");
                                }
                            }
                            _ = stopped => {}
                        }
                    });
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(Self { stop: Some(stop), thread: Some(thread) }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("the thread ended")),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
