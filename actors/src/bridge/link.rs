//! A link between two processes, seen from the actors: calls in flight, exported and imported actors, payloads.
//!
//! One arbiter per side holds the link, its proxies and the exported actors, so nothing here is locked. Whatever comes from
//! the peer is checked as if an attacker had written it; a violation ends the link, never this process.

mod core;
mod death;
mod incoming;
mod objects;
mod outgoing;
mod run;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::LocalBoxFuture;
use portcullis_engine::{Error, ErrorKind, Result};
use portcullis_transport::{Endpoint, Features, Hello, LinkLimits, TransportError};
use tokio::sync::watch;

#[cfg(test)]
pub(crate) use self::core::Census;
pub(crate) use self::core::LinkCore;
pub(crate) use objects::WireHandle;
pub(crate) use wire::kind;

use super::handle::Handle;
use super::interface::Interface;
use super::payload_port::{PayloadTerms, SlotAllocator};

/// The application's id among the processes of a topology.
pub(crate) const APPLICATION: u64 = 0;

/// The application gives each host that it connects a number of its own.
static HOSTS: AtomicU64 = AtomicU64::new(1);

/// Makes a link's end into the error that pending calls get: for a host, how its process ended.
pub(crate) type Diagnose = Box<dyn FnOnce(TransportError) -> LocalBoxFuture<'static, Error>>;

/// A connected link. It ends when the peer goes, when either side breaks the protocol, or by [`Link::close`].
#[derive(Clone, Debug)]
pub struct Link {
    pub(super) core: std::rc::Rc<LinkCore>,
}

impl Link {
    /// Shakes hands over `endpoint` and runs the link on this arbiter until it ends.
    ///
    /// `terms` say how its payloads are kept, `root` is what the peer finds as this side's first object, `diagnose` turns the
    /// link's end into an error.
    ///
    /// # Errors
    /// `Protocol` when the sides do not fit, `HostLost` when the peer goes away.
    pub(crate) async fn connect(
        endpoint: Endpoint,
        host_id: u64,
        terms: PayloadTerms,
        root: Option<super::AnyHandle>,
        diagnose: Diagnose,
    ) -> Result<Self> {
        let hello = Hello {
            features: Features::ALL,
            interface_table: crate::pipeline::interface_table(),
            limits: LinkLimits {
                max_frame: 16 << 20,
                ..LinkLimits::default()
            },
            host_id,
            names_peer: match host_id {
                APPLICATION => HOSTS.fetch_add(1, Ordering::Relaxed),
                _ => 0,
            },
        };
        match endpoint.connect(hello).await {
            Ok(link) if link.agreed.host_id == link.agreed.peer_host_id => Err(Error::new(
                ErrorKind::Protocol(format!("both sides are host {host_id}").into()),
            )),
            Ok(link) => Ok(Self {
                // The application watches its hosts, and not the other way round: it may stand in a debugger.
                core: run::start(link, terms, root, host_id == APPLICATION, diagnose),
            }),
            Err(error @ TransportError::HandshakeMismatch { .. }) => {
                Err(Error::new(ErrorKind::Protocol(error.to_string().into())))
            }
            Err(error) => Err(diagnose(error).await),
        }
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
