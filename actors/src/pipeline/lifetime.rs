//! Ends an actor with its last handle, whatever it is waiting for.
//!
//! actix keeps an actor that waits for a future alive, although nobody can reach it any more: a sink that has asked its
//! source for a sample, and the source that the sink has a handle to, would keep each other for ever.

use std::pin::Pin;
use std::task::Poll;

use actix::{Actor, ActorContext, ActorFuture, AsyncContext};

use crate::bridge::Context;

/// Call it from `started`. What the actor waits for is dropped with it.
pub(crate) fn end_with_last_handle<A: Actor<Context = Context<A>>>(ctx: &mut Context<A>) {
    ctx.spawn(LastHandle);
}

struct LastHandle;

impl<A: Actor<Context = Context<A>>> ActorFuture<A> for LastHandle {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        _: &mut A,
        ctx: &mut Context<A>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<()> {
        // The mailbox wakes its actor when the last address is dropped, and an actor that is woken polls all it waits for.
        if ctx.connected() {
            return Poll::Pending;
        }
        ctx.stop();
        Poll::Ready(())
    }
}
