//! The state of a link and what frames do to it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_engine::media::PayloadPort;
use portcullis_engine::{Error, ErrorKind, Result};
use portcullis_transport::{Agreed, Frame, FrameHeader, LinkSender, TransportError};
use tokio::sync::{Notify, watch};

use super::LinkLost;
use super::calls::Calls;
use super::objects::Objects;
use super::wire::kind;
use crate::bridge::payload_port::{Payloads, SlotAllocator};

static LINKS: AtomicU64 = AtomicU64::new(1);

/// A link's state. Lives on one arbiter.
pub(crate) struct LinkCore {
    pub(super) id: u64,
    pub(super) agreed: Agreed,
    pub(super) sender: LinkSender,
    pub(super) calls: RefCell<Calls>,
    pub(super) objects: RefCell<Objects>,
    pub(super) payloads: Rc<RefCell<Payloads>>,
    pub(super) sweep: Arc<Notify>,
    pub(super) credit: Rc<Notify>,
    pub(super) closing: Notify,
    outgoing_descriptors: RefCell<Vec<OwnedFd>>,
    incoming_descriptors: RefCell<Vec<Option<OwnedFd>>>,
    lost: watch::Sender<Option<Error>>,
    is_lost: Cell<bool>,
}

impl LinkCore {
    pub(super) fn new(sender: LinkSender, agreed: Agreed) -> Rc<Self> {
        let payloads = Payloads::new(sender.clone(), agreed.features);
        Rc::new(Self {
            id: LINKS.fetch_add(1, Ordering::Relaxed),
            agreed,
            sender,
            calls: RefCell::default(),
            objects: RefCell::default(),
            payloads: Rc::new(RefCell::new(payloads)),
            sweep: Arc::default(),
            credit: Rc::default(),
            closing: Notify::new(),
            outgoing_descriptors: RefCell::default(),
            incoming_descriptors: RefCell::default(),
            lost: watch::channel(None).0,
            is_lost: Cell::new(false),
        })
    }

    pub(crate) fn payload_port(&self) -> Rc<RefCell<dyn PayloadPort>> {
        Rc::clone(&self.payloads) as Rc<RefCell<dyn PayloadPort>>
    }

    pub(crate) fn attach_descriptor(&self, descriptor: OwnedFd) -> u32 {
        let mut descriptors = self.outgoing_descriptors.borrow_mut();
        descriptors.push(descriptor);
        descriptors.len() as u32 - 1
    }

    pub(crate) fn take_descriptor(&self, index: u32) -> Option<OwnedFd> {
        self.incoming_descriptors
            .borrow_mut()
            .get_mut(index as usize)?
            .take()
    }

    pub(super) fn take_outgoing_descriptors(&self) -> Vec<OwnedFd> {
        self.outgoing_descriptors.take()
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

    /// A future that waits until the link has room for another call, if it has none now.
    pub(crate) fn credit(self: &Rc<Self>) -> Option<impl Future<Output = ()> + 'static> {
        if self.has_credit() {
            return None;
        }
        let link = Rc::clone(self);
        Some(async move {
            while !link.has_credit() {
                let changed = link.credit.notified();
                tokio::select! {
                    () = changed => {}
                    // What is queued drains without a reply.
                    _ = link.sender.queued_at_most(link.agreed.limits.byte_window as usize) => {
                        if !link.has_credit() {
                            link.credit.notified().await;
                        }
                    }
                }
            }
        })
    }

    fn has_credit(&self) -> bool {
        self.is_lost()
            || (self.calls.borrow().in_flight() < self.agreed.limits.call_window as usize
                && self.sender.queued_bytes() <= self.agreed.limits.byte_window as usize)
    }

    /// One frame of the peer.
    pub(super) fn receive(self: &Rc<Self>, frame: Frame) -> Result<()> {
        let Frame {
            header,
            body,
            descriptors,
            ..
        } = frame;
        if header.kind == kind::SEGMENT {
            return self.payloads.borrow_mut().segment(&header, descriptors);
        }
        self.incoming_descriptors
            .replace(descriptors.into_iter().map(Some).collect());
        let outcome = match header.kind {
            kind::CALL => self.receive_call(&header, &body),
            kind::REPLY => self.receive_reply(&header, &body),
            kind::CANCEL => {
                self.calls.borrow_mut().cancel_inbound(header.call);
                Ok(())
            }
            kind::RELEASE => self.receive_release(&header),
            kind::SLOTS => self.payloads.borrow_mut().release(&body),
            unknown => Err(protocol(format!("frame kind {unknown}"))),
        };
        // What a message did not take is closed.
        self.incoming_descriptors.take();
        outcome
    }

    pub(super) fn push(
        &self,
        header: FrameHeader,
        body: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<()> {
        self.sender
            .push(header, &[body], descriptors)
            .map_err(|error| match error {
                TransportError::FrameTooLarge { len, max } => {
                    Error::limit("message bytes", max, len)
                }
                other => protocol(other.to_string()),
            })
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
        if let Err(error) = self.push(header, body, Vec::new()) {
            self.sender
                .abort(TransportError::protocol(error.to_string()));
        }
    }

    /// From now on calls fail; those in flight get `error` by [`LinkCore::fail`].
    pub(super) fn mark_lost(&self) {
        self.is_lost.set(true);
        self.credit.notify_waiters();
    }

    /// Ends every call and releases every object.
    pub(super) fn fail(&self, error: &Error) {
        self.mark_lost();
        self.lost.send_replace(Some(error.clone()));
        // Taken out first: completing a call or dropping an object may come back here.
        let calls = self.calls.take();
        calls.fail(error);
        drop(self.objects.take());
        self.payloads.borrow_mut().close();
        self.credit.notify_waiters();
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
