//! What an actor runs in that others may watch.
//!
//! actix tells nobody when an actor ends, catches its panic without a word, and delivers messages without the span of their
//! sender. All of that is decided by the context type of the actor, so this is one that does it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use actix::dev::{
    AsyncContextParts, ContextFut, ContextParts, Envelope, Mailbox, OneshotSender, ToEnvelope,
    channel,
};
use actix::fut::wrap_future;
use actix::{
    Actor, ActorContext, ActorFuture, ActorState, Addr, AsyncContext, Handler, Message, SpawnHandle,
};
use portcullis_engine::{Error, ErrorKind};

use super::delivery::Delivery;
use super::life::Life;
use crate::panics;

/// Messages after which an actor leaves its arbiter to the others for a turn.
const TURN: u32 = 128;

/// The context of an actor whose end can be watched. It does what [`actix::Context`] does, and more:
///
/// - a [`Watch`](super::Watch) of a handle learns of the actor's end when it happens;
/// - a handler that panics answers its call with `Panicked`, which has message and place, and ends this actor only;
/// - a message is handled within the `tracing` span in which it was sent, wherever that was;
/// - a flood of messages does not keep the arbiter from others.
///
/// Start such an actor with [`Handle::start`](super::Handle::start) or [`Context::start`].
///
/// ```
/// use portcullis_actors::bridge::Context;
///
/// struct Greeter;
///
/// impl actix::Actor for Greeter {
///     type Context = Context<Self>;
/// }
/// ```
pub struct Context<A: Actor<Context = Self>> {
    parts: ContextParts<A>,
    life: Arc<Life>,
    /// Messages of this turn.
    handled: u32,
}

impl<A: Actor<Context = Self>> Context<A> {
    /// Starts an actor on this thread's arbiter.
    ///
    /// # Panics
    /// On a thread without an actix arbiter, as `Actor::start` does: use [`runtime::run`](crate::runtime::run) there.
    pub fn start(actor: A) -> Addr<A> {
        panics::note_places();
        // Without a limit of actix's: who may send is decided by the gate of each handle.
        let (sender, receiver) = channel::channel(0);
        let mailbox = Mailbox::new(receiver);
        let address = Addr::new(sender);
        let life = Life::new();
        let key = life.begin(&address);
        let context = Self {
            parts: ContextParts::new(mailbox.sender_producer()),
            life: Arc::clone(&life),
            handled: 0,
        };
        actix_rt::spawn(Running {
            actor: Some(ContextFut::new(context, actor, mailbox)),
            life,
            key,
        });
        address
    }

    /// Whether anybody has an address of the actor.
    pub fn connected(&self) -> bool {
        self.parts.connected()
    }

    /// A message has been taken out of the mailbox and is about to be handled.
    pub(super) fn count_message(&mut self) {
        self.life.note_read();
        self.handled += 1;
        if self.handled >= TURN {
            self.handled = 0;
            self.parts.wait(wrap_future(tokio::task::yield_now()));
        }
    }

    /// A handler panicked: the actor may be in any state and handles nothing any more.
    pub(super) fn end(&mut self, panic: Error) {
        self.life.note_end(panic);
        self.parts.terminate();
    }
}

impl<A: Actor<Context = Self>> ActorContext for Context<A> {
    fn stop(&mut self) {
        self.parts.stop();
    }

    fn terminate(&mut self) {
        self.parts.terminate();
    }

    fn state(&self) -> ActorState {
        self.parts.state()
    }
}

impl<A: Actor<Context = Self>> AsyncContext<A> for Context<A> {
    fn spawn<F>(&mut self, future: F) -> SpawnHandle
    where
        F: ActorFuture<A, Output = ()> + 'static,
    {
        self.parts.spawn(future)
    }

    fn wait<F>(&mut self, future: F)
    where
        F: ActorFuture<A, Output = ()> + 'static,
    {
        self.parts.wait(future);
    }

    fn waiting(&self) -> bool {
        self.parts.waiting()
    }

    fn cancel_future(&mut self, handle: SpawnHandle) -> bool {
        self.parts.cancel_future(handle)
    }

    fn address(&self) -> Addr<A> {
        self.parts.address()
    }
}

impl<A: Actor<Context = Self>> AsyncContextParts<A> for Context<A> {
    fn parts(&mut self) -> &mut ContextParts<A> {
        &mut self.parts
    }
}

impl<A, M> ToEnvelope<A, M> for Context<A>
where
    A: Actor<Context = Self> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn pack(message: M, caller: Option<OneshotSender<M::Result>>) -> Envelope<A> {
        Envelope::with_proxy(Box::new(Delivery::new(message, caller)))
    }
}

impl<A: Actor<Context = Self>> fmt::Debug for Context<A> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Context({:?})", self.parts.state())
    }
}

/// An actor that runs, and tells of its end.
struct Running<A: Actor<Context = Context<A>>> {
    actor: Option<ContextFut<A, Context<A>>>,
    life: Arc<Life>,
    key: usize,
}

impl<A: Actor<Context = Context<A>>> Running<A> {
    fn finish(&mut self, end: Error) {
        let Some(actor) = self.actor.take() else {
            return;
        };
        // Before the calls go that wait in the mailbox, so that theirs is a known end.
        self.life.note_end(end);
        Life::forget(self.key);
        if let Err(error) = panics::catch(|| drop(actor)) {
            tracing::warn!(%error, "an actor failed at its end");
        }
        self.life.finish();
    }
}

impl<A: Actor<Context = Context<A>>> Unpin for Running<A> {}

impl<A: Actor<Context = Context<A>>> Future for Running<A> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<()> {
        let Some(actor) = &mut self.actor else {
            return Poll::Ready(());
        };
        let end = match panics::catch(|| Pin::new(actor).poll(cx)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => Error::new(ErrorKind::ActorStopped),
            Err(panic) => {
                tracing::warn!(error = %panic, "an actor panicked");
                panic
            }
        };
        self.finish(end);
        Poll::Ready(())
    }
}

impl<A: Actor<Context = Context<A>>> Drop for Running<A> {
    /// Its arbiter has ended.
    fn drop(&mut self) {
        self.finish(Error::new(ErrorKind::ActorStopped));
    }
}
