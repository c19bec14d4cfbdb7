//! The actor that stands in this process for an actor of another one.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{Actor, AsyncContext, Handler, Message};
use portcullis_engine::{Error, ErrorKind};
use tokio::time::Instant;

use super::call::CallState;
use super::context::Context;
use super::gate::{Gate, Permit};
use super::life::{self, Life};
use super::link::{Caller, LinkCore, Way};
use super::remote::Remote;
use super::trace::TraceContext;

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

/// A message on its way to its link's thread.
pub(crate) struct Crossing<M: Remote> {
    /// The message, its place and its way; not there once it is at the link.
    pub(crate) message: Option<(M, Permit)>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) caller: Arc<CallState<M>>,
    /// When it will have waited too long.
    pub(crate) deadline: Option<Instant>,
    pub(crate) trace: Option<TraceContext>,
}

impl<M: Remote> Message for Crossing<M> {
    type Result = ();
}

impl<M: Remote> Handler<Crossing<M>> for Proxy {
    type Result = ();

    fn handle(&mut self, mut crossing: Crossing<M>, ctx: &mut Self::Context) {
        let Some((message, permit)) = crossing.message.take() else {
            return;
        };
        if let Some(end) = self.life.told_end() {
            return crossing.caller.fail(life::later(end));
        }
        let way = Way {
            permit,
            deadline: crossing.deadline,
            trace: crossing.trace,
        };
        let caller = Arc::clone(&crossing.caller);
        // A message that has to wait keeps its proxy, so that the far actor is not released before the message is there.
        let object = (self.id, self.generation);
        self.link
            .call(object, message, caller, way, || ctx.address());
    }
}

impl<M: Remote> Drop for Crossing<M> {
    fn drop(&mut self) {
        self.gate.mailed.fetch_sub(1, Ordering::AcqRel);
        if self.message.take().is_some() {
            self.caller.fail(Error::new(ErrorKind::ActorStopped));
        }
    }
}
