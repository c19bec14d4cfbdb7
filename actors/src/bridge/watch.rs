//! Learning of an actor's end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use portcullis_engine::Error;

use super::life::Life;
use crate::runtime;

/// Resolves when an actor has ended, with the reason:
///
/// - `ActorStopped`: it stopped itself, or its last handle was dropped;
/// - `Panicked` with message and place: one of its handlers, or what it spawned in its context, panicked;
/// - `HostLost` or `Protocol`: its process, or the link to it, is gone.
///
/// It comes behind all messages and replies of the actor that came before its end. Any number may wait; none keeps the actor
/// alive, and one that is dropped leaves nothing. May be sent to other threads and works on any executor.
#[must_use = "a watch tells nothing unless it is awaited"]
pub struct Watch {
    life: Arc<Life>,
    end: BoxFuture<'static, Error>,
}

impl Watch {
    pub(crate) fn new(life: Arc<Life>) -> Self {
        let end = match life.is_asked() {
            false => Arc::clone(&life).told().boxed(),
            true => asked(Arc::clone(&life)).boxed(),
        };
        Self { life, end }
    }

    /// The reason, if the actor has ended.
    pub fn now(&self) -> Option<Error> {
        self.life.now()
    }
}

impl Future for Watch {
    type Output = Error;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Error> {
        self.end.as_mut().poll(cx)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Watch({:?})", self.now())
    }
}

/// Portcullis' own arbiter has the timers that the caller's executor may lack.
async fn asked(life: Arc<Life>) -> Error {
    match runtime::run(move || async move { Ok(life.ended().await) }).await {
        Ok(end) | Err(end) => end,
    }
}
