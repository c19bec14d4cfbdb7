//! The actix system that Portcullis owns: a user needs none.
//!
//! One thread, started at first use and living as long as the process, runs the application's side of every link, and the
//! sessions that are placed in the application. Work comes to it as closures, so that what it makes (proxies, links,
//! actors) never leaves it and need not be `Send`.

use std::future::Future;
use std::sync::{LazyLock, mpsc};

use actix_rt::{ArbiterHandle, System};
use portcullis_engine::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

static ARBITER: LazyLock<ArbiterHandle> = LazyLock::new(|| {
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
        .expect("the system gives the process one more thread");
    start
        .recv()
        .expect("the thread sends its arbiter before anything else")
});

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
    let sent = arbiter().spawn_fn(move || {
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

/// Portcullis' own arbiter.
pub fn arbiter() -> ArbiterHandle {
    // In a host the arbiter that serves the link is the current one; everywhere else it is the runtime's.
    ARBITER.clone()
}
