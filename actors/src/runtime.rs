//! The actix system that Portcullis owns: a user needs none.
//!
//! One thread, started at first use and living as long as the process, runs the application's side of every link, and the
//! sessions that are placed in the application. Work comes to it as closures, so that what it makes (proxies, links,
//! actors) never leaves it and need not be `Send`.

use std::future::Future;
use std::io;
use std::sync::{Mutex, PoisonError, mpsc};

use actix_rt::{ArbiterHandle, System};
use portcullis_engine::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

/// Empty until the first use, and while the system has no thread to give.
static ARBITER: Mutex<Option<ArbiterHandle>> = Mutex::new(None);

fn start() -> Result<ArbiterHandle> {
    let (started, start) = mpsc::channel();
    std::thread::Builder::new()
        .name("portcullis".into())
        .spawn(move || {
            let system = System::new();
            let arbiter = system.block_on(async { actix_rt::Arbiter::current() });
            // The receiver waits below.
            let _ = started.send(arbiter);
            if let Err(error) = system.run() {
                tracing::error!(%error, "the runtime has ended");
            }
        })
        .map_err(|error| Error::io("the runtime's thread", &error))?;
    // A thread that ends before it sends had no descriptors for its runtime.
    start
        .recv()
        .map_err(|_| Error::io("the runtime", &io::Error::from(io::ErrorKind::OutOfMemory)))
}

/// Runs what `work` makes on Portcullis' own arbiter and gives its result, on any executor.
///
/// Dropping the future drops the work there.
///
/// # Errors
/// The work's own; `Cancelled` if the process is ending.
pub async fn run<F, W, T>(work: W) -> Result<T>
where
    W: FnOnce() -> F + Send + 'static,
    F: Future<Output = Result<T>> + 'static,
    T: Send + 'static,
{
    let (mut done, result) = oneshot::channel();
    let sent = arbiter()?.spawn_fn(move || {
        actix_rt::spawn(async move {
            let work = std::pin::pin!(work());
            let outcome = match futures::future::select(work, std::pin::pin!(done.closed())).await {
                futures::future::Either::Left((outcome, _)) => outcome,
                futures::future::Either::Right(_) => return,
            };
            // The caller may have gone in this very moment.
            let _ = done.send(outcome);
        });
    });
    if !sent {
        return Err(Error::cancelled());
    }
    result
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Cancelled)))
}

/// Portcullis' own arbiter, which is started at first use.
///
/// # Errors
/// `Io` when the system gives no thread, or no descriptors for it.
pub fn arbiter() -> Result<ArbiterHandle> {
    let mut arbiter = ARBITER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(arbiter) = &*arbiter {
        return Ok(arbiter.clone());
    }
    let started = start()?;
    Ok(arbiter.insert(started).clone())
}
