//! The actix system that Portcullis owns: a user needs none.
//!
//! One thread, started at first use and living as long as the process, runs the application's side of every link, and the
//! sessions that are placed in the application. Work comes to it as closures, so that what it makes (proxies, links,
//! actors) never leaves it and need not be `Send`. Should it end, the next use starts another.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};

use actix_rt::{Arbiter, ArbiterHandle, System};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use portcullis_engine::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

use crate::panics;

/// The arbiter of a runtime that has started or is about to: whoever needs it waits for the same one.
type Starting = Shared<BoxFuture<'static, Result<ArbiterHandle>>>;

/// The runtime in use and its number.
struct Runtime {
    number: u64,
    arbiter: Option<Starting>,
}

static RUNTIME: Mutex<Runtime> = Mutex::new(Runtime {
    number: 0,
    arbiter: None,
});

/// The runtime with this number is of no use any more.
fn forget(number: u64) {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if runtime.number == number {
        runtime.arbiter = None;
    }
}

/// The runtime, started if there is none. Nothing is waited for under the lock.
fn current() -> Result<(u64, Starting)> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(arbiter) = &runtime.arbiter {
        return Ok((runtime.number, arbiter.clone()));
    }
    let number = runtime.number + 1;
    let (started, start) = oneshot::channel();
    std::thread::Builder::new()
        .name("portcullis".into())
        .spawn(move || {
            serve(started);
            forget(number);
        })
        .map_err(|error| Error::io("the runtime's thread", &error))?;
    let start = async {
        start
            .await
            .unwrap_or_else(|_| Err(Error::invalid_request("the runtime ended while it started")))
    };
    let arbiter = start.boxed().shared();
    runtime.number = number;
    runtime.arbiter = Some(arbiter.clone());
    Ok((number, arbiter))
}

/// The runtime's thread.
fn serve(started: oneshot::Sender<Result<ArbiterHandle>>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        // It needs descriptors. Whoever asked may have gone.
        Err(error) => return drop(started.send(Err(Error::io("the runtime", &error)))),
    };
    let system = System::with_tokio_rt(|| runtime);
    let arbiter = system.block_on(async { Arbiter::current() });
    // Whoever asked may have gone.
    let _ = started.send(Ok(arbiter));
    if let Err(error) = system.run() {
        tracing::error!(%error, "the runtime has ended");
    }
}

/// Runs what `work` makes on Portcullis' own arbiter and gives its result, on any executor.
///
/// Dropping the future drops the work there.
///
/// # Errors
/// The work's own; `Panicked`; `Io` when the system gives no thread, or no descriptors for it; `Cancelled` if the runtime
/// ends under the work.
pub async fn run<F, W, T>(work: W) -> Result<T>
where
    W: FnOnce() -> F + Send + 'static,
    F: Future<Output = Result<T>> + 'static,
    T: Send + 'static,
{
    let (mut done, result) = oneshot::channel();
    let task = move || {
        actix_rt::spawn(async move {
            panics::note_places();
            let work = AssertUnwindSafe(async move { work().await }).catch_unwind();
            let work = std::pin::pin!(work);
            let outcome = match futures::future::select(work, std::pin::pin!(done.closed())).await {
                futures::future::Either::Left((outcome, _)) => outcome,
                futures::future::Either::Right(_) => return,
            };
            let outcome = outcome.unwrap_or_else(|panic| Err(panics::error(&*panic)));
            // The caller may have gone in this very moment.
            let _ = done.send(outcome);
        });
    };
    if !arbiter().await?.spawn_fn(task) {
        return Err(Error::cancelled());
    }
    result
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Cancelled)))
}

/// Portcullis' own arbiter, which is started at first use, and again should it have ended.
///
/// # Errors
/// `Io` when the system gives no thread, or no descriptors for it.
pub async fn arbiter() -> Result<ArbiterHandle> {
    loop {
        let (number, starting) = current()?;
        match starting.await {
            // One that has ended takes nothing.
            Ok(arbiter) if arbiter.spawn_fn(|| {}) => return Ok(arbiter),
            Ok(_) => forget(number),
            Err(error) => {
                // The next use tries again.
                forget(number);
                return Err(error);
            }
        }
    }
}

/// The arbiter, if it has started: for those who cannot wait.
pub(crate) fn running() -> Option<ArbiterHandle> {
    let runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    runtime.arbiter.as_ref()?.peek()?.as_ref().ok().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_was_stopped_is_started_again_and_work_that_panics_says_so() {
        futures::executor::block_on(async {
            for round in 0..3 {
                // One that is just ending may take work and drop it.
                while run(move || async move { Ok(round) }).await != Ok(round) {}
                let error = run::<_, _, ()>(|| async { panic!("at work") })
                    .await
                    .expect_err("panics");
                assert!(matches!(error.kind(), ErrorKind::Panicked { .. }));
                let stop = run(|| async {
                    System::current().stop();
                    Ok(())
                });
                // It may be cut short by what it does.
                drop(stop.await);
            }
        });
    }
}
