//! The actix actors of a pipeline and the bridged mailbox that makes them reachable from another process.
//!
//! [`bridge`] is the mailbox; [`pipeline`] has the actors; [`host`] is the other side of the wall. Users see them through
//! the `portcullis` facade.
//!
//! The mailbox is of use without any media. One actor, called from both sides of a process wall (with the facade the first
//! line is not needed; `examples/ping_pong.rs` is the same program with it):
//!
//! ```no_run
//! extern crate portcullis_actors as portcullis; // what the derive macro names
//!
//! use actix::{Actor, Handler};
//! use portcullis_actors::bridge::{Context, Handle, ReplyFuture};
//! use portcullis_actors::{Remote, host, interface, runtime};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, Remote)]
//! #[remote(reply = u32)]
//! struct Count(u32, Option<Handle<Counting>>); // counts down, by turns with the other one
//!
//! interface! { Counting = "example.Counting" { Count } }
//!
//! struct Counter;
//! impl Actor for Counter {
//!     type Context = Context<Self>;
//! }
//! impl Handler<Count> for Counter {
//!     type Result = ReplyFuture<u32>;
//!     fn handle(&mut self, Count(left, other): Count, _: &mut Self::Context) -> Self::Result {
//!         ReplyFuture::new(async move {
//!             match other {
//!                 Some(other) if left > 0 => other.send(Count(left - 1, None)).await,
//!                 _ => Ok(left),
//!             }
//!         })
//!     }
//! }
//!
//! fn main() -> portcullis_engine::Result<()> {
//!     host::init_actor(|| Handle::<Counting>::start(Counter)); // the other process serves here and never returns
//!     futures::executor::block_on(async {
//!         let there = host::Host::current().start_actor::<Counting>().await?;
//!         let here = runtime::run(|| async { Ok(Handle::<Counting>::start(Counter)) }).await?;
//!         assert_eq!(there.root().send(Count(2, Some(here))).await?, 1); // there, and from there back here
//!         Ok(())
//!     })
//! }
//! ```
#![forbid(unsafe_code)]

extern crate self as portcullis;

pub mod bridge;
pub mod client;
pub mod host;
pub mod interactive;
pub mod pipeline;
pub mod registry;
pub mod runtime;
pub mod system_time;

mod panics;
mod worker;

pub use portcullis_derive::{Component, Remote};

/// What the derive macros refer to. Not a public interface.
#[doc(hidden)]
pub mod __derive {
    pub use actix;
    pub use portcullis_engine::{Component, ComponentInfo, Error, Result, Subtype};

    pub use crate::bridge::{Remote, wire_id};
}
