//! Components that have messages of their own.

use std::fmt;

use actix::{Actor, Context, Handler};
use portcullis_engine::Result;
use portcullis_engine::component::Component;

use crate::bridge::{Handle, Interface, Remote, ReplyFuture, ServedBy};
use crate::worker::Worker;

/// A component with messages of its own.
///
/// Declare the messages with `#[derive(Remote)]`, list them with [`interface!`](crate::interface), and implement
/// [`Receive`] for each. A handle to the interface answers them wherever the component runs; a message takes effect between
/// two jobs of the component, so at a sample boundary. For events of its own, let a message hand the component a handle of
/// an interface that the application serves.
pub trait Interactive: Component + Send {
    /// The component's messages.
    type Interface: Interface + ServedBy<ControlActor<Self>>;
}

/// Answers one of the component's own messages, on the thread that the component runs on.
pub trait Receive<M: Remote> {
    /// Handles the message.
    fn receive(&mut self, message: M) -> Result<M::Reply>;
}

/// Takes a component's own messages to where the component runs.
pub struct ControlActor<C: 'static> {
    worker: Worker<C>,
}

impl<C: Interactive> ControlActor<C> {
    pub(crate) fn create(worker: Worker<C>) -> Handle<C::Interface>
    where
        C: Unpin,
    {
        Handle::new(&Self { worker }.start())
    }
}

impl<C> fmt::Debug for ControlActor<C> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ControlActor")
    }
}

impl<C> Unpin for ControlActor<C> {}

impl<C: 'static> Actor for ControlActor<C> {
    type Context = Context<Self>;
}

impl<C: Receive<M> + 'static, M: Remote> Handler<M> for ControlActor<C> {
    type Result = ReplyFuture<M::Reply>;

    fn handle(&mut self, message: M, _: &mut Self::Context) -> Self::Result {
        ReplyFuture::new(
            self.worker
                .call(move |component| component.receive(message)),
        )
    }
}
