//! Which free slot is the next.
//!
//! What was freed last is in the own cache of the processor that has just read it. To write there takes each line away from
//! that one, which is several times as dear as to take it from the cache that they share, or from memory: pieces of 64 KiB
//! were handed over five times as fast when they took turns among 2 MiB. So slots rest for a while. Of those that have, the
//! one that was freed last is the next: what is not needed stays out of all caches.

use std::collections::VecDeque;

/// Bytes that are freed after a slot before it is used again, where there are others: more than fits in a processor's own
/// cache.
const REST_BYTES: usize = 2 << 20;

/// Smaller slots need no rest: it was not seen to help.
const LEAST_RESTING: usize = 16 << 10;

/// Of larger slots a cache holds so little that there need be no second one for its sake.
const LARGEST_DOUBLED: usize = 4 << 20;

/// A slot: its segment and its number.
type Id = (u32, u32);

/// The free slots of a size.
#[derive(Debug, Default)]
pub(super) struct FreeSlots {
    /// Have rested; the last is the next.
    rested: Vec<Id>,
    /// Rest; the first has rested longest.
    resting: VecDeque<Id>,
}

impl FreeSlots {
    /// New slots.
    pub(super) fn add(&mut self, fresh: impl Iterator<Item = Id>) {
        self.rested.extend(fresh);
    }

    /// A slot of `size` bytes that has been used.
    pub(super) fn push(&mut self, slot: Id, size: usize) {
        self.resting.push_back(slot);
        if self.resting.len() > resting(size)
            && let Some(rested) = self.resting.pop_front()
        {
            self.rested.push(rested);
        }
    }

    /// The next one.
    pub(super) fn pop(&mut self) -> Option<Id> {
        self.rested.pop().or_else(|| self.resting.pop_front())
    }

    /// Whether there are some and none has rested.
    pub(super) fn all_rest(&self) -> bool {
        self.rested.is_empty() && !self.resting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.rested.len() + self.resting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets those of a segment.
    pub(super) fn forget(&mut self, segment: u32) {
        self.rested.retain(|(of, _)| *of != segment);
        self.resting.retain(|(of, _)| *of != segment);
    }
}

/// How many slots of `size` bytes rest at a time.
fn resting(size: usize) -> usize {
    match size {
        ..LEAST_RESTING => 0,
        size => (REST_BYTES / size).max(1),
    }
}

/// So many slots of `size` bytes there should be rather than to use one that has not rested.
pub(super) fn worth_having(size: usize) -> usize {
    match size {
        LEAST_RESTING..=LARGEST_DOUBLED => 2 * resting(size),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_rests_and_of_those_that_have_the_last_one_is_next() {
        const SIZE: usize = REST_BYTES / 4;
        let mut free = FreeSlots::default();
        free.add((0..7).rev().map(|slot| (0, slot)));
        let used: Vec<_> = (0..7).filter_map(|_| free.pop()).collect();
        assert_eq!(used, [0, 1, 2, 3, 4, 5, 6].map(|slot| (0, slot)));
        for slot in used {
            free.push(slot, SIZE);
        }
        // The first three have rested: four of this size were freed after them.
        assert_eq!((free.pop(), free.pop()), (Some((0, 2)), Some((0, 1))));
        assert!(!free.all_rest());
        assert_eq!(free.pop(), Some((0, 0)));
        assert!(free.all_rest(), "with nothing else they will do");
        assert_eq!((free.pop(), free.pop()), (Some((0, 3)), Some((0, 4))));
        free.forget(0);
        assert!(free.is_empty() && !free.all_rest());
    }

    #[test]
    fn small_slots_are_used_again_at_once_and_large_ones_after_another() {
        for (size, expected) in [(4 << 10, [9, 8]), (8 << 20, [8, 9])] {
            let mut free = FreeSlots::default();
            free.push((0, 8), size);
            free.push((0, 9), size);
            let taken = [free.pop(), free.pop()];
            assert_eq!(taken, expected.map(|slot| Some((0, slot))), "{size}");
        }
        assert_eq!(worth_having(4 << 10), 0);
        assert_eq!(worth_having(64 << 10), 64);
        assert_eq!(worth_having(4 << 20), 2);
        assert_eq!(worth_having(8 << 20), 0);
    }
}
