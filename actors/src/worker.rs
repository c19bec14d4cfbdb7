//! Where a component runs: on a thread of its own, or, when it is cheap, on the arbiter itself.
//!
//! A component is built on the thread that runs it and need not be `Send`. A panic is caught, ends the component and is
//! reported as `Panicked`; its neighbours go on.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use portcullis_engine::{Error, ErrorKind, Result};
use tokio::sync::oneshot;
use tracing::Span;

use crate::panics;

/// Jobs that wait for one worker. A node has one job under way at a time; control adds a few, and a component's own messages
/// at most half of them.
pub(crate) const QUEUE: usize = 64;

/// Says whether the component can go on.
type Job<T> = Box<dyn FnOnce(&mut T) -> bool + Send>;

/// A component whose end cannot take its neighbours along.
pub(crate) struct Contained<T>(Option<T>);

impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        let component = self.0.take();
        let dropped = guarded(|| {
            drop(component);
            Ok(())
        });
        if let Err(error) = dropped {
            tracing::warn!(%error, "a component failed at its end");
        }
    }
}

/// A component and where it runs.
pub(crate) enum Worker<T: 'static> {
    /// A thread of its own, ended when the last clone is dropped and its job is done.
    Thread(SyncSender<Job<T>>),
    /// The arbiter's thread, within the span in which the component was built.
    Inline(Rc<RefCell<Contained<T>>>, Span),
}

impl<T> Clone for Worker<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Thread(jobs) => Self::Thread(jobs.clone()),
            Self::Inline(component, span) => Self::Inline(Rc::clone(component), span.clone()),
        }
    }
}

impl<T> fmt::Debug for Worker<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Thread(_) => "Worker::Thread",
            Self::Inline(..) => "Worker::Inline",
        })
    }
}

impl<T> Worker<T> {
    /// Builds a component on a thread of its own.
    ///
    /// # Errors
    /// What `build` answers; `Panicked`; `Io` when the system gives no thread.
    pub(crate) async fn spawn(
        name: &str,
        build: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<Self> {
        let (jobs, queue) = sync_channel::<Job<T>>(QUEUE);
        let (built, outcome) = oneshot::channel();
        let span = Span::current();
        std::thread::Builder::new()
            .name(name.chars().take(15).collect())
            .spawn(move || {
                // What a component logs belongs to the session and node for which it was built.
                let _span = span.enter();
                let mut component = match guarded(build) {
                    Ok(component) => {
                        // Whatever ends it, its own end is guarded, and never within the unwinding of its panic.
                        let component = Contained(Some(component));
                        if built.send(Ok(())).is_err() {
                            return;
                        }
                        component
                    }
                    Err(error) => {
                        // Whoever asked may have gone; then nobody needs the reason.
                        let _ = built.send(Err(error));
                        return;
                    }
                };
                while let (Some(alive), Ok(job)) = (component.0.as_mut(), queue.recv()) {
                    if !job(alive) {
                        break;
                    }
                }
            })
            .map_err(|error| Error::io("a worker thread", &error))?;
        outcome.await.unwrap_or_else(|_| Err(Error::cancelled()))?;
        Ok(Self::Thread(jobs))
    }

    /// Builds a cheap component that runs on this arbiter.
    ///
    /// # Errors
    /// What `build` answers; `Panicked`.
    pub(crate) fn inline(build: impl FnOnce() -> Result<T>) -> Result<Self> {
        let component = Contained(Some(guarded(build)?));
        Ok(Self::Inline(
            Rc::new(RefCell::new(component)),
            Span::current(),
        ))
    }

    /// Whether the component runs on the arbiter: the answer of a call is there at once then.
    pub(crate) fn is_inline(&self) -> bool {
        matches!(self, Self::Inline(..))
    }

    /// Runs `job` on the component. The job runs to its end also when the future is dropped.
    ///
    /// # Errors
    /// What `job` answers; `Panicked`, after which the component is gone.
    pub(crate) fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut T) -> Result<R> + Send + 'static,
    ) -> LocalBoxFuture<'static, Result<R>> {
        match self {
            Self::Thread(jobs) => {
                let (done, result) = oneshot::channel();
                let queued = jobs.try_send(Box::new(move |component| {
                    let outcome = guarded(|| job(component));
                    // After a panic it may be in any state: its thread ends.
                    let goes_on = !outcome.as_ref().err().is_some_and(is_panic);
                    // The caller may have gone.
                    let _ = done.send(outcome);
                    goes_on
                }));
                let refusal = match queued {
                    Ok(()) => None,
                    Err(TrySendError::Full(_)) => Some(Error::invalid_request(
                        "too many requests wait for a component",
                    )),
                    Err(TrySendError::Disconnected(_)) => Some(Error::new(ErrorKind::ActorStopped)),
                };
                if let Some(error) = refusal {
                    return std::future::ready(Err(error)).boxed_local();
                }
                async move {
                    result
                        .await
                        .unwrap_or_else(|_| Err(Error::new(ErrorKind::ActorStopped)))
                }
                .boxed_local()
            }
            Self::Inline(component, span) => {
                let outcome = match component.try_borrow_mut() {
                    Ok(mut component) => match component.0.as_mut() {
                        Some(alive) => {
                            let outcome = span.in_scope(|| guarded(|| job(alive)));
                            if outcome.as_ref().err().is_some_and(is_panic) {
                                *component = Contained(None);
                            }
                            outcome
                        }
                        None => Err(Error::new(ErrorKind::ActorStopped)),
                    },
                    Err(_) => Err(Error::invalid_request(
                        "a component was called from within itself",
                    )),
                };
                std::future::ready(outcome).boxed_local()
            }
        }
    }
}

fn is_panic(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Panicked { .. })
}

fn guarded<R>(body: impl FnOnce() -> Result<R>) -> Result<R> {
    panics::catch(body)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_component_is_gone() {
        futures::executor::block_on(async {
            for worker in [
                Worker::spawn("test", || Ok(1)).await.expect("builds"),
                Worker::inline(|| Ok(1)).expect("builds"),
            ] {
                assert_eq!(worker.call(|n| Ok(*n + 1)).await, Ok(2));
                let error = worker
                    .call::<()>(|_| panic!("oops {}", 7))
                    .await
                    .expect_err("panics");
                let ErrorKind::Panicked { message, place } = error.kind() else {
                    panic!("{error}");
                };
                assert_eq!(message, "oops 7");
                assert!(place.contains("worker.rs:"), "{place}");
                assert!(worker.call(|n| Ok(*n)).await.is_err());
            }
        });
    }

    #[test]
    fn a_panic_at_a_components_end_ends_nothing_else() {
        struct Last;
        impl Drop for Last {
            fn drop(&mut self) {
                panic!("at the end");
            }
        }
        let worker = Worker::inline(|| Ok(Last)).expect("builds");
        drop(worker);
    }

    #[test]
    fn a_component_that_panics_at_work_and_again_at_its_end_ends_nothing_else() {
        struct Twice(std::sync::mpsc::Sender<()>);
        impl Drop for Twice {
            fn drop(&mut self) {
                let _ = self.0.send(());
                panic!("and again");
            }
        }
        futures::executor::block_on(async {
            let (dropped, drops) = std::sync::mpsc::channel();
            let also = dropped.clone();
            for worker in [
                Worker::spawn("test", move || Ok(Twice(dropped)))
                    .await
                    .expect("builds"),
                Worker::inline(move || Ok(Twice(also))).expect("builds"),
            ] {
                let error = worker
                    .call::<()>(|_| panic!("once"))
                    .await
                    .expect_err("panics");
                assert!(is_panic(&error));
                drops
                    .recv_timeout(std::time::Duration::from_secs(20))
                    .expect("is dropped");
            }
        });
    }

    #[test]
    fn a_queue_that_is_full_says_so() {
        futures::executor::block_on(async {
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let worker = Worker::spawn("test", move || Ok(wait))
                .await
                .expect("builds");
            let wait = |wait: &mut std::sync::mpsc::Receiver<()>| Ok(wait.recv().is_ok());
            let jobs: Vec<_> = (0..QUEUE + 2).map(|_| worker.call(wait)).collect();
            drop(go);
            let refused = futures::future::join_all(jobs).await;
            let refused: Vec<_> = refused.into_iter().filter_map(Result::err).collect();
            assert!((1..=2).contains(&refused.len()), "{refused:?}");
            assert!(matches!(refused[0].kind(), ErrorKind::InvalidRequest(_)));
        });
    }

    #[test]
    fn what_is_not_send_is_built_where_it_runs() {
        futures::executor::block_on(async {
            let worker = Worker::spawn("test", || Ok(Rc::new(5)))
                .await
                .expect("builds");
            assert_eq!(worker.call(|n| Ok(**n)).await, Ok(5));
        });
    }
}
