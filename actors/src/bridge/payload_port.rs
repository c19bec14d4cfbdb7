//! Payloads on a link: small ones inside of the message, large ones as slots of a shared pool.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use portcullis_engine::media::{AllocationRequirements, PayloadPort, PayloadRef, WritableMemory};
use portcullis_engine::{
    Error, ErrorKind, Payload, Result, SampleAllocator, SampleBuffer, SharedView,
};
use portcullis_transport::{
    Agreed, Features, FrameHeader, LendRefused, Lender, LenderLimits, LinkSender, PeerPool,
    PeerPoolLimits, PeerTerms, Pool, PoolLimits, PoolNews, ReceivedFd, SlotMut, SlotRef,
    SlotRelease, SlotView, TransportError, TrustedPeer,
};
use tokio::sync::watch;

use super::link::{APPLICATION, kind};
use super::scope;

pub use super::sample_memory::SampleMemory;

/// A payload up to this size travels inside of its message: cheaper than a slot and its release.
const INLINE: usize = 2 << 10;

/// How a link's payloads are kept, where that is not for itself alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PayloadTerms {
    /// The memory that this link's peer shares with others.
    pub(crate) memory: Option<SampleMemory>,
    /// What the peer lends it leaves as it is.
    pub(crate) trust: Option<TrustedPeer>,
    /// Mebibytes of slots each way, where it is not the default.
    pub(crate) most_mebibytes: Option<u32>,
}

/// Payloads of one link.
pub(crate) struct Payloads {
    sender: LinkSender,
    lender: Option<Lender>,
    peer: PeerPool,
    /// Whether the peer is a host: then it relies on nothing of ours once the link has ended.
    peer_is_host: bool,
    /// Counts how often the peer has given something back.
    given_back: watch::Sender<u64>,
    /// The message being encoded.
    encoding: Encoding,
}

/// What a message waits for that found no room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    /// Slots of these lengths, all together.
    slots: Vec<usize>,
    /// That the peer gives something back: it has all that it may have.
    peer: bool,
}

/// Where a message's payloads may go.
#[derive(Debug)]
pub(crate) enum Memory {
    /// Slots that are free just now.
    Free,
    /// Slots that were taken for it.
    Reserved(Vec<SlotMut>),
    /// No slot is to come: what finds none goes inside of the message.
    Inside,
}

#[derive(Default)]
struct Encoding {
    /// Leases that the message has taken, to be undone if it does not cross.
    leases: Vec<SlotRef>,
    needs: Needs,
    /// Not all of them were there.
    is_short: bool,
    reserved: Vec<SlotMut>,
    may_go_inside: bool,
}

impl Payloads {
    pub(crate) fn new(sender: LinkSender, agreed: &Agreed, terms: PayloadTerms) -> Self {
        let PayloadTerms { memory, trust, .. } = terms;
        let most = PoolLimits::from(agreed.limits).max_bytes as u64;
        let lender = match &memory {
            None => {
                let pool = Pool::new(PoolLimits::from(agreed.limits));
                Lender::new(pool, LenderLimits::alone(most))
            }
            Some(memory) => {
                let limits = LenderLimits::beside_others(most, memory.pool());
                Lender::new(memory.pool().clone(), limits)
            }
        };
        let lender = agreed
            .features
            .contains(Features::SHARED_MEMORY.union(Features::DESCRIPTORS))
            .then_some(lender);
        let beside = memory.map(|memory| memory.pool().clone());
        let terms = PeerTerms { beside, trust };
        Self {
            sender,
            lender,
            peer: PeerPool::on_terms(PeerPoolLimits::from(agreed.limits), terms),
            peer_is_host: agreed.host_id == APPLICATION,
            given_back: watch::Sender::new(0),
            encoding: Encoding::default(),
        }
    }

    pub(crate) fn allocator(&self) -> Arc<SlotAllocator> {
        let pool = self.lender.as_ref().map(|lender| lender.pool().clone());
        Arc::new(SlotAllocator { pool })
    }

    /// Slots that the peer has.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn leased(&self) -> usize {
        self.lender.as_ref().map_or(0, Lender::lent)
    }

    /// Bytes of the slots from which it lends.
    #[cfg(test)]
    pub(crate) fn mapped_bytes(&self) -> usize {
        let pool = self.lender.as_ref().map(Lender::pool);
        pool.map_or(0, |pool| pool.usage().mapped_bytes)
    }

    pub(crate) fn peer(&self) -> PeerPool {
        self.peer.clone()
    }

    /// The peer has a new segment of slots, or one less.
    pub(crate) fn segment(
        &mut self,
        header: &FrameHeader,
        mut descriptors: Vec<ReceivedFd>,
    ) -> Result<()> {
        let broken = |what: String| Err(Error::new(ErrorKind::Protocol(what.into())));
        if self.lender.is_none() {
            return broken("a pool segment on a link without shared memory".into());
        }
        let outcome = match (descriptors.len(), u32::try_from(header.call)) {
            (1, Ok(slot_size)) => descriptors.pop().map_or(Ok(()), |descriptor| {
                self.peer
                    .add_segment(header.object, slot_size, header.method, descriptor)
            }),
            (0, Ok(0)) if header.method == 0 => self.peer.retire_segment(header.object),
            (count, _) => {
                return broken(format!(
                    "pool segment {} of {} slots of {} bytes with {count} descriptors",
                    header.object, header.method, header.call
                ));
            }
        };
        outcome.or_else(|error| broken(error.to_string()))
    }

    /// The peer gives slots back.
    pub(crate) fn release(&mut self, body: &[u8]) -> Result<()> {
        let broken = |what: String| Error::new(ErrorKind::Protocol(what.into()));
        let (Some(lender), true) = (&mut self.lender, body.len().is_multiple_of(16)) else {
            return Err(broken("a malformed release of slots".into()));
        };
        for record in body.chunks_exact(16) {
            let word = |at: usize| {
                let mut word = [0; 4];
                word.copy_from_slice(&record[at..at + 4]);
                u32::from_le_bytes(word)
            };
            let release = SlotRelease {
                segment: word(0),
                slot: word(4),
                generation: word(8),
                count: word(12),
            };
            lender
                .release(release)
                .map_err(|error| broken(error.to_string()))?;
        }
        self.given_back.send_modify(|times| *times += 1);
        Ok(())
    }

    /// Slots of the peer that nobody here looks at any more, in the form in which it is told.
    pub(crate) fn take_releases(&mut self) -> Option<Vec<u8>> {
        let mut releases = Vec::new();
        self.peer.take_releases(&mut releases);
        if releases.is_empty() {
            return None;
        }
        let mut body = Vec::with_capacity(releases.len() * 16);
        for release in releases {
            for word in [
                release.segment,
                release.slot,
                release.generation,
                release.count,
            ] {
                body.extend_from_slice(&word.to_le_bytes());
            }
        }
        Some(body)
    }

    /// Resolves when there may be room for what a message needs, or when it is certain that there will be none.
    pub(crate) fn room(&self, needs: &Needs) -> impl Future<Output = Memory> + use<> {
        let pool = self.lender.as_ref().map(|lender| lender.pool().clone());
        // From now on: nothing that the peer gives back until this is first polled is missed.
        let mut given_back = self.given_back.subscribe();
        let Needs { slots, peer } = needs.clone();
        async move {
            let Some(pool) = pool else {
                return Memory::Inside;
            };
            if peer {
                // It fails only when the link has ended.
                let _ = given_back.changed().await;
                return Memory::Free;
            }
            match pool.allocate_all_when_lent(&slots).await {
                Ok(slots) => Memory::Reserved(slots),
                Err(error) => {
                    tracing::debug!(%error, "payloads go inside of their message");
                    Memory::Inside
                }
            }
        }
    }

    pub(crate) fn begin_encoding(&mut self, memory: Memory) {
        self.encoding = Encoding::default();
        match memory {
            Memory::Free => {}
            Memory::Reserved(slots) => self.encoding.reserved = slots,
            Memory::Inside => self.encoding.may_go_inside = true,
        }
    }

    /// Leases that the message has taken and, if slots were missing, all that it needs.
    pub(crate) fn end_encoding(&mut self) -> (Vec<SlotRef>, Option<Needs>) {
        let encoding = std::mem::take(&mut self.encoding);
        (encoding.leases, encoding.is_short.then_some(encoding.needs))
    }

    /// Takes leases back that were not sent after all.
    pub(crate) fn undo(&mut self, leases: Vec<SlotRef>) {
        let Some(lender) = &mut self.lender else {
            return;
        };
        for lease in leases {
            let release = SlotRelease {
                segment: lease.segment,
                slot: lease.slot,
                generation: lease.generation,
                count: 1,
            };
            if let Err(error) = lender.release(release) {
                tracing::error!(%error, "a lease that was just taken cannot be undone");
            }
        }
    }

    /// The link has ended. What a host had of our slots is free again, for it sees only what is written there later, if it
    /// lives at all. An application may rely on what it was lent for as long as it lives ([`TrustedPeer`]), and a host ends
    /// with its link: there nothing is taken back.
    pub(crate) fn close(&mut self) {
        if let Some(mut lender) = self.lender.take()
            && self.peer_is_host
        {
            lender.revoke_all();
        }
        // Unmapped with the last view of it.
        self.peer = PeerPool::new(PeerPoolLimits::default());
    }

    /// Lends the slot in which a payload lies already; `None` if it must be copied into one.
    fn lend(lender: &mut Lender, payload: &Payload) -> Result<Option<SlotRef>, LendRefused> {
        match payload {
            Payload::Bytes(bytes) => lender.lease(bytes),
            Payload::View(view) => {
                let view: &dyn Any = &**view;
                match view.downcast_ref::<View>() {
                    Some(View(slot)) => lender.forward(slot),
                    None => Ok(None),
                }
            }
        }
    }

    /// The peer may have no more now: the message waits for what it gives back, or goes without.
    fn refused(&mut self, refused: &LendRefused, payload: &Payload) -> PayloadRef {
        if self.encoding.may_go_inside || !refused.transient {
            tracing::debug!(%refused, "a payload goes inside of its message");
            return PayloadRef::Inline(payload.to_bytes());
        }
        self.encoding.is_short = true;
        self.encoding.needs.peer = true;
        PayloadRef::Inline(Bytes::new())
    }

    fn lease(&mut self, payload: &Payload) -> Result<PayloadRef, String> {
        let Some(lender) = &mut self.lender else {
            return Ok(PayloadRef::Inline(payload.to_bytes()));
        };
        let lease = match Self::lend(lender, payload) {
            Ok(Some(lease)) => lease,
            Err(refused) => return Ok(self.refused(&refused, payload)),
            Ok(None) => {
                let encoding = &mut self.encoding;
                encoding.needs.slots.push(payload.len());
                let mut reserved = encoding.reserved.iter();
                let slot = match reserved.position(|slot| slot.len() == payload.len()) {
                    Some(at) => Some(encoding.reserved.swap_remove(at)),
                    // A message that is short will be encoded again: from here on its needs are only noted.
                    None if encoding.is_short => None,
                    None => lender.pool().allocate(payload.len()).ok(),
                };
                let Some(mut slot) = slot else {
                    if encoding.may_go_inside {
                        return Ok(PayloadRef::Inline(payload.to_bytes()));
                    }
                    encoding.is_short = true;
                    return Ok(PayloadRef::Inline(Bytes::new()));
                };
                match payload {
                    Payload::Bytes(bytes) => slot.copy_from_slice(bytes),
                    Payload::View(view) => view.copy_to(&mut slot),
                }
                match lender.lease(&slot.freeze()) {
                    Ok(lease) => lease.ok_or("a slot outside of its pool")?,
                    Err(refused) => return Ok(self.refused(&refused, payload)),
                }
            }
        };
        self.encoding.leases.push(lease);
        self.announce().map_err(|error| error.to_string())?;
        Ok(PayloadRef::Slot([
            lease.segment,
            lease.slot,
            lease.generation,
            lease.offset,
            lease.len,
        ]))
    }

    /// Tells the peer of segments that it does not know yet; in front of the message that refers to them.
    fn announce(&mut self) -> Result<(), TransportError> {
        let Some(lender) = self.lender.as_mut().filter(|lender| lender.has_news()) else {
            return Ok(());
        };
        for news in lender.take_news() {
            let mut header = FrameHeader {
                kind: kind::SEGMENT,
                ..FrameHeader::default()
            };
            let mut descriptors = Vec::new();
            match news {
                PoolNews::Added {
                    segment,
                    slot_size,
                    slots,
                    descriptor,
                } => {
                    header.object = segment;
                    header.call = u64::from(slot_size);
                    header.method = slots;
                    descriptors.push(descriptor);
                }
                PoolNews::Retired { segment } => header.object = segment,
                _ => continue,
            }
            if let Err(error) = self.sender.push(header, &[], descriptors) {
                // What the peer has not been told now it will never know: the link is of no use.
                self.sender
                    .abort(TransportError::protocol(error.to_string()));
                return Err(error);
            }
        }
        Ok(())
    }
}

impl PayloadPort for Payloads {
    fn export(&mut self, payload: &Payload) -> Result<PayloadRef, String> {
        if payload.len() <= INLINE {
            return Ok(PayloadRef::Inline(payload.to_bytes()));
        }
        self.lease(payload)
    }

    fn import(&mut self, form: PayloadRef) -> Result<Payload, String> {
        match form {
            PayloadRef::Inline(bytes) => Ok(Payload::Bytes(bytes)),
            PayloadRef::Slot([segment, slot, generation, offset, len]) => {
                let at = SlotRef {
                    segment,
                    slot,
                    generation,
                    offset,
                    len,
                };
                let view = self.peer.view(at);
                let view = view.map_err(|error| scope::refuse(error, std::convert::identity))?;
                Ok(match view.plain_bytes() {
                    Some(bytes) => Payload::Bytes(bytes),
                    None => Payload::View(Arc::new(View(view))),
                })
            }
        }
    }
}

/// A slot of the peer, as the engine sees shared memory.
#[derive(Debug)]
struct View(SlotView);

impl SharedView for View {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn read_u64(&self, offset: usize) -> Option<u64> {
        self.0.read_u64(offset)
    }

    fn read_u64s(&self, offset: usize, step: usize, into: &mut [u64]) -> usize {
        self.0.read_u64s(offset, step, into)
    }

    fn copy_to(&self, target: &mut [u8]) {
        let copied = self.0.copy_to(0, target);
        debug_assert!(copied.is_some(), "the caller gives the view's own length");
    }

    fn to_bytes(&self) -> Bytes {
        self.0.to_bytes()
    }
}

/// Gives components memory that the peer of a link can read without a copy.
#[derive(Clone)]
pub struct SlotAllocator {
    pool: Option<Pool>,
}

impl SlotAllocator {
    /// Recycled memory without a link. Fresh pages for each picture cost more than writing it.
    pub(crate) fn unlinked() -> Self {
        Self {
            pool: Some(Pool::new(PoolLimits::default())),
        }
    }

    /// Recycled memory that hosts share.
    pub(crate) fn of(memory: &SampleMemory) -> Self {
        Self {
            pool: Some(memory.pool().clone()),
        }
    }

    fn pool_for(&self, len: usize) -> Option<&Pool> {
        self.pool.as_ref().filter(|_| len > INLINE)
    }
}

impl fmt::Debug for SlotAllocator {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "SlotAllocator({:?})",
            self.pool.as_ref().map(Pool::usage)
        )
    }
}

impl SampleAllocator for SlotAllocator {
    fn allocate(&self, len: usize) -> SampleBuffer {
        let slot = self.pool_for(len).and_then(|pool| pool.allocate(len).ok());
        match slot {
            Some(slot) => SampleBuffer::new(Slot(slot)),
            // A payload on the heap is copied into a slot when one is free; its sample waits until then.
            None => SampleBuffer::heap(len),
        }
    }

    fn allocate_as(&self, len: usize, asked: AllocationRequirements) -> SampleBuffer {
        if asked.is_none() {
            return self.allocate(len);
        }
        // A slot begins at a page: as aligned as can be asked for.
        let size = len.max(asked.size as usize);
        let pool = self.pool.as_ref();
        match pool.and_then(|pool| pool.allocate(size).ok()) {
            Some(mut slot) => {
                slot.truncate(len);
                SampleBuffer::new(Slot(slot))
            }
            None => SampleBuffer::heap(len),
        }
    }

    fn agree(&self, asked: AllocationRequirements) -> Result<()> {
        let Some(pool) = &self.pool else {
            return Ok(());
        };
        // The one that is being made comes on top.
        let (size, count) = (asked.size.max(1) as usize, asked.count as usize);
        if pool.could_hold(size, count.saturating_add(1)) {
            return Ok(());
        }
        let wanted = u64::from(asked.size).saturating_mul(u64::from(asked.count) + 1);
        let most = pool.max_bytes() as u64;
        Err(Error::limit(
            "bytes of memory that a consumer asks for",
            most,
            wanted,
        ))
    }

    fn has_room(&self, len: usize) -> bool {
        self.pool_for(len)
            .is_none_or(|pool| pool.has_room_or_none_lent(len))
    }

    fn room(&self, len: usize) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        match self.pool_for(len).cloned() {
            Some(pool) => Box::pin(async move { pool.room_when_lent(len).await }),
            None => Box::pin(std::future::ready(())),
        }
    }
}

struct Slot(SlotMut);

impl WritableMemory for Slot {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn as_slice(&self) -> &[u8] {
        &self.0
    }

    fn freeze(self: Box<Self>) -> Bytes {
        self.0.freeze()
    }
}
