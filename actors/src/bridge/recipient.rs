//! One message's entry of a handle: a mailbox whose message type is forgotten and found again.

use std::any::Any;
use std::fmt;

use actix::{MailboxError, Recipient};
use futures::future::LocalBoxFuture;
use portcullis_engine::{Error, ErrorKind};
use serde::Serialize;

use super::delivery;
use super::life::IsConnected;
use super::remote::Remote;
use super::scope;

/// One message's entry of a handle.
pub struct Slot(Box<dyn Erased>);

impl Slot {
    /// The entry of message `M`.
    pub fn new<M: Remote>(recipient: Recipient<M>) -> Self {
        Self(Box::new(Typed(recipient)))
    }

    /// The mailbox, if this is the entry of `M`.
    pub(crate) fn recipient<M: Remote>(&self) -> Option<&Recipient<M>> {
        self.0
            .as_any()
            .downcast_ref::<Typed<M>>()
            .map(|typed| &typed.0)
    }

    /// The wire id of the entry's message.
    pub(crate) fn method(&self) -> u32 {
        self.0.method()
    }

    /// The stable wire name of the entry's message.
    pub(crate) fn name(&self) -> &'static str {
        self.0.name()
    }

    /// Tells whether the mailbox still is, without keeping its actor.
    pub(crate) fn is_connected(&self) -> IsConnected {
        self.0.is_connected()
    }

    /// Decodes a request and puts it into the mailbox.
    pub(crate) fn dispatch(&self, body: &[u8]) -> Result<Dispatched, Error> {
        self.0.dispatch(body)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Slot({:#010x})", self.method())
    }
}

/// A request on its way: resolves to what is to be encoded as its reply.
pub(crate) type Dispatched = LocalBoxFuture<'static, Result<Box<dyn Reply>, Error>>;

/// A reply whose type is forgotten.
pub(crate) trait Reply {
    fn encode(&self, into: Vec<u8>) -> postcard::Result<Vec<u8>>;
}

impl<T: Serialize> Reply for T {
    fn encode(&self, into: Vec<u8>) -> postcard::Result<Vec<u8>> {
        postcard::to_extend(self, into)
    }
}

trait Erased: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn method(&self) -> u32;
    fn name(&self) -> &'static str;
    fn is_connected(&self) -> IsConnected;
    fn dispatch(&self, body: &[u8]) -> Result<Dispatched, Error>;
}

struct Typed<M: Remote>(Recipient<M>);

impl<M: Remote> Erased for Typed<M> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn method(&self) -> u32 {
        M::ID
    }

    fn name(&self) -> &'static str {
        M::NAME
    }

    fn is_connected(&self) -> IsConnected {
        let recipient = self.0.downgrade();
        Box::new(move || recipient.upgrade().is_some_and(|it| it.connected()))
    }

    fn dispatch(&self, body: &[u8]) -> Result<Dispatched, Error> {
        let message: M = postcard::from_bytes(body).map_err(|error| {
            let why = format!("{}: {}", M::NAME, scope::reason(&error));
            Error::new(ErrorKind::Protocol(why.into()))
        })?;
        let request = delivery::send(&self.0, message);
        Ok(Box::pin(async move {
            match request.await {
                Ok(Ok(reply)) => Ok(Box::new(reply) as Box<dyn Reply>),
                Ok(Err(error)) => Err(error),
                Err(error) => Err(mailbox_error(error, M::NAME)),
            }
        }))
    }
}

/// What a mailbox that does not answer means.
pub(crate) fn mailbox_error(error: MailboxError, what: &'static str) -> Error {
    match error {
        MailboxError::Closed => Error::new(ErrorKind::ActorStopped),
        MailboxError::Timeout => Error::new(ErrorKind::DeadlineExceeded { what: what.into() }),
    }
}
