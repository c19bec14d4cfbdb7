//! Portcullis transport: frames, shared memory, host processes.
//!
//! It carries bytes that it does not understand; what they mean is said one crate up. From the bottom:
//!
//! - [`frame`]: a fixed header, a body, perhaps descriptors; a decoder that no input can make panic or hoard.
//! - [`handshake`]: what both sides must agree on before the first frame.
//! - [`link`]: frames to and from one peer, over an inherited Unix socket, rings in shared memory, or any duplex stream.
//! - [`pool`]: samples in recycled shared memory, written by their owner, read-only for the peer.
//! - [`host`]: starting host processes and knowing how they ended.
//! - [`sandbox`]: what a host is kept from, layer by layer.
//!
//! Everything that comes from a peer is treated as if an attacker had written it. `unsafe` is only under `sys`.
//!
//! ```
//! use portcullis_transport::{Endpoint, FrameHeader, Hello};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # tokio::task::LocalSet::new().block_on(&runtime, async {
//! let (here, there) = Endpoint::unix_pair()?;
//! let (here, there) = tokio::join!(here.connect(Hello::default()), there.connect(Hello::default()));
//! let (here, mut there) = (here?, there?);
//!
//! tokio::task::spawn_local(here.writer);
//! let header = FrameHeader { kind: 7, ..FrameHeader::default() };
//! here.sender.push(header, &[b"a body ", b"in parts"], Vec::new())?;
//!
//! let mut frames = Vec::new();
//! there.receiver.receive(&mut frames).await?;
//! assert_eq!(frames[0].header.kind, 7);
//! assert_eq!(frames[0].body, "a body in parts");
//! # Ok::<(), portcullis_transport::TransportError>(())
//! # }).unwrap();
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod descriptor;
mod error;
pub mod frame;
pub mod handshake;
pub mod host;
pub mod link;
pub mod pool;
pub mod sandbox;
mod sys;
mod wire;

#[cfg(test)]
mod testing;

pub use descriptor::ReceivedFd;
pub use error::{LendRefused, PoolExhausted, TransportError};
pub use frame::{Frame, FrameDecoder, FrameHeader, FrameRef};
pub use handshake::{Agreed, Features, Hello, LinkLimits};
pub use host::{HostCommand, HostExit, HostImage, HostProcess, HostProgram, ImageSource};
pub use link::{Carrier, Endpoint, Link, LinkConfig, LinkReceiver, LinkSender, LinkWriter, Spin};
pub use pool::{
    Lender, LenderLimits, PeerPool, PeerPoolLimits, PeerTerms, Pool, PoolLimits, PoolNews, SlotMut,
    SlotRef, SlotRelease, SlotView,
};
pub use sandbox::{
    HostQuotas, Isolation, Layer, LayerSet, LayerState, Sandbox, SandboxPolicy, SandboxProfile,
};
pub use sys::mapping::TrustedPeer;
