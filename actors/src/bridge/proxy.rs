//! The actor that stands in this process for an actor of another one.

use std::any::type_name;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, AsyncContext, Handler};
use portcullis_engine::Error;

use super::context::Context;
use super::life::{self, Life};
use super::link::LinkCore;
use super::remote::Remote;

/// Stands here for an actor of another process: one actor type for every interface, with a handler for each message.
///
/// It has no state but its address on the link, and never waits: what cannot cross yet waits at the link, where its
/// deadline counts. It stops when its last handle is dropped, which releases the far actor.
#[derive(Debug)]
pub struct Proxy {
    link: Rc<LinkCore>,
    id: u32,
    generation: u32,
    /// Which of several imports of the same far actor this is.
    import: u64,
    /// Of the far actor.
    life: Arc<Life>,
}

impl Proxy {
    pub(crate) fn new(
        link: Rc<LinkCore>,
        id: u32,
        generation: u32,
        import: u64,
        life: Arc<Life>,
    ) -> Self {
        Self {
            link,
            id,
            generation,
            import,
            life,
        }
    }
}

impl Actor for Proxy {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        self.link.release_import(self.import);
    }
}

impl<M: Remote> Handler<M> for Proxy {
    type Result = ProxyReply<M>;

    fn handle(&mut self, message: M, _: &mut Self::Context) -> Self::Result {
        ProxyReply {
            link: Rc::clone(&self.link),
            object: (self.id, self.generation),
            message,
            ended: self.life.told_end().map(life::later),
        }
    }
}

/// Gives the caller's own reply channel to the link: no task and no second channel per call.
pub struct ProxyReply<M> {
    link: Rc<LinkCore>,
    object: (u32, u32),
    message: M,
    /// What every call gets from now on.
    ended: Option<Error>,
}

impl<M: Remote> MessageResponse<Proxy, M> for ProxyReply<M> {
    fn handle(self, ctx: &mut Context<Proxy>, caller: Option<OneshotSender<M::Result>>) {
        if let Some(ended) = self.ended {
            // The caller may have gone.
            return drop(caller.map(|caller| caller.send(Err(ended))));
        }
        // A message that has to wait keeps its proxy, so that the far actor is not released before the message is there.
        self.link
            .call(self.object, self.message, caller, || ctx.address());
    }
}

impl<M> fmt::Debug for ProxyReply<M> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ProxyReply<{}>", type_name::<M>())
    }
}
