//! A message on its way into an actor that runs in our [`Context`].

use std::any::Any;
use std::cell::Cell;

use actix::dev::{EnvelopeProxy, MessageResponse, OneshotSender, RecipientRequest};
use actix::{Actor, AsyncContext, Handler, Message, Recipient};
use portcullis_engine::Error;

use super::context::Context;
use super::mailbox::Mailbox;
use super::remote::Remote;
use super::trace::Carried;
use crate::panics;

/// Answers a caller, whose type is forgotten, with an error.
type Fail = fn(&mut dyn Any, Error);

thread_local! {
    /// How to fail the caller of the message that is just being sent: a context is told nothing of its type.
    static SENDING: Cell<Option<Fail>> = const { Cell::new(None) };
}

/// Puts a message into a mailbox.
///
/// By a clone of the address: each sender has a place in the mailbox of its own. One that is full would keep the message in
/// the future, until that is polled, and others would overtake it.
pub(crate) fn send<M: Remote>(recipient: &Recipient<M>, message: M) -> RecipientRequest<M> {
    SENDING.set(Some(fail::<M>));
    let request = recipient.clone().send(message);
    SENDING.set(None);
    request
}

fn fail<M: Remote>(caller: &mut dyn Any, error: Error) {
    let caller = caller.downcast_mut::<Option<OneshotSender<M::Result>>>();
    if let Some(caller) = caller.and_then(Option::take) {
        // The caller may have gone in this very moment.
        let _ = caller.send(Err(error));
    }
}

/// A message with what belongs to it.
pub(super) struct Delivery<M: Message> {
    message: Option<M>,
    caller: Option<OneshotSender<M::Result>>,
    fail: Option<Fail>,
    trace: Option<Carried>,
}

impl<M: Message> Delivery<M> {
    pub(super) fn new(message: M, caller: Option<OneshotSender<M::Result>>) -> Self {
        Self {
            message: Some(message),
            caller,
            fail: SENDING.take(),
            trace: Carried::here(),
        }
    }
}

impl<A, M> EnvelopeProxy<A> for Delivery<M>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn handle(&mut self, actor: &mut A, ctx: &mut Context<A>) {
        ctx.count_message();
        let Some(message) = self.message.take() else {
            return;
        };
        if self.caller.as_ref().is_some_and(OneshotSender::is_closed) {
            // Nobody waits any more: the request never starts. But it has left the mailbox, which its link counts.
            Mailbox::of(&ctx.address()).note_begun();
            return;
        }
        let _within = self.trace.as_ref().map(Carried::enter);
        match panics::catch(|| actor.handle(message, ctx)) {
            Ok(response) => response.handle(ctx, self.caller.take()),
            Err(panic) => {
                tracing::warn!(error = %panic, "a handler panicked: its actor ends");
                if let Some(fail) = self.fail {
                    fail(&mut self.caller, panic.clone());
                }
                ctx.end(panic);
            }
        }
    }
}
