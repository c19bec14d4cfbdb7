//! Making a link: what this side brings to it, and whether both sides fit.

use std::fmt;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use portcullis_engine::{Error, ErrorKind, Result, error};
use portcullis_transport::{
    Endpoint, Features, FrameHeader, FrameRef, Hello, HostExit, HostProcess, LinkLimits,
    TransportError,
};

use super::heartbeat::Heartbeat;
use super::{APPLICATION, Diagnose, Link, kind, run};
use crate::bridge::handle::{AnyHandle, Handle};
use crate::bridge::interface::Interface;
use crate::bridge::payload_port::PayloadTerms;
use crate::bridge::table::InterfaceTable;

/// How long the peer has to tell its interfaces.
const TABLE_DEADLINE: Duration = Duration::from_secs(2);

/// How long what an ended process sent last may take to be read.
const DRAIN_WAIT: Duration = Duration::from_millis(500);

/// The application gives each host that it connects a number of its own.
static HOSTS: AtomicU64 = AtomicU64::new(1);

/// What one side brings to a link. Both sides make one: one as it is, the other [`as_host`](Self::as_host).
///
/// ```
/// # use portcullis_actors::bridge::{Context, Endpoint, Handle, Link};
/// # use serde::{Deserialize, Serialize};
/// # extern crate portcullis_actors as portcullis;
/// #[derive(Serialize, Deserialize, portcullis_actors::Remote)]
/// #[remote(reply = u64)]
/// struct Double(u64);
///
/// portcullis_actors::interface! { Doubling = "example.Doubling" { Double } }
///
/// struct Doubler;
/// impl actix::Actor for Doubler {
///     type Context = Context<Self>;
/// }
/// impl actix::Handler<Double> for Doubler {
///     type Result = portcullis_engine::Result<u64>;
///     fn handle(&mut self, message: Double, _: &mut Self::Context) -> Self::Result {
///         Ok(message.0 * 2)
///     }
/// }
///
/// # actix_rt::System::new().block_on(async {
/// let (near, far) = Endpoint::memory_pair(64 << 10);
/// let doubler = Handle::<Doubling>::start(Doubler);
/// let (near, far) = futures::join!(
///     Link::builder().interface::<Doubling>().connect(near),
///     Link::builder().as_host().root(doubler).connect(far),
/// );
/// let doubler = near.unwrap().root::<Doubling>().unwrap();
/// assert_eq!(doubler.send(Double(21)).await, Ok(42));
/// # drop(far);
/// # });
/// ```
#[must_use = "a link is made by `connect`"]
pub struct LinkBuilder {
    host_id: u64,
    /// The number that the peer gets, if it is not just the next one.
    names_peer: Option<u64>,
    limits: LinkLimits,
    heartbeat: Heartbeat,
    table: InterfaceTable,
    root: Option<AnyHandle>,
    payloads: PayloadTerms,
    diagnose: Diagnose,
    process_ends: Option<BoxFuture<'static, HostExit>>,
}

impl LinkBuilder {
    pub(super) fn new() -> Self {
        Self {
            host_id: APPLICATION,
            names_peer: None,
            limits: LinkLimits::default(),
            heartbeat: Heartbeat::default(),
            table: InterfaceTable::new(),
            root: None,
            payloads: PayloadTerms::default(),
            diagnose: Box::new(|end| std::future::ready(why_ended(&end)).boxed_local()),
            process_ends: None,
        }
    }

    /// This side is the host: the other one gives it its number, watches it and decides when it counts as hung.
    pub fn as_host(mut self) -> Self {
        self.host_id = 1;
        self.heartbeat = Heartbeat::default().never_lost();
        self
    }

    /// What the peer finds as this side's first object, by [`Link::root`].
    pub fn root<I: Interface>(self, root: Handle<I>) -> Self {
        let mut this = self.interface::<I>();
        this.root = Some(root.into_any());
        this
    }

    /// This side calls or serves the interface: the peer must mean the same by it.
    pub fn interface<I: Interface>(mut self) -> Self {
        self.table.add::<I>();
        self
    }

    /// All interfaces of a table.
    pub fn interfaces(mut self, table: &InterfaceTable) -> Self {
        self.table = self.table.and(table);
        self
    }

    /// What bounds the link. Of each pair of limits the smaller is used: a side that leaves it to the other gives
    /// [`LinkLimits::MOST`].
    pub fn limits(mut self, limits: LinkLimits) -> Self {
        self.limits = limits;
        self
    }

    /// When a peer that does not answer is reported, and when it counts as lost.
    pub fn heartbeat(mut self, heartbeat: Heartbeat) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// The link leads to this process. It ends with the process, pending calls say how that ended, and the process is killed
    /// if it breaks the protocol or counts as hung.
    pub fn to_host(self, process: &Arc<HostProcess>) -> Self {
        let mut this = self.diagnose(crate::host::diagnose(process));
        this.process_ends = Some(process.exited().boxed());
        this
    }

    #[cfg(test)]
    pub(crate) fn names_peer(mut self, number: u64) -> Self {
        self.names_peer = Some(number);
        self
    }

    pub(crate) fn any_root(mut self, root: Option<AnyHandle>) -> Self {
        self.root = root;
        self
    }

    pub(crate) fn payloads(mut self, payloads: PayloadTerms) -> Self {
        if let Some(most) = payloads.most_mebibytes {
            self.limits.pool_mebibytes = most;
        }
        self.payloads = payloads;
        self
    }

    pub(crate) fn diagnose(mut self, diagnose: Diagnose) -> Self {
        self.diagnose = diagnose;
        self
    }

    /// Shakes hands over `endpoint` and runs the link on this arbiter until it ends.
    ///
    /// # Errors
    /// `InvalidRequest` where two of this side's types have one wire id; `Protocol`, which names what does not fit, an
    /// interface by its name; `HostLost` when the peer goes away.
    pub async fn connect(self, endpoint: Endpoint) -> Result<Link> {
        self.table.check()?;
        let host_id = self.host_id;
        let hello = Hello {
            features: Features::ALL,
            interface_table: self.table.hash(),
            limits: self.limits,
            host_id,
            names_peer: match (host_id, self.names_peer) {
                (APPLICATION, None) => HOSTS.fetch_add(1, Ordering::Relaxed),
                (APPLICATION, Some(number)) => number,
                _ => 0,
            },
        };
        let mut link = match endpoint.connect(hello).await {
            Ok(link) => link,
            Err(error @ TransportError::HandshakeMismatch { .. }) => {
                return Err(Error::new(ErrorKind::Protocol(error.to_string().into())));
            }
            Err(error) => return Err((self.diagnose)(error).await),
        };
        if link.agreed.host_id == link.agreed.peer_host_id {
            let both = format!("both sides are host {host_id}");
            return Err(Error::new(ErrorKind::Protocol(both.into())));
        }
        if link.agreed.peer_interface_table != hello.interface_table {
            let told = tokio::time::timeout(TABLE_DEADLINE, tell(&mut link, &self.table)).await;
            let told = told.unwrap_or_else(|_| {
                Err(TransportError::Timeout {
                    what: "the peer's interface table".into(),
                    after: TABLE_DEADLINE,
                })
            });
            match told {
                Ok(fits) => fits?,
                Err(error) => return Err((self.diagnose)(error).await),
            }
        }
        let terms = run::Terms {
            payloads: self.payloads,
            root: self.root,
            heartbeat: self.heartbeat,
            diagnose: self.diagnose,
        };
        let link = Link {
            core: run::start(link, terms),
        };
        if let Some(exited) = self.process_ends {
            actix_rt::spawn(close_after(exited, link.clone()));
        }
        Ok(link)
    }
}

impl fmt::Debug for LinkBuilder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "LinkBuilder({:?})", self.table)
    }
}

/// Tells the peer this side's interfaces and compares them with what the peer tells of its own.
async fn tell(
    link: &mut portcullis_transport::Link,
    table: &InterfaceTable,
) -> std::result::Result<Result<()>, TransportError> {
    let header = FrameHeader {
        kind: kind::TABLE,
        ..FrameHeader::default()
    };
    let body = postcard::to_allocvec(&table.listing())
        .map_err(|error| TransportError::protocol(error.to_string()))?;
    link.sender.push(header, &[&body], Vec::new())?;
    let mut fits = None;
    poll_fn(|cx| {
        // What breaks writing also ends reading, and what the peer said before is read first.
        let _ = Pin::new(&mut link.writer).poll(cx);
        if fits.is_none() {
            // What comes behind it is for the link that runs.
            ready!(link.receiver.poll_receive_each(cx, |frame| {
                fits = Some(compare(table, &frame));
                ControlFlow::Break(())
            }))?;
        }
        match link.sender.queued_bytes() {
            0 => Poll::Ready(Ok::<_, TransportError>(())),
            _ => Poll::Pending,
        }
    })
    .await?;
    let missing = || Err(Error::new(ErrorKind::Protocol("no interface table".into())));
    Ok(fits.unwrap_or_else(missing))
}

fn compare(table: &InterfaceTable, frame: &FrameRef<'_>) -> Result<()> {
    if frame.header.kind != kind::TABLE || !frame.descriptors.is_empty() {
        let what = format!("a frame of kind {} before the table", frame.header.kind);
        return Err(Error::new(ErrorKind::Protocol(what.into())));
    }
    table.compare(frame.body)
}

/// Ends the link when the process has ended, though another process may hold its socket.
async fn close_after(exited: BoxFuture<'static, HostExit>, link: Link) {
    let lost = link.lost();
    let ended = std::pin::pin!(lost.clone().wait());
    if let Either::Left(_) = select(exited, ended).await {
        // What it sent last is read first.
        if tokio::time::timeout(DRAIN_WAIT, lost.wait()).await.is_err() {
            link.close();
        }
    }
}

/// Why a link has ended of whose other end nothing is known.
fn why_ended(end: &TransportError) -> Error {
    match end {
        TransportError::Protocol { .. } => Error::new(ErrorKind::Protocol(end.to_string().into())),
        _ => Error::new(ErrorKind::HostLost(error::HostExit {
            last_words: vec![end.to_string()],
            ..error::HostExit::default()
        })),
    }
}
