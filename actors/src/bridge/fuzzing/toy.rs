//! An actor with a message of each sort that crosses a link.

use std::cell::Cell;

use actix::{Actor, ActorContext, Handler};
use portcullis_derive::Remote;
use portcullis_engine::{Result, Sample};
use serde::{Deserialize, Serialize};

use crate::bridge::{Context, Handle, ReplyFuture};

crate::interface! { pub(super) Toy = "fuzz.Toy" { Echo, Wait, Swap, Show, Many, Stop } }

/// Bytes there and back.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Vec<u8>)]
pub(super) struct Echo(pub(super) Vec<u8>);

/// Waits for ever.
#[derive(Serialize, Deserialize, Remote)]
#[remote(no_deadline)]
pub(super) struct Wait;

/// Gives a handle and takes the one before it.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Option<Handle<Toy>>)]
pub(super) struct Swap(pub(super) Option<Handle<Toy>>);

/// A sample there and back.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Sample)]
pub(super) struct Show(pub(super) Sample);

/// Handles there and back.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Vec<Handle<Toy>>)]
pub(super) struct Many(pub(super) Vec<Handle<Toy>>);

/// The end of the actor.
#[derive(Serialize, Deserialize, Remote)]
pub(super) struct Stop;

thread_local! {
    static ALIVE: Cell<usize> = const { Cell::new(0) };
}

pub(super) struct ToyActor {
    kept: Option<Handle<Toy>>,
}

impl ToyActor {
    pub(super) fn new() -> Self {
        ALIVE.set(ALIVE.get() + 1);
        Self { kept: None }
    }

    /// How many of this thread live.
    pub(super) fn alive() -> usize {
        ALIVE.get()
    }
}

impl Drop for ToyActor {
    fn drop(&mut self) {
        ALIVE.set(ALIVE.get() - 1);
    }
}

impl Actor for ToyActor {
    type Context = Context<Self>;
}

impl Handler<Echo> for ToyActor {
    type Result = Result<Vec<u8>>;

    fn handle(&mut self, message: Echo, _: &mut Self::Context) -> Self::Result {
        Ok(message.0)
    }
}

impl Handler<Wait> for ToyActor {
    type Result = ReplyFuture<()>;

    fn handle(&mut self, _: Wait, _: &mut Self::Context) -> Self::Result {
        ReplyFuture::new(std::future::pending())
    }
}

impl Handler<Swap> for ToyActor {
    type Result = Result<Option<Handle<Toy>>>;

    fn handle(&mut self, message: Swap, _: &mut Self::Context) -> Self::Result {
        // None keeps nothing: two toys that keep each other would live for ever.
        let given = message.0.filter(Handle::is_remote);
        Ok(std::mem::replace(&mut self.kept, given))
    }
}

impl Handler<Show> for ToyActor {
    type Result = Result<Sample>;

    fn handle(&mut self, message: Show, _: &mut Self::Context) -> Self::Result {
        Ok(message.0)
    }
}

impl Handler<Many> for ToyActor {
    type Result = Result<Vec<Handle<Toy>>>;

    fn handle(&mut self, message: Many, _: &mut Self::Context) -> Self::Result {
        Ok(message.0)
    }
}

impl Handler<Stop> for ToyActor {
    type Result = Result<()>;

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) -> Self::Result {
        ctx.stop();
        Ok(())
    }
}
