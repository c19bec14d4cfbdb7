//! Sample pools: recycled slots of shared memory that this process writes and its peers read.
//!
//! A slot's life is Free -> held (by a [`SlotMut`] or the `Bytes` frozen from it) and leased (to peers, any number of
//! times) -> Free when it is neither. All of that is private to the owner: in the shared memory there is nothing but
//! samples, so a dead or lying peer can disturb nobody's accounts. What each peer has is in the accounts of its [`Lender`];
//! one pool may have several. A pool lives as long as its links, because a fresh mapping of 3 MiB costs milliseconds and a
//! recycled one microseconds.

mod free_slots;
mod lender;
mod peer;
mod slot;
mod table;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

pub use lender::{Lender, LenderLimits};
pub use peer::{PeerPool, PeerPoolLimits, PeerTerms, SlotView};
pub use slot::SlotMut;

use crate::error::PoolExhausted;
use crate::handshake::LinkLimits;
use slot::Ticket;
use table::Table;

/// Bytes of the smallest slot.
const MIN_SLOT: usize = 4 << 10;

/// Bytes of the largest slot.
pub const MAX_SLOT: usize = 256 << 20;

/// What a pool may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Most bytes mapped by all slots together. Pages count as mapped from the first, but cost memory only once written.
    ///
    /// A segment of one slot size is given up when other sizes are wanted. A peer that was told of it is told that too, but may
    /// keep its memory for as long as it lives, and this process cannot see whether it does. Of such memory there is at
    /// most four times as much again; beyond that segments that peers know are given up no more until those peers are
    /// gone ([`Lender::revoke_all`]), and what finds no slot of its size goes without.
    pub max_bytes: usize,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 20,
        }
    }
}

impl From<LinkLimits> for PoolLimits {
    /// What a link's peer is ready to map.
    fn from(agreed: LinkLimits) -> Self {
        Self {
            max_bytes: (agreed.pool_mebibytes as usize) << 20,
        }
    }
}

/// Where in a pool some bytes lie: what is sent instead of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotRef {
    /// The segment's number, given to it for this peer and never used again.
    pub segment: u32,
    /// The slot's number in its segment.
    pub slot: u32,
    /// Which use of the slot.
    pub generation: u32,
    /// Where in the slot the bytes begin.
    pub offset: u32,
    /// How many they are.
    pub len: u32,
}

/// What a peer sends when it is done with a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotRelease {
    /// The segment's id.
    pub segment: u32,
    /// The slot's number in its segment.
    pub slot: u32,
    /// Which use of the slot.
    pub generation: u32,
    /// How many leases are given back.
    pub count: u32,
}

/// What a peer must be told before the next slot reference.
#[derive(Debug)]
#[non_exhaustive]
pub enum PoolNews {
    /// There is a new segment.
    Added {
        /// Its id.
        segment: u32,
        /// Bytes of each slot.
        slot_size: u32,
        /// How many slots.
        slots: u32,
        /// The sealed file, for the peer to map.
        descriptor: OwnedFd,
    },
    /// A segment of which the peer has nothing is told no more: it can unmap it.
    Retired {
        /// Its id.
        segment: u32,
    },
}

/// What a pool is using now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolUsage {
    /// Bytes of all segments.
    pub mapped_bytes: usize,
    /// Bytes of segments that were given up and that peers may still keep.
    pub left_bytes: usize,
    /// Slots held in this process.
    pub held: usize,
    /// Slots leased to peers (some of them also held here).
    pub leased: usize,
    /// Slots that are neither.
    pub free: usize,
}

/// A pool of slots. Clones are the same pool; it may be used from any thread.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    table: Mutex<Table>,
    freed: Notify,
}

impl Pool {
    /// An empty pool. Nothing is mapped before the first slot is asked for.
    pub fn new(limits: PoolLimits) -> Self {
        Self {
            shared: Arc::new(Shared {
                table: Mutex::new(Table::new(limits.max_bytes)),
                freed: Notify::new(),
            }),
        }
    }

    /// A slot of exactly `len` bytes. Its content is whatever its last use left.
    ///
    /// # Errors
    /// When all is in use (transient), or when `len` can never be had.
    pub fn allocate(&self, len: usize) -> Result<SlotMut, PoolExhausted> {
        let taken = self.shared.table().take(len)?;
        let ticket = Ticket::new(self.shared.clone(), taken.segment, taken.slot);
        Ok(SlotMut::new(taken.memory, ticket, len))
    }

    /// A slot of exactly `len` bytes, as soon as there is one. Works on any executor.
    ///
    /// # Errors
    /// When `len` can never be had.
    pub async fn allocate_when_free(&self, len: usize) -> Result<SlotMut, PoolExhausted> {
        loop {
            // Made before looking, so that a slot freed in between is not missed.
            let freed = self.shared.freed.notified();
            match self.allocate(len) {
                Err(error) if error.transient => freed.await,
                result => return result,
            }
        }
    }

    /// Slots of exactly these lengths, all together, as soon as there are so many. Works on any executor.
    ///
    /// # Errors
    /// When they can never be had, or when the peer has no slot that could come back: what this process itself holds it
    /// may hold for long.
    pub async fn allocate_all_when_lent(
        &self,
        lens: &[usize],
    ) -> Result<Vec<SlotMut>, PoolExhausted> {
        loop {
            // Made before looking, so that a slot freed in between is not missed.
            let freed = self.shared.freed.notified();
            let (taken, is_lent) = {
                let mut table = self.shared.table();
                (table.take_all(lens), table.is_lent())
            };
            match taken {
                Ok(taken) => {
                    let slots = taken.into_iter().zip(lens).map(|(taken, len)| {
                        let ticket = Ticket::new(self.shared.clone(), taken.segment, taken.slot);
                        SlotMut::new(taken.memory, ticket, *len)
                    });
                    return Ok(slots.collect());
                }
                Err(error) if error.transient && is_lent => freed.await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Resolves when a slot for `len` bytes could be had, or when none is to come because no peer has any. It takes none.
    /// Works on any executor.
    pub async fn room_when_lent(&self, len: usize) {
        loop {
            // Made before looking, so that a slot freed in between is not missed.
            let freed = self.shared.freed.notified();
            if self.has_room_or_none_lent(len) {
                return;
            }
            freed.await;
        }
    }

    /// Whether a slot for `len` bytes could be had now, or none is to come because no peer has any.
    pub fn has_room_or_none_lent(&self, len: usize) -> bool {
        let mut table = self.shared.table();
        table.has_room(len) || !table.is_lent()
    }

    /// Whether so many slots for `len` bytes fit in the pool at once, if nothing else is in it.
    pub fn could_hold(&self, len: usize, count: usize) -> bool {
        self.shared.table().could_hold(len, count)
    }

    /// Whether `bytes` lie in a slot of this pool: then they need not be copied to cross.
    pub fn contains(&self, bytes: &Bytes) -> bool {
        self.shared.table().locate(bytes).is_some()
    }

    /// Whether both are the same pool.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Most bytes of all slots.
    pub fn max_bytes(&self) -> usize {
        self.shared.table().max_bytes()
    }

    fn unlease(&self, segment: u32, slot: u32, count: u32) {
        let wake = self.shared.table().unlease(segment, slot, count);
        self.shared.wake(wake);
    }

    /// What is in use.
    pub fn usage(&self) -> PoolUsage {
        self.shared.table().usage()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After the lock is gone, so that the woken do not run into it.
    fn wake(&self, wake: bool) {
        if wake {
            self.freed.notify_waiters();
        }
    }

    /// A slot's last holder in this process is gone.
    fn put_back(&self, segment: u32, slot: u32) {
        let wake = self.table().put_back(segment, slot);
        self.wake(wake);
    }
}

#[cfg(test)]
mod tests;
