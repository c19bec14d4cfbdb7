//! The actor that stands in this process for an actor of another one.

use std::marker::PhantomData;
use std::rc::Rc;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, AsyncContext, Context, Handler};
use portcullis_engine::Result;

use super::interface::{Has, Interface};
use super::link::{EncodedCall, LinkCore};
use super::remote::Remote;

/// Stands here for an actor of another process: one actor type for every interface, with a handler for each message of it.
///
/// It has no state but its address on the link. It stops when its last handle is dropped, which releases the far actor.
#[derive(Debug)]
pub struct Proxy<I> {
    link: Rc<LinkCore>,
    id: u32,
    generation: u32,
    /// Which of several imports of the same far actor this is, in order.
    import: u64,
    interface: PhantomData<fn() -> I>,
}

impl<I: Interface> Proxy<I> {
    pub(crate) fn new(link: Rc<LinkCore>, id: u32, generation: u32, import: u64) -> Self {
        Self {
            link,
            id,
            generation,
            import,
            interface: PhantomData,
        }
    }
}

impl<I: Interface> Actor for Proxy<I> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(64);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.link
            .release_import(self.id, self.generation, self.import);
    }
}

impl<I: Has<M>, M: Remote> Handler<M> for Proxy<I> {
    type Result = ProxyReply;

    fn handle(&mut self, message: M, ctx: &mut Self::Context) -> Self::Result {
        let encoded = self.link.encode_call(self.id, self.generation, &message);
        if let Some(credit) = self.link.credit() {
            // The mailbox stops draining until the link has room again: this is the back-pressure.
            ctx.wait(actix::fut::wrap_future(credit));
        }
        ProxyReply {
            link: Rc::clone(&self.link),
            encoded,
        }
    }
}

/// Gives the caller's own reply channel to the link: no task and no second channel per call.
#[derive(Debug)]
pub struct ProxyReply {
    link: Rc<LinkCore>,
    encoded: Result<EncodedCall>,
}

impl<I: Has<M>, M: Remote> MessageResponse<Proxy<I>, M> for ProxyReply {
    fn handle(self, _: &mut Context<Proxy<I>>, caller: Option<OneshotSender<M::Result>>) {
        match self.encoded {
            Ok(call) => self.link.start_call::<M>(call, caller),
            Err(error) => {
                if let Some(caller) = caller {
                    // The caller may have gone.
                    let _ = caller.send(Err(error));
                }
            }
        }
    }
}
