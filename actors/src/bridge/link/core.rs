//! The state of a link and what frames do to it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_engine::media::PayloadPort;
use portcullis_engine::{Error, ErrorKind, Result};
use portcullis_transport::{
    Agreed, Features, FrameHeader, FrameRef, LinkSender, ReceivedFd, SlotRef, TransportError,
};
use tokio::sync::{Notify, watch};

use super::LinkLost;
use super::death::Vigils;
use super::heartbeat::Peer;
use super::incoming::{Incoming, Woken};
use super::objects::{ExportRef, Objects};
use super::outgoing::Outgoing;
use super::untaken::Untaken;
use super::wire::{FLAG_CANCELLED, FLAG_ERROR, kind};
use crate::bridge::gate::Lines;
use crate::bridge::payload_port::{Memory, Needs, PayloadTerms, Payloads, SlotAllocator};
use crate::bridge::scope;

/// Memory of a large message is given back.
const KEPT_CAPACITY: usize = 64 << 10;

static LINKS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// The links of this thread, each at its place.
    static HERE: RefCell<Vec<Weak<LinkCore>>> = const { RefCell::new(Vec::new()) };
}

/// A link's state. Lives on one arbiter.
pub(crate) struct LinkCore {
    pub(super) id: u64,
    pub(in crate::bridge) agreed: Agreed,
    pub(super) sender: LinkSender,
    pub(super) outgoing: RefCell<Outgoing>,
    pub(super) incoming: RefCell<Incoming>,
    pub(super) woken: Arc<Woken>,
    pub(super) objects: RefCell<Objects>,
    pub(super) payloads: Rc<RefCell<Payloads>>,
    pub(super) sweep: Arc<Notify>,
    /// Calls that wait for their places.
    pub(super) lines: Arc<Lines>,
    /// Among the links of this thread.
    pub(super) place: Cell<usize>,
    pub(super) closing: Notify,
    pub(super) peer: RefCell<Peer>,
    pub(super) vigils: RefCell<Vigils>,
    /// An answer that was there is on its way.
    pub(super) answered: Notify,
    /// For the next message that is encoded.
    scratch: Cell<Vec<u8>>,
    outgoing_descriptors: RefCell<Vec<OwnedFd>>,
    incoming_descriptors: RefCell<Vec<Option<ReceivedFd>>>,
    /// Descriptors of the peer that no message took.
    pub(super) untaken: Untaken,
    lost: watch::Sender<Option<Error>>,
    is_lost: Cell<bool>,
}

/// What a link holds.
#[cfg(any(test, feature = "fuzzing"))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) outgoing: usize,
    pub(crate) incoming: usize,
    pub(crate) exports: usize,
    pub(crate) imports: usize,
    /// Slots that the peer has.
    pub(crate) leased: usize,
}

/// A message in the form in which it crosses, with what it has taken to cross.
#[derive(Debug)]
pub(super) struct Encoded {
    body: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    exports: Vec<ExportRef>,
    leases: Vec<SlotRef>,
}

impl Encoded {
    pub(super) fn len(&self) -> usize {
        self.body.len()
    }
}

/// Why a message has no form in which it crosses.
#[derive(Debug)]
pub(super) enum Unencoded {
    /// There is no room now for what it needs.
    NoRoom(Needs),
    /// It cannot cross.
    Failed(String),
}

/// What has become of a frame.
#[derive(Debug)]
pub(super) enum Pushed {
    /// It is on its way.
    Done,
    /// It cannot cross; what it has taken is given back.
    Refused(Error),
    /// The link has ended: the cause follows.
    Ended,
}

impl LinkCore {
    pub(super) fn new(sender: LinkSender, agreed: Agreed, terms: PayloadTerms) -> Rc<Self> {
        let payloads = Payloads::new(sender.clone(), &agreed, terms);
        let sweep = Arc::default();
        let link = Rc::new(Self {
            id: LINKS.fetch_add(1, Ordering::Relaxed),
            agreed,
            sender,
            outgoing: RefCell::default(),
            incoming: RefCell::default(),
            woken: Arc::default(),
            objects: RefCell::default(),
            payloads: Rc::new(RefCell::new(payloads)),
            lines: Lines::new(Arc::clone(&sweep)),
            place: Cell::new(0),
            sweep,
            closing: Notify::new(),
            peer: RefCell::new(Peer::new()),
            vigils: RefCell::default(),
            answered: Notify::new(),
            scratch: Cell::default(),
            outgoing_descriptors: RefCell::default(),
            incoming_descriptors: RefCell::default(),
            untaken: Untaken::default(),
            lost: watch::channel(None).0,
            is_lost: Cell::new(false),
        });
        link.settle();
        link
    }

    /// Takes a place among the links of this thread.
    fn settle(self: &Rc<Self>) {
        HERE.with_borrow_mut(|links| {
            let free = links.iter().position(|link| link.strong_count() == 0);
            let place = free.unwrap_or(links.len());
            match links.get_mut(place) {
                Some(free) => *free = Rc::downgrade(self),
                None => links.push(Rc::downgrade(self)),
            }
            self.place.set(place);
        });
    }

    /// The link at a place of this thread, if it is this one.
    pub(crate) fn here(place: usize, id: u64) -> Option<Rc<Self>> {
        let link = HERE.with_borrow(|links| links.get(place).and_then(Weak::upgrade));
        link.filter(|link| link.id == id)
    }

    pub(crate) fn payload_port(&self) -> Rc<RefCell<dyn PayloadPort>> {
        Rc::clone(&self.payloads) as Rc<RefCell<dyn PayloadPort>>
    }

    pub(crate) fn attach_descriptor(&self, descriptor: OwnedFd) -> Result<u32, &'static str> {
        if !self.agreed.features.contains(Features::DESCRIPTORS) {
            return Err("this link carries no descriptors");
        }
        let mut descriptors = self.outgoing_descriptors.borrow_mut();
        let index = u32::try_from(descriptors.len()).map_err(|_| "too many descriptors")?;
        descriptors.push(descriptor);
        Ok(index)
    }

    pub(crate) fn take_descriptor(&self, index: u32) -> Option<ReceivedFd> {
        self.incoming_descriptors
            .borrow_mut()
            .get_mut(index as usize)?
            .take()
    }

    pub(super) fn allocator(&self) -> Arc<SlotAllocator> {
        self.payloads.borrow().allocator()
    }

    pub(super) fn peer_pid(&self) -> u32 {
        self.agreed.peer_pid
    }

    pub(super) fn lost_watch(&self) -> LinkLost {
        LinkLost(self.lost.subscribe())
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.get()
    }

    /// What ended the link, or `Ok` while it stands.
    pub(super) fn check(&self) -> Result<()> {
        match &*self.lost.borrow() {
            Some(error) => Err(error.clone()),
            // Its end is known and the cause is still being found out: the caller waits for the cause by `lost`.
            None => Ok(()),
        }
    }

    pub(super) fn close(&self) {
        self.closing.notify_one();
    }

    /// Runs `write` as the encoding of one message; on failure what it has taken is given back.
    pub(super) fn encode(
        self: &Rc<Self>,
        memory: Memory,
        write: impl FnOnce(Vec<u8>) -> postcard::Result<Vec<u8>>,
    ) -> Result<Encoded, Unencoded> {
        self.payloads.borrow_mut().begin_encoding(memory);
        // The user's own code writes the message: its panic is that message's error.
        let body = catch_unwind(AssertUnwindSafe(|| {
            let mut into = self.scratch.take();
            into.clear();
            scope::enter(self, || write(into))
        }));
        let (leases, missing) = self.payloads.borrow_mut().end_encoding();
        let mut encoded = Encoded {
            body: Vec::new(),
            descriptors: self.outgoing_descriptors.take(),
            exports: self.objects.borrow_mut().take_encoding(),
            leases,
        };
        let failure = match (body, missing) {
            (Ok(Ok(body)), None) => {
                encoded.body = body;
                return Ok(encoded);
            }
            (Ok(Ok(_)), Some(needs)) => Unencoded::NoRoom(needs),
            (Ok(Err(error)), _) => Unencoded::Failed(scope::reason(&error)),
            (Err(_), _) => Unencoded::Failed("writing it panicked".into()),
        };
        self.undo(encoded);
        Err(failure)
    }

    /// Gives back what a message has taken that will not cross.
    pub(super) fn undo(&self, encoded: Encoded) {
        self.take_back(encoded.exports);
        self.payloads.borrow_mut().undo(encoded.leases);
    }

    /// Pushes a frame whose body is `prefix` and the message.
    pub(super) fn push(&self, header: FrameHeader, prefix: &[u8], encoded: Encoded) -> Pushed {
        let Encoded {
            body,
            descriptors,
            exports,
            leases,
        } = encoded;
        let pushed = self.sender.push(header, &[prefix, &body], descriptors);
        self.recycle(body);
        let error = match pushed {
            Ok(()) => return Pushed::Done,
            Err(TransportError::FrameTooLarge { len, max }) => {
                Error::limit("message bytes", max, len)
            }
            Err(TransportError::TooManyDescriptors { count, max }) => {
                Error::limit("descriptors of a message", max as u64, count as u64)
            }
            Err(TransportError::QueueFull { queued, max }) => Error::limit(
                "bytes that wait for a peer that does not read",
                max as u64,
                queued as u64,
            ),
            Err(_) => return Pushed::Ended,
        };
        self.take_back(exports);
        self.payloads.borrow_mut().undo(leases);
        Pushed::Refused(error)
    }

    /// Keeps a message's memory for the next one.
    fn recycle(&self, body: Vec<u8>) {
        if body.capacity() <= KEPT_CAPACITY {
            self.scratch.set(body);
        }
    }

    /// Bytes of the slots from which it lends.
    #[cfg(test)]
    pub(crate) fn mapped_bytes(&self) -> usize {
        self.payloads.borrow().mapped_bytes()
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn census(&self) -> Census {
        let (exports, imports) = self.objects.borrow().len();
        Census {
            outgoing: self.outgoing.borrow().len(),
            incoming: self.incoming.borrow().len(),
            exports,
            imports,
            leased: self.payloads.borrow().leased(),
        }
    }

    #[cfg(test)]
    pub(crate) fn untaken(&self) -> usize {
        self.untaken.count()
    }

    #[cfg(test)]
    pub(crate) fn vigils(&self) -> usize {
        self.vigils.borrow().len()
    }

    /// One frame of the peer.
    pub(super) fn receive(self: &Rc<Self>, frame: FrameRef<'_>) -> Result<()> {
        let FrameRef {
            header,
            body,
            descriptors,
            ..
        } = frame;
        let carries = match header.kind {
            kind::CALL | kind::SEGMENT => true,
            kind::REPLY => header.flags & (FLAG_ERROR | FLAG_CANCELLED) == 0,
            _ => false,
        };
        if !carries && !descriptors.is_empty() {
            return Err(protocol(format!(
                "descriptors with a frame of kind {}",
                header.kind
            )));
        }
        if header.kind == kind::SEGMENT {
            return self.payloads.borrow_mut().segment(&header, descriptors);
        }
        if !descriptors.is_empty() {
            self.incoming_descriptors
                .replace(descriptors.into_iter().map(Some).collect());
        }
        let outcome = match header.kind {
            kind::CALL => self.receive_call(&header, body),
            kind::REPLY => self.receive_reply(&header, body),
            kind::CANCEL => {
                self.receive_cancel(header.call);
                Ok(())
            }
            kind::PING => {
                let pong = FrameHeader {
                    kind: kind::PONG,
                    ..FrameHeader::default()
                };
                self.push_control(pong, &[]);
                Ok(())
            }
            kind::PONG => Ok(()),
            kind::DEATH => self.receive_death(&header, body),
            kind::RELEASE => self.receive_release(&header),
            kind::SLOTS => self.payloads.borrow_mut().release(body),
            unknown => Err(protocol(format!("frame kind {unknown}"))),
        };
        self.untaken.close(self.incoming_descriptors.take());
        outcome
    }

    /// Tells the peer which of its slots nobody here looks at any more.
    pub(super) fn give_back_slots(&self) {
        if let Some(body) = self.payloads.borrow_mut().take_releases() {
            let header = FrameHeader {
                kind: kind::SLOTS,
                ..FrameHeader::default()
            };
            self.push_control(header, &body);
        }
    }

    /// Pushes a frame that nobody waits for. It fails only when the link has ended or the peer does not read at all.
    pub(super) fn push_control(&self, header: FrameHeader, body: &[u8]) {
        if let Err(error) = self.sender.push(header, &[body], Vec::new()) {
            self.sender
                .abort(TransportError::protocol(error.to_string()));
        }
    }

    /// From now on calls fail; those in flight get `error` by [`LinkCore::fail`].
    pub(super) fn mark_lost(&self) {
        self.is_lost.set(true);
    }

    /// Ends every call and releases every object.
    pub(super) fn fail(&self, error: &Error) {
        self.mark_lost();
        self.lost.send_replace(Some(error.clone()));
        self.peer.borrow_mut().lose();
        // Taken out first: completing a call or dropping an object may come back here.
        drop(self.incoming.take());
        self.outgoing.take().fail(error);
        let objects = self.objects.take();
        objects.end_imports(error);
        self.vigils.take().end(error);
        drop(objects);
        self.payloads.borrow_mut().close();
    }
}

impl fmt::Debug for LinkCore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Link({} to process {})", self.id, self.agreed.peer_pid)
    }
}

pub(super) fn protocol(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Protocol(what.into()))
}
