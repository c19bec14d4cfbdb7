//! A handler's answer that comes later and ends when nobody waits for it any more.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, AsyncContext, Message};
use futures::FutureExt;
use futures::future::{Either, select};
use portcullis_engine::Result;

use super::mailbox;
use super::trace::Carried;
use crate::panics;

/// The answer of a handler that has to wait.
///
/// Unlike actix's own response futures it is dropped when its caller drops the request, also when the caller is in another
/// process: what it holds is released then. If it panics, its call fails with `Panicked`; the actor, of which it has nothing
/// borrowed, goes on.
pub struct ReplyFuture<T>(Reply<T>);

enum Reply<T> {
    Ready(Result<T>),
    Later(Pin<Box<dyn Future<Output = Result<T>>>>),
}

impl<T> ReplyFuture<T> {
    /// An answer that comes from this future. It runs on the actor's arbiter.
    pub fn new(future: impl Future<Output = Result<T>> + 'static) -> Self {
        Self(Reply::Later(Box::pin(future)))
    }

    /// An answer that is there.
    pub fn ready(result: Result<T>) -> Self {
        Self(Reply::Ready(result))
    }
}

impl<T> fmt::Debug for ReplyFuture<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ReplyFuture")
    }
}

impl<A, M, T> MessageResponse<A, M> for ReplyFuture<T>
where
    A: Actor,
    A::Context: AsyncContext<A>,
    M: Message<Result = Result<T>>,
    T: 'static,
{
    fn handle(self, ctx: &mut A::Context, caller: Option<OneshotSender<M::Result>>) {
        mailbox::note_read(|| ctx.address());
        let future = match self.0 {
            // The caller may have gone.
            Reply::Ready(answer) => return drop(caller.map(|caller| caller.send(answer))),
            Reply::Later(future) => future,
        };
        panics::note_places();
        // It goes on within the span of the message, each time that it goes on.
        let carried = Carried::here();
        let mut future = AssertUnwindSafe(future).catch_unwind();
        let future = std::future::poll_fn(move |cx| {
            let _within = carried.as_ref().map(Carried::enter);
            let answer = future.poll_unpin(cx);
            answer.map(|answer| answer.unwrap_or_else(|panic| Err(panics::error(&*panic))))
        });
        actix_rt::spawn(async move {
            let Some(mut caller) = caller else {
                // A message without a caller (`do_send`) still runs to its end; an error has nobody to go to.
                if let Err(error) = future.await {
                    tracing::debug!(%error, "a message without a caller failed");
                }
                return;
            };
            let answer = match select(future, Box::pin(caller.closed())).await {
                Either::Left((answer, _)) => answer,
                // Nobody waits any more: the future is dropped unfinished.
                Either::Right(_) => return,
            };
            // The caller may have gone in this very moment.
            let _ = caller.send(answer);
        });
    }
}
