//! What one peer was told and lent of the memory of this process: its own pool, and what it passes on of other peers'.
//!
//! The accounts are private to this side and there are as many as links: a peer can give back only what it was lent itself,
//! and what it keeps it keeps from its own link first. Segments are named to each peer by numbers of its own, and only when
//! something in them is lent to it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::peer::{PeerSegment, SlotView};
use super::{Pool, PoolNews, SlotRef, SlotRelease};
use crate::error::{LendRefused, TransportError};

/// Segments of other peers that one peer is told of at a time, at most.
const MAX_FORWARDED: usize = 64;

/// What a peer may be lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LenderLimits {
    /// Most bytes of segments that the peer maps at a time, of the own pool and of other peers' memory.
    pub max_mapped: u64,
    /// Most bytes of the pool's slots that it has at a time. Less than the pool where others are lent of it too: what one
    /// peer keeps, the others cannot be lent.
    pub max_leased: u64,
}

impl LenderLimits {
    /// Of a pool that no other peer is lent of.
    pub fn alone(max_mapped: u64) -> Self {
        Self {
            max_mapped,
            max_leased: u64::MAX,
        }
    }

    /// Of a pool that other peers are lent of: half of it is the most that this one has at a time.
    pub fn beside_others(max_mapped: u64, pool: &Pool) -> Self {
        Self {
            max_mapped,
            max_leased: pool.max_bytes() as u64 / 2,
        }
    }
}

/// Lends slots to one peer.
///
/// Dropped, it takes nothing back, and gives nothing back of what it passed on of other peers': what the peer had stays as it
/// is, for the peer may be reading it. Take it back by [`revoke_all`](Self::revoke_all) where the peer is gone or does not
/// rely on it.
#[derive(Debug)]
pub struct Lender {
    pool: Pool,
    /// By which the pool knows whom it told of what.
    number: u64,
    limits: LenderLimits,
    /// By the number under which the peer knows a segment.
    told: HashMap<u32, Told>,
    /// The peer's number for a segment of the own pool.
    own: HashMap<u32, u32>,
    /// The peer's number for a segment of another peer.
    forwarded: HashMap<u64, u32>,
    next_segment: u32,
    next_generation: u32,
    mapped: u64,
    leased: u64,
    /// Slots that the peer has.
    slots: usize,
    /// The pool's count of given up segments when it was last looked through.
    seen_retired: u64,
    news: Vec<PoolNews>,
}

/// A segment that the peer knows.
#[derive(Debug)]
struct Told {
    source: Source,
    slot_size: u32,
    rows: Box<[Row]>,
    /// Slots of it that the peer has.
    out: usize,
}

#[derive(Debug)]
enum Source {
    Own(u32),
    Forwarded(u64, Weak<PeerSegment>),
}

/// One slot as this peer has it.
#[derive(Debug, Clone, Default)]
struct Row {
    generation: u32,
    leases: u32,
    /// What keeps a slot of another peer leased to this process.
    keep: Option<SlotView>,
}

impl Told {
    fn bytes(&self) -> u64 {
        u64::from(self.slot_size) * self.rows.len() as u64
    }
}

impl Lender {
    /// Nothing told and nothing lent.
    pub fn new(pool: Pool, limits: LenderLimits) -> Self {
        let number = pool.shared.table().add_lender();
        Self {
            pool,
            number,
            limits,
            told: HashMap::new(),
            own: HashMap::new(),
            forwarded: HashMap::new(),
            next_segment: 0,
            next_generation: 0,
            mapped: 0,
            leased: 0,
            slots: 0,
            seen_retired: 0,
            news: Vec::new(),
        }
    }

    /// The pool that it lends of.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Slots that the peer has.
    pub fn lent(&self) -> usize {
        self.slots
    }

    /// Lends the slot in which `bytes` lie; `None` if they lie in no slot of the pool. The slot stays as it is until the
    /// peer has released every lease and nobody here holds it.
    ///
    /// # Errors
    /// When the peer may not have more now.
    pub fn lease(&mut self, bytes: &Bytes) -> Result<Option<SlotRef>, LendRefused> {
        let Some(place) = self.pool.shared.table().lease(bytes) else {
            return Ok(None);
        };
        let lent = self.lend_own(place.segment, place.slot, place.generation);
        match lent {
            Ok(segment) => Ok(Some(SlotRef {
                segment,
                slot: place.slot,
                generation: place.generation,
                offset: place.offset,
                len: place.len,
            })),
            Err(refused) => {
                self.pool.unlease(place.segment, place.slot, 1);
                Err(refused)
            }
        }
    }

    /// Passes on what another peer has lent: this peer reads the other's memory itself. `None` unless that peer belongs to
    /// the same pool ([`PeerPool::on_terms`](super::PeerPool::on_terms)). The other's lease lasts until this peer has released
    /// every one of its own.
    ///
    /// # Errors
    /// When the peer may not have more now.
    pub fn forward(&mut self, view: &SlotView) -> Result<Option<SlotRef>, LendRefused> {
        let (source, slot, offset) = view.place();
        let Some(file) = source.file_beside(&self.pool) else {
            return Ok(None);
        };
        let id = match self.forwarded.get(&source.key()) {
            Some(id) => *id,
            None => {
                if self.forwarded.len() >= MAX_FORWARDED {
                    self.forget_idle();
                }
                if self.forwarded.len() >= MAX_FORWARDED {
                    return Err(self.refuse("too many segments of other peers"));
                }
                let (slot_size, slots) = source.shape();
                let origin = Source::Forwarded(source.key(), Arc::downgrade(source));
                let id = self.tell(origin, slot_size, slots, file)?;
                self.forwarded.insert(source.key(), id);
                id
            }
        };
        self.next_generation = self.next_generation.wrapping_add(1);
        let fresh = self.next_generation;
        let Some(told) = self.told.get_mut(&id) else {
            return Ok(None);
        };
        let Some(row) = told.rows.get_mut(slot as usize) else {
            return Ok(None);
        };
        let Some(leases) = row.leases.checked_add(1) else {
            return Ok(None);
        };
        if row.leases == 0 {
            row.generation = fresh;
            row.keep = Some(view.clone());
            told.out += 1;
            self.slots += 1;
        }
        row.leases = leases;
        Ok(Some(SlotRef {
            segment: id,
            slot,
            generation: row.generation,
            offset,
            len: view.len() as u32,
        }))
    }

    /// Takes leases back, as the peer says or because a reference was not sent after all.
    ///
    /// # Errors
    /// [`TransportError::Protocol`] when the peer returns what it was not lent.
    pub fn release(&mut self, release: SlotRelease) -> Result<(), TransportError> {
        let SlotRelease {
            segment,
            slot,
            generation,
            count,
        } = release;
        let broken = |why: String| {
            Err(TransportError::protocol(format!(
                "release of slot {slot} of segment {segment}: {why}"
            )))
        };
        let Some(told) = self.told.get_mut(&segment) else {
            return broken("there is no such segment".into());
        };
        let Some(row) = told.rows.get_mut(slot as usize) else {
            return broken("there is no such slot".into());
        };
        if count == 0 || count > row.leases {
            return broken(format!("{count} leases given back of {}", row.leases));
        }
        if generation != row.generation {
            return broken(format!(
                "generation {generation}, it is in {}",
                row.generation
            ));
        }
        row.leases -= count;
        if row.leases == 0 {
            drop(row.keep.take());
            told.out -= 1;
            self.slots -= 1;
        }
        let is_back = row.leases == 0;
        if let Source::Own(own) = told.source {
            if is_back {
                self.leased -= u64::from(told.slot_size);
            }
            self.pool.unlease(own, slot, count);
        }
        Ok(())
    }

    /// Takes all leases back, for the peer is gone. Returns how many slots it still had.
    ///
    /// Only when the peer's process has ended, or relies on nothing that it was lent and will get no more: it can read its
    /// mapping as long as it lives.
    pub fn revoke_all(&mut self) -> usize {
        let count = self.slots;
        for told in self.told.values_mut() {
            if told.out == 0 {
                continue;
            }
            for (slot, row) in (0..).zip(told.rows.iter_mut()) {
                let Row { leases, keep, .. } = std::mem::take(row);
                drop(keep);
                if let Source::Own(own) = told.source
                    && leases > 0
                {
                    self.pool.unlease(own, slot, leases);
                }
            }
            told.out = 0;
        }
        (self.slots, self.leased) = (0, 0);
        let wake = self.pool.shared.table().end_lender(self.number);
        self.pool.shared.wake(wake);
        count
    }

    /// Moves out what the peer must be told. Send it before any reference that was given earlier.
    pub fn take_news(&mut self) -> Vec<PoolNews> {
        std::mem::take(&mut self.news)
    }

    /// Whether there is anything to tell.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    fn lend_own(&mut self, own: u32, slot: u32, generation: u32) -> Result<u32, LendRefused> {
        let id = match self.own.get(&own) {
            Some(id) => *id,
            None => {
                let shape = self.pool.shared.table().tell(own, self.number);
                // The lease that was just taken keeps it.
                let Some(shape) = shape else {
                    return Err(self.refuse("its segment is gone"));
                };
                let id = self.tell(Source::Own(own), shape.slot_size, shape.slots, shape.file)?;
                self.own.insert(own, id);
                id
            }
        };
        let (leased, max_leased) = (self.leased, self.limits.max_leased);
        let refused = self.refuse("it has as much of the pool as one peer may");
        let Some(told) = self.told.get_mut(&id) else {
            return Err(refused);
        };
        let size = u64::from(told.slot_size);
        let Some(row) = told.rows.get_mut(slot as usize) else {
            return Err(refused);
        };
        if row.leases == 0 {
            // One slot it may always have.
            if leased > 0 && leased + size > max_leased {
                return Err(refused);
            }
            row.generation = generation;
            told.out += 1;
            self.slots += 1;
            self.leased += size;
        }
        // As the pool's own count, which is the sum over all lenders.
        row.leases += 1;
        Ok(id)
    }

    /// Names a segment to the peer, if it may map so much.
    fn tell(
        &mut self,
        source: Source,
        slot_size: u32,
        slots: u32,
        file: Arc<OwnedFd>,
    ) -> Result<u32, LendRefused> {
        self.forget_retired();
        let bytes = u64::from(slot_size) * u64::from(slots);
        if bytes > self.limits.max_mapped.saturating_sub(self.mapped) {
            self.forget_idle();
        }
        if bytes > self.limits.max_mapped.saturating_sub(self.mapped) {
            return Err(self.refuse("the peer maps no more"));
        }
        let id = self.next_segment;
        let Some(next) = id.checked_add(1) else {
            return Err(self.refuse("no more segment numbers"));
        };
        let descriptor = match file.try_clone() {
            Ok(descriptor) => descriptor,
            Err(error) => return Err(self.refuse(&format!("no descriptor: {error}"))),
        };
        self.next_segment = next;
        self.mapped += bytes;
        self.told.insert(
            id,
            Told {
                source,
                slot_size,
                rows: vec![Row::default(); slots as usize].into_boxed_slice(),
                out: 0,
            },
        );
        self.news.push(PoolNews::Added {
            segment: id,
            slot_size,
            slots,
            descriptor,
        });
        Ok(id)
    }

    /// Segments that their owners gave up.
    fn forget_retired(&mut self) {
        let gone: Vec<u32> = {
            let table = self.pool.shared.table();
            let own_changed = table.retired() != self.seen_retired;
            self.seen_retired = table.retired();
            let is_gone = |told: &Told| match &told.source {
                Source::Own(own) => own_changed && !table.has_segment(*own),
                Source::Forwarded(_, segment) => segment.strong_count() == 0,
            };
            let gone = self.told.iter().filter(|(_, told)| is_gone(told));
            gone.map(|(id, _)| *id).collect()
        };
        gone.into_iter().for_each(|id| self.forget(id));
    }

    /// Every segment of which the peer has nothing: there must be room for another.
    fn forget_idle(&mut self) {
        let idle = self.told.iter().filter(|(_, told)| told.out == 0);
        let idle: Vec<u32> = idle.map(|(id, _)| *id).collect();
        idle.into_iter().for_each(|id| self.forget(id));
    }

    fn forget(&mut self, id: u32) {
        let Some(told) = self.told.remove(&id) else {
            return;
        };
        debug_assert!(told.out == 0, "what is lent is not given up");
        self.mapped -= told.bytes();
        match told.source {
            Source::Own(own) => drop(self.own.remove(&own)),
            Source::Forwarded(key, _) => drop(self.forwarded.remove(&key)),
        }
        let known = self.news.len();
        self.news
            .retain(|news| !matches!(news, PoolNews::Added { segment, .. } if *segment == id));
        if self.news.len() == known {
            self.news.push(PoolNews::Retired { segment: id });
        }
    }

    fn refuse(&self, why: &str) -> LendRefused {
        LendRefused {
            // Only what the peer gives back makes room.
            transient: self.slots > 0,
            reason: why.to_owned().into(),
        }
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        let rows = self.told.values_mut().flat_map(|told| &mut told.rows);
        rows.filter_map(|row| row.keep.take())
            .for_each(SlotView::abandon);
    }
}
