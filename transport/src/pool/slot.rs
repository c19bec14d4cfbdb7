//! A slot in the hands of its owner: first writable by one, then, frozen, readable by all.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;

use super::Shared;
use crate::sys::segment::SlotMemory;

/// A slot being written. Dropping it, or the last of the `Bytes` frozen from it, gives it back to its pool.
pub struct SlotMut {
    /// Declared before the ticket: the memory must be given up before the pool may hand it out again.
    memory: SlotMemory,
    len: usize,
    ticket: Ticket,
}

impl SlotMut {
    pub(super) fn new(memory: SlotMemory, ticket: Ticket, len: usize) -> Self {
        debug_assert!(len <= memory.len());
        Self {
            memory,
            len,
            ticket,
        }
    }

    /// Keeps the first `len` bytes, if there are more.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Ends writing. The bytes stay where they are; the pool recognises them and any part of them.
    pub fn freeze(self) -> Bytes {
        if self.len == 0 {
            return Bytes::new();
        }
        Bytes::from_owner(Frozen(self))
    }
}

impl Deref for SlotMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.get(..self.len).unwrap_or_default()
    }
}

impl DerefMut for SlotMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(..self.len).unwrap_or_default()
    }
}

impl fmt::Debug for SlotMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotMut")
            .field("segment", &self.ticket.segment)
            .field("slot", &self.ticket.slot)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

struct Frozen(SlotMut);

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The right to a slot: tells the pool when it ends.
pub(super) struct Ticket {
    pool: Arc<Shared>,
    segment: u32,
    slot: u32,
}

impl Ticket {
    pub(super) fn new(pool: Arc<Shared>, segment: u32, slot: u32) -> Self {
        Self {
            pool,
            segment,
            slot,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pool.put_back(self.segment, self.slot);
    }
}
