//! A pool's accounts: segments, free slots by size, and which slots are in use. Plain data under the pool's lock.
//!
//! To whom a slot is leased is the business of each [`Lender`](super::Lender): here it only counts that it is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::free_slots::{self, FreeSlots};
use super::{MAX_SLOT, MIN_SLOT, PoolUsage};
use crate::error::PoolExhausted;
use crate::sys::segment::{OwnedSegment, SlotMemory};

/// Slot sizes. Steps of four below a picture, of two above: a slot is seldom much larger than what it holds.
const CLASSES: [usize; 12] = [
    MIN_SLOT,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    4 << 20,
    8 << 20,
    16 << 20,
    32 << 20,
    64 << 20,
    128 << 20,
    MAX_SLOT,
];

/// The first segment of a class has about this many bytes, each further one as many as the class has by then.
const FIRST_SEGMENT: usize = 1 << 20;

/// Of segments that peers know as many bytes are given up, while these peers may still keep them, as the pool has this many
/// times: a hostile peer keeps them all, and an honest one gives them back, but nobody can see which.
const MAX_LEFT: usize = 4;

/// No segment is made larger, unless by a single slot.
const MAX_SEGMENT: usize = 32 << 20;

pub(super) struct Table {
    max_bytes: usize,
    mapped_bytes: usize,
    next_segment: u32,
    segments: BTreeMap<u32, Segment>,
    /// Where segments begin and end, for finding the one that some bytes lie in.
    by_address: BTreeMap<usize, (usize, u32)>,
    /// Free slots, by class.
    free: [FreeSlots; CLASSES.len()],
    /// Memory that was given up and that peers were told of.
    left: Vec<Left>,
    /// Bytes of it.
    left_bytes: usize,
    next_lender: u64,
    /// Segments that were given up so far: lenders look whether one of theirs is among them when it has grown.
    retired: u64,
    /// Slots that some peer has.
    leased: usize,
    /// Somebody was refused and may be waiting.
    starving: bool,
}

struct Segment {
    memory: Arc<OwnedSegment>,
    /// By which peers map it.
    file: Arc<OwnedFd>,
    class: usize,
    slots: Box<[Slot]>,
    /// Slots that are held or leased.
    busy: u32,
    /// Lenders that told their peers of it: each may keep its memory, whatever it is told later.
    told: Vec<u64>,
}

/// A segment that was given up.
struct Left {
    bytes: usize,
    /// As of the segment.
    told: Vec<u64>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    generation: u32,
    held: bool,
    leases: u32,
}

/// Where in the pool some bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) slot: u32,
    /// Which use of the slot.
    pub(super) generation: u32,
    pub(super) offset: u32,
    pub(super) len: u32,
}

/// What a peer is told of a segment.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) slot_size: u32,
    pub(super) slots: u32,
    pub(super) file: Arc<OwnedFd>,
}

/// A slot just taken.
pub(super) struct Taken {
    pub(super) segment: u32,
    pub(super) slot: u32,
    pub(super) memory: SlotMemory,
}

impl Table {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            mapped_bytes: 0,
            next_segment: 0,
            segments: BTreeMap::new(),
            by_address: BTreeMap::new(),
            free: Default::default(),
            left: Vec::new(),
            left_bytes: 0,
            next_lender: 0,
            retired: 0,
            leased: 0,
            starving: false,
        }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<Taken, PoolExhausted> {
        let class = self.class_of(len)?;
        let worth_having = free_slots::worth_having(CLASSES[class]);
        // Another is better than one that has not rested. What is needed more may need the second half of the pool.
        if self.free[class].all_rest()
            && self.mapped_bytes + worth_having * CLASSES[class] <= self.max_bytes / 2
            && self.present(class) < worth_having
        {
            // Where the system gives none, that one will do.
            let _ = self.grow(class, None);
        }
        self.take_any(len)
    }

    /// A slot, rested or not.
    fn take_any(&mut self, len: usize) -> Result<Taken, PoolExhausted> {
        let class = self.class_of(len)?;
        let mut no_memory = None;
        if self.free[class].is_empty() && !self.grow_noting(class, None, &mut no_memory) {
            // A larger slot will do; only if there is none, give up idle segments of other sizes.
            let larger = (class..CLASSES.len()).find(|larger| !self.free[*larger].is_empty());
            if let Some(taken) = larger.and_then(|larger| self.pop(larger)) {
                return Ok(taken);
            }
            self.retire_for(CLASSES[class]);
            self.grow_noting(class, None, &mut no_memory);
        }
        self.pop(class)
            .ok_or_else(|| self.refuse_for_now(len, no_memory))
    }

    /// Slots of all these lengths, or none: whoever waits for several holds nothing while it waits.
    pub(super) fn take_all(&mut self, lens: &[usize]) -> Result<Vec<Taken>, PoolExhausted> {
        let mut order: Vec<usize> = (0..lens.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(lens[*at]));
        let mut all: Vec<Option<Taken>> = lens.iter().map(|_| None).collect();
        let mut failed = None;
        for at in &order {
            match self.take_any(lens[*at]) {
                Ok(taken) => all[*at] = Some(taken),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let Some(error) = failed else {
            return Ok(all.into_iter().flatten().collect());
        };
        for taken in all.into_iter().flatten() {
            self.untake(taken);
        }
        let is_idle = self.segments.values().all(|segment| segment.busy == 0);
        if !is_idle || !error.transient {
            return Err(error);
        }
        // Nobody else has a slot, so waiting helps nothing; segments cut to measure may.
        let idle = self.to_retire(self.max_bytes).collect();
        self.retire(idle);
        let mut classes = [0_usize; CLASSES.len()];
        for len in lens {
            classes[self.class_of(*len)?] += 1;
        }
        let mut no_memory = None;
        for class in (0..CLASSES.len()).rev().filter(|class| classes[*class] > 0) {
            for _ in self.free[class].len()..classes[class] {
                let wanted = classes[class] - self.free[class].len();
                if wanted > 0 && !self.grow_noting(class, Some(wanted), &mut no_memory) {
                    return Err(PoolExhausted {
                        wanted: lens.iter().fold(0, |sum, len| sum.saturating_add(*len)),
                        max_bytes: self.max_bytes,
                        transient: false,
                        reason: no_memory.unwrap_or_else(|| self.no_room()),
                    });
                }
            }
        }
        lens.iter().map(|len| self.take_any(*len)).collect()
    }

    /// Whether any peer has any slot: then some will come back.
    pub(super) fn is_lent(&self) -> bool {
        self.leased > 0
    }

    fn class_of(&self, len: usize) -> Result<usize, PoolExhausted> {
        let refused = |reason: &'static str| PoolExhausted {
            wanted: len,
            max_bytes: self.max_bytes,
            transient: false,
            reason: reason.into(),
        };
        let fitting = CLASSES.iter().position(|size| *size >= len);
        let class = fitting.ok_or_else(|| refused("no slot is that large"))?;
        if CLASSES[class] > self.max_bytes {
            return Err(refused("the whole pool is smaller than such a slot"));
        }
        Ok(class)
    }

    /// What a request gets that the next free slot may satisfy, if one is to come.
    fn refuse_for_now(
        &mut self,
        len: usize,
        no_memory: Option<Cow<'static, str>>,
    ) -> PoolExhausted {
        self.starving = true;
        let is_idle = self.segments.values().all(|segment| segment.busy == 0);
        PoolExhausted {
            wanted: len,
            max_bytes: self.max_bytes,
            // That the system gives no memory may pass, but only a slot that comes back tells of it.
            transient: !is_idle,
            reason: no_memory.unwrap_or_else(|| match is_idle {
                true => self.no_room(),
                false => "all slots are in use".into(),
            }),
        }
    }

    /// Why there is no room though nothing is in use.
    fn no_room(&self) -> Cow<'static, str> {
        match self.segments.is_empty() {
            true => "the whole pool is smaller than such slots".into(),
            false => {
                "what peers know of has other sizes, and they may keep too much that was given up"
                    .into()
            }
        }
    }

    /// Undoes a take, of which nobody has heard: it wakes nobody.
    fn untake(&mut self, taken: Taken) {
        let Taken {
            segment,
            slot,
            memory,
        } = taken;
        drop(memory);
        let starving = self.starving;
        self.put_back(segment, slot);
        self.starving = starving;
    }

    /// Returns whether waiters must be woken.
    pub(super) fn put_back(&mut self, segment: u32, slot: u32) -> bool {
        let Some(state) = self.slot_mut(segment, slot) else {
            return false;
        };
        state.held = false;
        if state.leases > 0 {
            return false;
        }
        self.set_free(segment, slot)
    }

    pub(super) fn locate(&self, bytes: &[u8]) -> Option<Place> {
        if bytes.is_empty() {
            return None;
        }
        let address = bytes.as_ptr().addr();
        let (start, (end, id)) = self.by_address.range(..=address).next_back()?;
        if address.checked_add(bytes.len())? > *end {
            return None;
        }
        let segment = self.segments.get(id)?;
        let size = CLASSES[segment.class];
        let (slot, offset) = ((address - start) / size, (address - start) % size);
        let state = segment.slots.get(slot)?;
        // Bytes of a pool slot keep it held and end where it ends: anything else is not ours to lend.
        if !state.held || offset + bytes.len() > size {
            return None;
        }
        Some(Place {
            segment: *id,
            slot: slot as u32,
            generation: state.generation,
            offset: offset as u32,
            len: bytes.len() as u32,
        })
    }

    /// Keeps the slot in which `bytes` lie as it is, whoever here lets go of it.
    pub(super) fn lease(&mut self, bytes: &[u8]) -> Option<Place> {
        let found = self.locate(bytes)?;
        let state = self.slot_mut(found.segment, found.slot)?;
        state.leases = state.leases.checked_add(1)?;
        if state.leases == 1 {
            self.leased += 1;
        }
        Some(found)
    }

    /// Ends leases; returns whether waiters must be woken.
    pub(super) fn unlease(&mut self, segment: u32, slot: u32, count: u32) -> bool {
        let Some(state) = self.slot_mut(segment, slot) else {
            return false;
        };
        debug_assert!(count <= state.leases, "lenders count theirs");
        let had = state.leases;
        state.leases = had.saturating_sub(count);
        let (leases, held) = (state.leases, state.held);
        if leases > 0 || had == 0 {
            return false;
        }
        self.leased -= 1;
        if held {
            // Nothing is free, but whoever waits for the last slot that is lent waits in vain from now on.
            return self.leased == 0 && std::mem::take(&mut self.starving);
        }
        self.set_free(segment, slot)
    }

    /// A number for a lender of this pool.
    pub(super) fn add_lender(&mut self) -> u64 {
        self.next_lender += 1;
        self.next_lender
    }

    /// The peer of this lender is gone, and with it whatever it kept. Returns whether waiters must be woken.
    pub(super) fn end_lender(&mut self, lender: u64) -> bool {
        for segment in self.segments.values_mut() {
            segment.told.retain(|told| *told != lender);
        }
        for left in &mut self.left {
            left.told.retain(|told| *told != lender);
        }
        self.left.retain(|left| !left.told.is_empty());
        self.left_bytes = self.left.iter().map(|left| left.bytes).sum();
        std::mem::take(&mut self.starving)
    }

    /// What a lender tells its peer of a segment.
    pub(super) fn tell(&mut self, segment: u32, lender: u64) -> Option<Shape> {
        let segment = self.segments.get_mut(&segment)?;
        if !segment.told.contains(&lender) {
            segment.told.push(lender);
        }
        Some(Shape {
            slot_size: CLASSES[segment.class] as u32,
            slots: segment.slots.len() as u32,
            file: segment.file.clone(),
        })
    }

    /// Segments that were given up so far.
    pub(super) fn retired(&self) -> u64 {
        self.retired
    }

    pub(super) fn has_segment(&self, segment: u32) -> bool {
        self.segments.contains_key(&segment)
    }

    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Whether so many slots fit at once, if nothing else does.
    pub(super) fn could_hold(&self, len: usize, count: usize) -> bool {
        self.class_of(len)
            .is_ok_and(|class| self.max_bytes / CLASSES[class] >= count)
    }

    /// Whether a slot for `len` bytes could be had now. If not, whoever asks is woken when that changes.
    pub(super) fn has_room(&mut self, len: usize) -> bool {
        let Ok(class) = self.class_of(len) else {
            return false;
        };
        let idle = || {
            let idle = self.to_retire(CLASSES[class]);
            idle.map(|(_, bytes)| bytes).sum::<usize>()
        };
        let unmapped = self.max_bytes - self.mapped_bytes;
        let has_room = self.free[class..].iter().any(|free| !free.is_empty())
            || unmapped >= CLASSES[class]
            || unmapped + idle() >= CLASSES[class];
        self.starving |= !has_room;
        has_room
    }

    pub(super) fn usage(&self) -> PoolUsage {
        let slots = || {
            self.segments
                .values()
                .flat_map(|segment| segment.slots.iter())
        };
        PoolUsage {
            mapped_bytes: self.mapped_bytes,
            held: slots().filter(|slot| slot.held).count(),
            leased: slots().filter(|slot| slot.leases > 0).count(),
            left_bytes: self.left_bytes,
            free: self.free.iter().map(FreeSlots::len).sum(),
        }
    }

    fn slot_mut(&mut self, segment: u32, slot: u32) -> Option<&mut Slot> {
        self.segments
            .get_mut(&segment)?
            .slots
            .get_mut(slot as usize)
    }

    fn pop(&mut self, class: usize) -> Option<Taken> {
        let (id, slot) = self.free[class].pop()?;
        let segment = self.segments.get_mut(&id)?;
        let memory = segment.memory.take(slot)?;
        let state = segment.slots.get_mut(slot as usize)?;
        state.generation = state.generation.wrapping_add(1);
        state.held = true;
        segment.busy += 1;
        Some(Taken {
            segment: id,
            slot,
            memory,
        })
    }

    fn set_free(&mut self, id: u32, slot: u32) -> bool {
        if let Some(segment) = self.segments.get_mut(&id) {
            segment.busy -= 1;
            self.free[segment.class].push((id, slot), CLASSES[segment.class]);
        }
        std::mem::take(&mut self.starving)
    }

    /// Adds a segment; `false` when the limit does not allow another slot, or the system another file, which is noted.
    fn grow_noting(
        &mut self,
        class: usize,
        exactly: Option<usize>,
        no_memory: &mut Option<Cow<'static, str>>,
    ) -> bool {
        self.grow(class, exactly).unwrap_or_else(|reason| {
            *no_memory = Some(reason.into());
            false
        })
    }

    /// Slots that a class has.
    fn present(&self, class: usize) -> usize {
        let same = self
            .segments
            .values()
            .filter(|segment| segment.class == class);
        same.map(|segment| segment.slots.len()).sum()
    }

    fn grow(&mut self, class: usize, exactly: Option<usize>) -> Result<bool, String> {
        let size = CLASSES[class];
        let room = (self.max_bytes - self.mapped_bytes) / size;
        let present = self.present(class);
        let wanted = exactly.unwrap_or_else(|| {
            present
                .max(FIRST_SEGMENT / size)
                .min(MAX_SEGMENT / size)
                // One slot held for long pins its segment: none takes all that others might need.
                .min(room / 2)
                .max(1)
        });
        let slots = wanted.min(room);
        if slots == 0 {
            return Ok(false);
        }
        let id = self.next_segment;
        let next = id
            .checked_add(1)
            .ok_or_else(|| "no more segment ids".to_owned())?;
        let (memory, descriptor) = OwnedSegment::create(size, slots as u32)
            .map_err(|error| format!("cannot make shared memory: {error}"))?;
        self.next_segment = next;
        self.mapped_bytes += memory.len();
        self.by_address
            .insert(memory.address(), (memory.address() + memory.len(), id));
        let fresh = (0..slots as u32).rev().map(|slot| (id, slot));
        self.free[class].add(fresh);
        self.segments.insert(
            id,
            Segment {
                memory: Arc::new(memory),
                file: Arc::new(descriptor),
                class,
                slots: vec![Slot::default(); slots].into_boxed_slice(),
                busy: 0,
                told: Vec::new(),
            },
        );
        Ok(true)
    }

    /// Gives up segments of which nobody has a slot so that there is room for so many bytes, if that makes it: what is wanted
    /// now has another size than what was.
    fn retire_for(&mut self, room: usize) {
        let idle: Vec<(u32, usize)> = self.to_retire(room).collect();
        let bytes: usize = idle.iter().map(|(_, bytes)| bytes).sum();
        if self.max_bytes - self.mapped_bytes + bytes >= room {
            self.retire(idle);
        }
    }

    fn retire(&mut self, idle: Vec<(u32, usize)>) {
        for (id, bytes) in idle {
            let Some(segment) = self.segments.remove(&id) else {
                continue;
            };
            self.free[segment.class].forget(id);
            self.mapped_bytes -= bytes;
            self.by_address.remove(&segment.memory.address());
            self.retired += 1;
            if !segment.told.is_empty() {
                self.left_bytes += bytes;
                let told = segment.told;
                self.left.push(Left { bytes, told });
            }
        }
    }

    /// The segments that may be given up so that there is room for so many bytes, and their bytes: no more than it takes, and
    /// those first of which no peer knows.
    fn to_retire(&self, room: usize) -> impl Iterator<Item = (u32, usize)> {
        let idle = |is_told: bool| {
            let segments = self.segments.iter();
            segments
                .filter(move |(_, segment)| segment.busy == 0 && segment.told.is_empty() != is_told)
        };
        let mut unmapped = self.max_bytes - self.mapped_bytes;
        let mut may_leave =
            (self.max_bytes.saturating_mul(MAX_LEFT)).saturating_sub(self.left_bytes);
        idle(false)
            .chain(idle(true))
            .filter_map(move |(id, segment)| {
                let bytes = segment.memory.len();
                let is_told = !segment.told.is_empty();
                if unmapped >= room || (is_told && bytes > may_leave) {
                    return None;
                }
                unmapped += bytes;
                may_leave -= if is_told { bytes } else { 0 };
                Some((*id, bytes))
            })
    }
}
