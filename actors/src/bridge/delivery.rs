//! A message on its way into an actor that runs in our [`Context`].

use std::any::Any;
use std::cell::Cell;

use actix::dev::{EnvelopeProxy, MessageResponse, OneshotSender, RecipientRequest};
use actix::{Actor, Handler, Message, Recipient};
use portcullis_engine::Error;

use super::context::Context;
use super::gate::Permit;
use super::mailbox;
use super::remote::Remote;
use super::trace::Carried;
use crate::panics;

/// Answers a caller, whose type is forgotten, with an error.
type Fail = fn(&mut dyn Any, Error);

/// What goes with a message that a context is told nothing of.
struct Sending {
    /// How to fail the caller, whose type the context does not know.
    fail: Fail,
    /// The message's place on the way to its actor.
    permit: Option<Permit>,
}

thread_local! {
    /// Of the message that is just being sent.
    static SENDING: Cell<Option<Sending>> = const { Cell::new(None) };
}

/// Puts a message into a mailbox, with its place on the way there: it is free again when the actor takes the message out.
/// The place comes back where the actor runs in a context that knows nothing of places.
///
/// A mailbox of ours is never full: who may send is decided before. Into another one it goes by a clone of the address, as
/// each sender has a place of its own there: a full one would keep the message in the future until that is polled, and
/// others would overtake it.
pub(crate) fn send<M: Remote>(
    recipient: &Recipient<M>,
    is_ours: bool,
    message: M,
    permit: Option<Permit>,
) -> (RecipientRequest<M>, Option<Permit>) {
    let fail = fail::<M>;
    SENDING.set(Some(Sending { fail, permit }));
    let request = match is_ours {
        true => recipient.send(message),
        false => recipient.clone().send(message),
    };
    (request, SENDING.take().and_then(|sending| sending.permit))
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
    /// Dropped with this, when the message was handled or is not to be.
    _permit: Option<Permit>,
}

impl<M: Message> Delivery<M> {
    pub(super) fn new(message: M, caller: Option<OneshotSender<M::Result>>) -> Self {
        let sending = SENDING.take();
        let fail = sending.as_ref().map(|sending| sending.fail);
        Self {
            message: Some(message),
            caller,
            fail,
            trace: Carried::here(),
            _permit: sending.and_then(|sending| sending.permit),
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
            // Nobody waits any more: the request never starts.
            return;
        }
        let _within = self.trace.as_ref().map(Carried::enter);
        match panics::catch(|| actor.handle(message, ctx)) {
            Ok(response) => {
                let caller = self.caller.take();
                mailbox::counted(|| response.handle(ctx, caller));
            }
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
