//! The bridged mailbox: a handle to an actor is one type wherever the actor is.
//!
//! A message derives [`Remote`]; an interface is a list of messages ([`interface!`](crate::interface)); a [`Handle`] of
//! an interface sends them. Behind a handle stands either the actor's own mailbox or a [`Proxy`] actor whose link carries
//! the message to the process where the actor lives. A handle may be put into any message or reply: it arrives as a
//! working handle, and handed back to where it came from it is the original again.
//!
//! *Cancellation.* Dropping a [`Call`] cancels it, on the other side too: a request that has not started is not started, a
//! handler that returned a [`ReplyFuture`] has its future dropped.
//!
//! *When the host dies.* Every pending call ends with `HostLost`, which says how the process ended; later calls fail
//! the same way at once. A host that says nothing at all for five to seven seconds while somebody waits for it is killed
//! and counts as lost, which the error says.
//!
//! *When an actor ends.* A [`Watch`] of a handle says so and why, behind all the actor's replies. A handler that panics
//! answers its call with the panic's message and place, and only its actor ends. Both need the actor to run in our
//! [`Context`], which [`Handle::start`] does.
//!
//! *Credit.* So many messages may be on their way to an actor, and so many calls and bytes on a link; beyond that a message
//! waits in the future of its sender, first come, first served for each actor, and its deadline goes on. A slow actor slows
//! those who send to it, here as in another process. Requests that wait by design have room of their own, for 4096 to an actor
//! (over a link, for as many as there may be objects): so long they keep no others. A peer that exceeds what was agreed, or
//! says what makes no sense, ends its link.
//!
//! *What a peer may write.* A message is read to its last byte and not deeper than 128 values inside of each other, and has
//! no more list elements than bytes: see [`Remote`].

mod call;
mod context;
mod deferred;
mod delivery;
mod descriptor;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod handle;
mod interface;
mod life;
mod link;
mod mailbox;
mod nesting;
mod payload_port;
mod proxy;
mod recipient;
mod remote;
mod reply;
mod sample_memory;
mod scope;
mod table;
#[cfg(test)]
mod tests;
mod trace;
mod watch;

pub use call::Call;
pub use context::Context;
pub use deferred::Deferred;
pub(crate) use deferred::{Answerer, deferred};
pub use descriptor::FileDescriptor;
pub use handle::{AnyHandle, Handle, NoRoom};
#[doc(hidden)]
pub use interface::distinct;
pub use interface::{Has, Interface, ServedBy};
pub(crate) use link::Diagnose;
pub use link::{Heartbeat, Link, LinkBuilder, LinkLost, PeerState, PeerStates};
pub(crate) use payload_port::PayloadTerms;
pub use payload_port::{SampleMemory, SlotAllocator};
pub use proxy::Proxy;
pub use recipient::Slot;
pub use remote::{Remote, wire_id};
pub use reply::ReplyFuture;
pub use table::{InterfaceTable, MessageType};
pub use trace::{TraceContext, TraceSource};
pub use watch::Watch;

pub use portcullis_transport::{Endpoint, LinkLimits};
