//! The other side of a pool: what its owner, perhaps an attacker, lets this process read.
//!
//! A segment is mapped only if its seals say that it can neither shrink (a read would be a fatal signal) nor be changed in
//! any way but by its owner. What the owner writes it may write at any moment, so a view has no slice: it is read in words
//! and copied out, and what is checked is the copy.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{MAX_SLOT, MIN_SLOT, Pool, SlotRef, SlotRelease};
use crate::descriptor::ReceivedFd;
use crate::error::TransportError;
use crate::handshake::LinkLimits;
use crate::sys::mapping::{Mapping, TrustedPeer};
use crate::sys::segment::check_sealed;

/// What a peer may make this process map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerPoolLimits {
    /// Most bytes of all segments at a time.
    pub max_bytes: u64,
    /// Most segments at a time.
    pub max_segments: usize,
}

impl Default for PeerPoolLimits {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 20,
            max_segments: 1024,
        }
    }
}

impl From<LinkLimits> for PeerPoolLimits {
    /// What was agreed for a link.
    fn from(agreed: LinkLimits) -> Self {
        Self {
            max_bytes: u64::from(agreed.pool_mebibytes) << 20,
            ..Self::default()
        }
    }
}

/// What a peer is besides a stranger. By default nothing.
#[derive(Debug, Clone, Default)]
pub struct PeerTerms {
    /// The peer shares memory with the other peers of this pool: what it lends can be passed on to them without a copy
    /// ([`Lender::forward`](super::Lender::forward)), and they can then read its whole segments. Costs a descriptor for each
    /// of the first 64; what lies in further ones is copied.
    pub beside: Option<Pool>,
    /// The peer is trusted to leave what it has lent as it is.
    pub trust: Option<TrustedPeer>,
}

/// The segments of a peer's pool. Clones are the same pool; it may be used from any thread.
#[derive(Clone)]
pub struct PeerPool {
    shared: Arc<PeerShared>,
}

struct PeerShared {
    limits: PeerPoolLimits,
    terms: PeerTerms,
    segments: Mutex<Segments>,
    releases: Arc<Releases>,
}

/// Most descriptors that are kept to pass segments of one peer on: it decides how many segments there are, and must not use
/// up this process's descriptors. Of further ones what is passed on is copied.
const MAX_KEPT: usize = 64;

#[derive(Default)]
struct Segments {
    by_id: HashMap<u32, Segment>,
    mapped_bytes: u64,
    /// Those whose descriptor is kept.
    kept: usize,
}

type Segment = Arc<PeerSegment>;

/// A segment of the peer, as it is mapped here.
#[derive(Debug)]
pub(super) struct PeerSegment {
    mapping: Mapping,
    slot_size: u32,
    slots: u32,
    /// Unlike that of any other in this process.
    key: u64,
    /// By which others may map it, and whose peers they must be.
    forward: Option<(Arc<OwnedFd>, Pool)>,
    trust: Option<TrustedPeer>,
}

static KEYS: AtomicU64 = AtomicU64::new(0);

impl PeerSegment {
    pub(super) fn key(&self) -> u64 {
        self.key
    }

    pub(super) fn shape(&self) -> (u32, u32) {
        (self.slot_size, self.slots)
    }

    /// Its file, if the peers of `pool` may see it.
    pub(super) fn file_beside(&self, pool: &Pool) -> Option<Arc<OwnedFd>> {
        let (file, beside) = self.forward.as_ref()?;
        beside.is(pool).then(|| file.clone())
    }
}

impl PeerPool {
    /// A pool without segments.
    pub fn new(limits: PeerPoolLimits) -> Self {
        Self::on_terms(limits, PeerTerms::default())
    }

    /// A pool without segments, of a peer that is more than a stranger.
    pub fn on_terms(limits: PeerPoolLimits, terms: PeerTerms) -> Self {
        Self {
            shared: Arc::new(PeerShared {
                limits,
                terms,
                segments: Mutex::default(),
                releases: Arc::default(),
            }),
        }
    }

    /// Maps a segment that the peer announced, if it is what it must be.
    ///
    /// # Errors
    /// [`TransportError::Protocol`] when the id is in use, the sizes are absurd or beyond the limits, or the file is not
    /// sealed or not as long as claimed.
    pub fn add_segment(
        &self,
        segment: u32,
        slot_size: u32,
        slots: u32,
        descriptor: impl Into<ReceivedFd>,
    ) -> Result<(), TransportError> {
        let broken =
            |why: String| TransportError::protocol(format!("pool segment {segment}: {why}"));
        // Refused, it may be anything, and is closed aside.
        let descriptor = descriptor.into();
        let limits = self.shared.limits;
        let len = u64::from(slot_size) * u64::from(slots);
        // Each slot of what is passed on costs an account: smaller ones than a pool makes would be many.
        if slots == 0
            || !(MIN_SLOT..=MAX_SLOT).contains(&(slot_size as usize))
            || !slot_size.is_multiple_of(8)
        {
            return Err(broken(format!("{slots} slots of {slot_size} bytes")));
        }
        let mut segments = self.shared.segments();
        if segments.by_id.contains_key(&segment) {
            return Err(broken("the id is in use".into()));
        }
        if segments.by_id.len() >= limits.max_segments
            || len > limits.max_bytes - segments.mapped_bytes
        {
            return Err(broken(format!(
                "{len} more bytes; {} of {} bytes in {} of {} segments are mapped",
                segments.mapped_bytes,
                limits.max_bytes,
                segments.by_id.len(),
                limits.max_segments
            )));
        }
        check_sealed(descriptor.as_fd(), len).map_err(broken)?;
        let len = usize::try_from(len).map_err(|_| broken("too large for this machine".into()))?;
        let mapping = Mapping::read_only(&descriptor, len)
            .map_err(|error| TransportError::io(format!("map pool segment {segment}"), error))?;
        // Anonymous memory, as was checked: its close waits for nothing.
        let file = descriptor.into_owned();
        let PeerTerms { beside, trust } = self.shared.terms.clone();
        let forward = beside
            .filter(|_| segments.kept < MAX_KEPT)
            .map(|pool| (Arc::new(file), pool));
        segments.kept += usize::from(forward.is_some());
        segments.mapped_bytes += len as u64;
        segments.by_id.insert(
            segment,
            Arc::new(PeerSegment {
                mapping,
                slot_size,
                slots,
                key: KEYS.fetch_add(1, Ordering::Relaxed),
                forward,
                trust,
            }),
        );
        Ok(())
    }

    /// Unmaps a segment that the peer retired.
    ///
    /// # Errors
    /// [`TransportError::Protocol`] when there is no such segment, or when there are views of it: its owner retires only
    /// what it got back wholly.
    pub fn retire_segment(&self, segment: u32) -> Result<(), TransportError> {
        let broken = |why: &str| {
            Err(TransportError::protocol(format!(
                "retired pool segment {segment}: {why}"
            )))
        };
        let mut segments = self.shared.segments();
        match segments.by_id.get(&segment) {
            None => return broken("there is no such segment"),
            Some(retired) if Arc::strong_count(retired) > 1 => {
                return broken("it is still lent");
            }
            Some(_) => {}
        }
        if let Some(retired) = segments.by_id.remove(&segment) {
            segments.mapped_bytes -= retired.mapping.len() as u64;
            segments.kept -= usize::from(retired.forward.is_some());
        }
        Ok(())
    }

    /// The bytes that a peer's reference means. The peer counted a lease for it: the view's last clone releases it.
    ///
    /// # Errors
    /// [`TransportError::Protocol`] when the reference lies outside of what the peer announced.
    pub fn view(&self, at: SlotRef) -> Result<SlotView, TransportError> {
        let segments = self.shared.segments();
        let broken =
            || TransportError::protocol(format!("a reference outside of the pool: {at:?}"));
        let segment = segments.by_id.get(&at.segment).ok_or_else(broken)?;
        let end = at.offset.checked_add(at.len).ok_or_else(broken)?;
        if at.slot >= segment.slots || end > segment.slot_size {
            return Err(broken());
        }
        Ok(SlotView {
            lease: Arc::new(Lease {
                segment: segment.clone(),
                give_back: GiveBack {
                    releases: self.shared.releases.clone(),
                    release: SlotRelease {
                        segment: at.segment,
                        slot: at.slot,
                        generation: at.generation,
                        count: 1,
                    },
                    is_abandoned: AtomicBool::new(false),
                },
            }),
            start: at.slot as usize * segment.slot_size as usize + at.offset as usize,
            len: at.len as usize,
        })
    }

    /// Moves out the releases that must be sent to the peer.
    pub fn take_releases(&self, into: &mut Vec<SlotRelease>) {
        for release in self.shared.releases.queue().drain(..) {
            // Leases of one slot often end one after another: a batch, or parts of one buffer.
            match into.last_mut() {
                Some(last)
                    if (last.segment, last.slot, last.generation)
                        == (release.segment, release.slot, release.generation) =>
                {
                    last.count = last.count.saturating_add(release.count);
                }
                _ => into.push(release),
            }
        }
    }

    /// Waits until there are releases to take. For one task, the link's.
    pub async fn releases_ready(&self) {
        while self.shared.releases.queue().is_empty() {
            self.shared.releases.ready.notified().await;
        }
    }

    /// Bytes mapped now.
    pub fn mapped_bytes(&self) -> u64 {
        self.shared.segments().mapped_bytes
    }
}

impl PeerShared {
    fn segments(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for PeerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerPool")
            .field("mapped_bytes", &self.mapped_bytes())
            .finish_non_exhaustive()
    }
}

/// Bytes in a slot of the peer's pool, which the peer may be writing. Clones share one lease.
#[derive(Clone)]
pub struct SlotView {
    lease: Arc<Lease>,
    start: usize,
    len: usize,
}

impl SlotView {
    /// Bytes in the view.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The little-endian word at byte `offset` as it is now, or `None` if it does not lie wholly in the view.
    pub fn read_u64(&self, offset: usize) -> Option<u64> {
        self.check(offset, size_of::<u64>())?;
        self.lease
            .segment
            .mapping
            .read_word(self.start + offset)
            .map(u64::from_le_bytes)
    }

    /// Fills `into` from byte `offset` on; `None`, with `into` untouched, if the view does not reach so far.
    #[must_use]
    pub fn copy_to(&self, offset: usize, into: &mut [u8]) -> Option<()> {
        self.check(offset, into.len())?;
        self.lease
            .segment
            .mapping
            .copy_to(self.start + offset, into)
    }

    /// A private copy of the bytes, which does not change any more.
    pub fn to_bytes(&self) -> Bytes {
        self.lease
            .segment
            .mapping
            .copy_out(self.start, self.len)
            .map(Bytes::from)
            .expect("a view lies in its mapping: checked when it was made")
    }

    /// The little-endian words at `offset` and every `step` bytes behind it, as many as fit in `into` and lie wholly in the
    /// view; answers how many they are. Cheaper than one by one.
    pub fn read_u64s(&self, offset: usize, step: usize, into: &mut [u64]) -> usize {
        let Some(room) = self
            .len
            .checked_sub(offset)
            .filter(|room| *room >= size_of::<u64>())
        else {
            return 0;
        };
        let most = 1
            + (room - size_of::<u64>())
                .checked_div(step)
                .unwrap_or(usize::MAX - 1);
        let count = into.len().min(most);
        let into = &mut into[..count];
        let read = self
            .lease
            .segment
            .mapping
            .read_words(self.start + offset, step, into);
        debug_assert!(read.is_some(), "a view lies in its mapping");
        count
    }

    /// The bytes themselves, without a copy, if the peer is trusted ([`PeerTerms`]); the lease lasts as long as they do.
    pub fn plain_bytes(&self) -> Option<Bytes> {
        let trust = self.lease.segment.trust?;
        let view = self.clone();
        Some(Bytes::from_owner(Plain { view, trust }))
    }

    /// Its segment, slot, and where in the slot it begins.
    pub(super) fn place(&self) -> (&Arc<PeerSegment>, u32, u32) {
        let segment = &self.lease.segment;
        let size = segment.slot_size as usize;
        (
            segment,
            (self.start / size) as u32,
            (self.start % size) as u32,
        )
    }

    /// Never gives the lease back: somebody may be reading the slot of whom this process will hear no more.
    pub(super) fn abandon(self) {
        let is_abandoned = &self.lease.give_back.is_abandoned;
        is_abandoned.store(true, Ordering::Relaxed);
    }

    fn check(&self, offset: usize, len: usize) -> Option<()> {
        (offset.checked_add(len)? <= self.len).then_some(())
    }
}

/// The bytes of a slot of a trusted peer.
struct Plain {
    view: SlotView,
    trust: TrustedPeer,
}

impl AsRef<[u8]> for Plain {
    fn as_ref(&self) -> &[u8] {
        let SlotView { lease, start, len } = &self.view;
        let bytes = lease.segment.mapping.plain(*start, *len, self.trust);
        bytes.expect("a view lies in its mapping: checked when it was made")
    }
}

impl fmt::Debug for SlotView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotView")
            .field("slot", &self.lease.give_back.release)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// One lease that the peer counts.
struct Lease {
    /// Declared before the return: once the peer knows of it, nothing here may use the segment.
    segment: Arc<PeerSegment>,
    give_back: GiveBack,
}

/// Queues the release when it goes.
struct GiveBack {
    releases: Arc<Releases>,
    release: SlotRelease,
    /// That it never does. Set before the setter's view goes, so by whoever sees it go: the count of views orders them.
    is_abandoned: AtomicBool,
}

impl Drop for GiveBack {
    fn drop(&mut self) {
        if !*self.is_abandoned.get_mut() {
            self.releases.push(self.release);
        }
    }
}

#[derive(Default)]
struct Releases {
    queue: Mutex<Vec<SlotRelease>>,
    ready: Notify,
}

impl Releases {
    fn queue(&self) -> MutexGuard<'_, Vec<SlotRelease>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, release: SlotRelease) {
        let mut queue = self.queue();
        let first = queue.is_empty();
        queue.push(release);
        drop(queue);
        if first {
            self.ready.notify_one();
        }
    }
}
