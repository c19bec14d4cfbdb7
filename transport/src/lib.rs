//! Portcullis transport: frames, shared memory, host processes.
//!
//! It carries bytes that it does not understand; what they mean is said one crate up.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
pub mod frame;
pub mod handshake;
pub mod host;
pub mod link;
pub mod pool;
mod sys;
mod wire;

#[cfg(test)]
mod testing;

pub use error::{PoolExhausted, TransportError};
pub use frame::{Frame, FrameDecoder, FrameHeader};
pub use handshake::{Agreed, Features, Hello, LinkLimits};
pub use host::{HostCommand, HostExit, HostProcess, HostProgram};
pub use link::{Endpoint, Link, LinkReceiver, LinkSender, LinkWriter};
pub use pool::{
    PeerPool, PeerPoolLimits, PeerTrust, Pool, PoolLimits, PoolNews, SlotMut, SlotRef, SlotRelease,
    SlotView,
};
