//! The actix actors of a pipeline and the bridged mailbox that makes them reachable from another process.
//!
//! [`bridge`] is the mailbox; [`pipeline`] has the actors; [`host`] is the other side of the wall. Users see them through
//! the `portcullis` facade.
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
