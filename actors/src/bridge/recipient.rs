//! One message's entry of a handle: a mailbox whose message type is forgotten and found again.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix::dev::RecipientRequest;
use actix::{MailboxError, Message, Recipient};
use pin_project_lite::pin_project;
use portcullis_engine::{Error, ErrorKind};

use super::delivery;
use super::life::IsConnected;
use super::remote::Remote;
use super::scope;

/// One message's entry of a handle.
pub struct Slot {
    method: u32,
    entry: Box<dyn Erased>,
}

impl Slot {
    /// The entry of message `M`.
    pub fn new<M: Remote>(recipient: Recipient<M>) -> Self {
        Self {
            method: M::ID,
            entry: Box::new(Typed(recipient)),
        }
    }

    /// The mailbox, if this is the entry of `M`.
    pub(crate) fn recipient<M: Remote>(&self) -> Option<&Recipient<M>> {
        self.entry
            .as_any()
            .downcast_ref::<Typed<M>>()
            .map(|typed| &typed.0)
    }

    /// The wire id of the entry's message.
    pub(crate) fn method(&self) -> u32 {
        self.method
    }

    /// The stable wire name of the entry's message.
    pub(crate) fn name(&self) -> &'static str {
        self.entry.name()
    }

    /// Tells whether the mailbox still is, without keeping its actor.
    pub(crate) fn is_connected(&self) -> IsConnected {
        self.entry.is_connected()
    }

    /// Decodes a request and puts it into the mailbox.
    pub(crate) fn dispatch(&self, body: &[u8]) -> Result<Pin<Box<dyn Answer>>, Error> {
        self.entry.dispatch(body)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Slot({:#010x})", self.method())
    }
}

/// A request that is in its actor's mailbox, of a message type that is forgotten.
pub(crate) trait Answer {
    /// Whether the actor has answered, and with what error.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
    /// Encodes the answer, which has been found to be there.
    fn encode(&self, into: Vec<u8>) -> postcard::Result<Vec<u8>>;
}

pin_project! {
    struct TypedAnswer<M: Remote> {
        #[pin]
        request: RecipientRequest<M>,
        answer: Option<Answered<M>>,
    }
}

/// What a mailbox says of a request in the end.
pub(crate) type Answered<M> = Result<<M as Message>::Result, MailboxError>;

impl<M: Remote> Answer for TypedAnswer<M> {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.project();
        let answer = match this.answer.take() {
            Some(answer) => answer,
            None => ready!(this.request.poll(cx)),
        };
        Poll::Ready(match answer {
            Ok(Err(error)) => Err(error),
            Err(error) => Err(mailbox_error(error, M::NAME)),
            reply => {
                *this.answer = Some(reply);
                Ok(())
            }
        })
    }

    fn encode(&self, into: Vec<u8>) -> postcard::Result<Vec<u8>> {
        match &self.answer {
            Some(Ok(Ok(reply))) => postcard::to_extend(reply, into),
            _ => Err(postcard::Error::WontImplement),
        }
    }
}

trait Erased: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn name(&self) -> &'static str;
    fn is_connected(&self) -> IsConnected;
    fn dispatch(&self, body: &[u8]) -> Result<Pin<Box<dyn Answer>>, Error>;
}

struct Typed<M: Remote>(Recipient<M>);

impl<M: Remote> Erased for Typed<M> {
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

    fn dispatch(&self, body: &[u8]) -> Result<Pin<Box<dyn Answer>>, Error> {
        let message: M = postcard::from_bytes(body).map_err(|error| {
            let why = format!("{}: {}", M::NAME, scope::reason(&error));
            Error::new(ErrorKind::Protocol(why.into()))
        })?;
        Ok(Box::pin(TypedAnswer {
            request: delivery::send(&self.0, message),
            answer: None,
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
