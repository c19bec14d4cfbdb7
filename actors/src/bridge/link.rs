//! A link between two processes, seen from the actors: calls in flight, exported and imported actors, payloads.
//!
//! One arbiter per side holds the link, its proxies and the exported actors, so nothing here is locked. Whatever comes from
//! the peer is checked as if an attacker had written it; a violation ends the link, never this process.

mod builder;
mod core;
mod death;
mod heartbeat;
mod incoming;
mod objects;
mod outgoing;
mod run;
mod untaken;
mod wire;

use std::fmt;
use std::sync::Arc;

use futures::future::LocalBoxFuture;
use portcullis_engine::{Error, Result};
use portcullis_transport::TransportError;
use tokio::sync::watch;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::core::Census;
pub(crate) use self::core::LinkCore;
pub use builder::LinkBuilder;
pub use heartbeat::{Heartbeat, PeerState, PeerStates};
pub(crate) use objects::WireHandle;
pub(crate) use outgoing::{Caller, Way};
pub(crate) use wire::kind;

use super::handle::Handle;
use super::interface::Interface;
use super::payload_port::SlotAllocator;

/// The application's id among the processes of a topology.
pub(crate) const APPLICATION: u64 = 0;

/// Makes a link's end into the error that pending calls get: for a host, how its process ended.
pub(crate) type Diagnose = Box<dyn FnOnce(TransportError) -> LocalBoxFuture<'static, Error>>;

/// A connected link. It ends when the peer goes, when either side breaks the protocol, or by [`Link::close`].
#[derive(Clone, Debug)]
pub struct Link {
    pub(super) core: std::rc::Rc<LinkCore>,
}

impl Link {
    /// Makes a link: see [`LinkBuilder`].
    pub fn builder() -> LinkBuilder {
        LinkBuilder::new()
    }

    /// The peer's first object.
    ///
    /// # Errors
    /// What ended the link.
    pub fn root<I: Interface>(&self) -> Result<Handle<I>> {
        self.core.import_root::<I>()
    }

    /// Process id that the peer claims.
    pub fn peer_pid(&self) -> u32 {
        self.core.peer_pid()
    }

    /// Memory for payloads that will cross this link.
    pub fn allocator(&self) -> Arc<SlotAllocator> {
        self.core.allocator()
    }

    /// Follows whether the peer answers.
    pub fn peer_states(&self) -> PeerStates {
        self.core.peer.borrow().states()
    }

    /// Watches for the link's end.
    pub fn lost(&self) -> LinkLost {
        self.core.lost_watch()
    }

    /// Ends the link: pending calls of both sides fail, exported actors are released.
    pub fn close(&self) {
        self.core.close();
    }
}

/// Resolves when a link has ended. May be sent to other threads.
#[derive(Clone)]
pub struct LinkLost(pub(crate) watch::Receiver<Option<Error>>);

impl LinkLost {
    /// Waits for the link's end and says what ended it.
    pub async fn wait(mut self) -> Error {
        match self.0.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or_else(Error::cancelled),
            Err(_) => Error::cancelled(),
        }
    }

    /// What ended the link, if it has ended.
    pub fn now(&self) -> Option<Error> {
        self.0.borrow().clone()
    }
}

impl fmt::Debug for LinkLost {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "LinkLost({:?})", self.now())
    }
}
