//! One message's entry of a handle: a mailbox whose message type is forgotten and found again.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix::{MailboxError, Recipient};
use pin_project_lite::pin_project;
use portcullis_engine::{Error, ErrorKind};

use super::call::Call;
use super::delivery;
use super::gate::Class;
use super::handle::Shared;
use super::life::IsConnected;
use super::remote::Remote;
use super::scope;

/// One message's entry of a handle.
pub struct Slot {
    method: u32,
    class: Class,
    entry: Box<dyn Erased>,
}

impl Slot {
    /// The entry of message `M` of an actor of this process.
    pub fn new<M: Remote>(recipient: Recipient<M>) -> Self {
        Self::with::<M>(Box::new(Here(recipient)))
    }

    /// The entry of message `M` of an actor elsewhere.
    pub fn elsewhere<M: Remote>() -> Self {
        Self::with::<M>(Box::new(Elsewhere::<M>(PhantomData)))
    }

    fn with<M: Remote>(entry: Box<dyn Erased>) -> Self {
        Self {
            method: M::ID,
            class: Class::of::<M>(),
            entry,
        }
    }

    /// The mailbox, if this is the entry of `M` of an actor of this process.
    pub(crate) fn recipient<M: Remote>(&self) -> Option<&Recipient<M>> {
        let here = self.entry.as_any().downcast_ref::<Here<M>>();
        here.map(|here| &here.0)
    }

    /// The wire id of the entry's message.
    pub(crate) fn method(&self) -> u32 {
        self.method
    }

    /// Which places a request of it takes.
    pub(crate) fn class(&self) -> Class {
        self.class
    }

    /// The stable wire name of the entry's message.
    pub(crate) fn name(&self) -> &'static str {
        self.entry.name()
    }

    /// Tells whether the mailbox still is, without keeping its actor.
    pub(crate) fn is_connected(&self) -> IsConnected {
        self.entry.is_connected()
    }

    /// Decodes a request and sends it to the actor, whose entry this is.
    pub(crate) fn dispatch(
        &self,
        actor: &Arc<Shared>,
        body: &[u8],
    ) -> Result<Pin<Box<dyn Answer>>, Error> {
        self.entry.dispatch(actor, body)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Slot({:#010x})", self.method())
    }
}

/// A request that is with its actor, of a message type that is forgotten.
pub(crate) trait Answer {
    /// Whether the actor has answered, and with what error.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
    /// Encodes the answer, which has been found to be there.
    fn encode(&self, into: Vec<u8>) -> postcard::Result<Vec<u8>>;
}

pin_project! {
    struct TypedAnswer<M: Remote> {
        #[pin]
        call: Call<M>,
        reply: Option<M::Reply>,
    }
}

impl<M: Remote> Answer for TypedAnswer<M> {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.project();
        Poll::Ready(match ready!(this.call.poll(cx)) {
            Ok(reply) => {
                *this.reply = Some(reply);
                Ok(())
            }
            Err(error) => Err(error),
        })
    }

    fn encode(&self, into: Vec<u8>) -> postcard::Result<Vec<u8>> {
        match &self.reply {
            Some(reply) => postcard::to_extend(reply, into),
            None => Err(postcard::Error::WontImplement),
        }
    }
}

trait Erased: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn name(&self) -> &'static str;
    fn is_connected(&self) -> IsConnected;
    fn dispatch(&self, actor: &Arc<Shared>, body: &[u8]) -> Result<Pin<Box<dyn Answer>>, Error>;
}

struct Here<M: Remote>(Recipient<M>);

struct Elsewhere<M>(PhantomData<fn() -> M>);

impl<M: Remote> Erased for Here<M> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &'static str {
        M::NAME
    }

    fn is_connected(&self) -> IsConnected {
        let recipient = self.0.downgrade();
        Box::new(move || recipient.upgrade().is_some_and(|it| it.connected()))
    }

    fn dispatch(&self, actor: &Arc<Shared>, body: &[u8]) -> Result<Pin<Box<dyn Answer>>, Error> {
        // The peer's own window bounds what it sends: it needs no place among the callers of this process.
        let (request, _) = delivery::send(&self.0, actor.is_ours(), decode(body)?, None);
        Ok(answer(Call::<M>::here(request, None)))
    }
}

impl<M: Remote> Erased for Elsewhere<M> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &'static str {
        M::NAME
    }

    fn is_connected(&self) -> IsConnected {
        Box::new(|| true)
    }

    fn dispatch(&self, actor: &Arc<Shared>, body: &[u8]) -> Result<Pin<Box<dyn Answer>>, Error> {
        // Handed on from one peer to another, whose window it has to keep.
        Ok(answer(actor.send::<M>(decode(body)?)))
    }
}

fn answer<M: Remote>(call: Call<M>) -> Pin<Box<dyn Answer>> {
    Box::pin(TypedAnswer { call, reply: None })
}

fn decode<M: Remote>(body: &[u8]) -> Result<M, Error> {
    scope::read(body).map_err(|why| {
        let why = format!("{}: {why}", M::NAME);
        Error::new(ErrorKind::Protocol(why.into()))
    })
}

/// What a mailbox that does not answer means.
pub(crate) fn mailbox_error(error: MailboxError, what: &'static str) -> Error {
    match error {
        MailboxError::Closed => Error::new(ErrorKind::ActorStopped),
        MailboxError::Timeout => Error::new(ErrorKind::DeadlineExceeded { what: what.into() }),
    }
}
