//! The memory of one node: where its component gets payloads from, and when it is better to wait.
//!
//! A component takes memory in the middle of its work, where nothing can wait: what it had made by then would be held back,
//! and whoever must give memory back may be waiting for just that. So the node waits, before it lets the component begin,
//! until there is room for a sample like the last. A component that then takes more than there is gets private memory, which
//! is copied into a slot when one is free: at most what one turn of it makes.
//!
//! What the consumers ask of the memory comes to the node's port when they are connected.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_engine::media::{AllocationRequirements, HeapAllocator};
use portcullis_engine::{Error, Result, SampleAllocator, SampleBuffer};

/// Outputs of a node that may ask for something.
const MAX_OUTPUTS: usize = 1024;

/// Gives a component the process's memory, as its consumers ask, and remembers what it took.
#[derive(Clone, Debug)]
pub(crate) struct NodeMemory {
    from: Arc<dyn SampleAllocator>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes of the payload that was asked for last.
    last: AtomicUsize,
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    by_output: BTreeMap<u32, AllocationRequirements>,
    /// By all outputs together.
    all: AllocationRequirements,
}

impl NodeMemory {
    pub(crate) fn new(from: Arc<dyn SampleAllocator>) -> Self {
        Self {
            from,
            shared: Arc::default(),
        }
    }

    /// What the component is given.
    pub(crate) fn allocator(&self) -> Arc<dyn SampleAllocator> {
        Arc::new(self.clone())
    }

    /// Takes what the consumer of an output asks for, in place of what was asked for it before.
    ///
    /// # Errors
    /// `InvalidArgument` for what makes no sense, `LimitExceeded` for more than there is.
    pub(crate) fn require(&self, output: u32, asked: AllocationRequirements) -> Result<()> {
        asked.check()?;
        let mut state = self.asked();
        let mut by_output = state.by_output.clone();
        by_output.insert(output, asked);
        let (most, found) = (MAX_OUTPUTS as u64, by_output.len() as u64);
        if found > most {
            return Err(Error::limit("outputs that ask for memory", most, found));
        }
        let none = AllocationRequirements::default();
        let all = by_output
            .values()
            .copied()
            .fold(none, AllocationRequirements::and);
        self.from.agree(all)?;
        *state = Asked { by_output, all };
        Ok(())
    }

    /// Whether there is room for another payload like the last, or it is of no use to wait for it.
    pub(crate) fn has_room(&self) -> bool {
        let last = self.shared.last.load(Ordering::Relaxed);
        last == 0 || self.from.has_room(last)
    }

    /// Resolves when there is, or when it is of no use to wait.
    pub(crate) fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.from.room(self.shared.last.load(Ordering::Relaxed))
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        // Replaced as a whole.
        self.shared
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for NodeMemory {
    /// Of a component that takes none.
    fn default() -> Self {
        Self::new(Arc::new(HeapAllocator))
    }
}

impl SampleAllocator for NodeMemory {
    fn allocate(&self, len: usize) -> SampleBuffer {
        let asked = self.asked().all;
        self.shared
            .last
            .store(len.max(asked.size as usize), Ordering::Relaxed);
        self.from.allocate_as(len, asked)
    }

    fn has_room(&self, len: usize) -> bool {
        self.from.has_room(len)
    }

    fn room(&self, len: usize) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.from.room(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::SlotAllocator;

    fn asked(size: u32, alignment: u32, count: u32) -> AllocationRequirements {
        AllocationRequirements {
            size,
            alignment,
            count,
        }
    }

    #[test]
    fn memory_is_as_all_consumers_ask() {
        let memory = NodeMemory::new(Arc::new(SlotAllocator::unlinked()));
        memory
            .require(0, asked(100_000, 1, 2))
            .expect("there is so much");
        memory
            .require(1, asked(0, 4096, 1))
            .expect("there is so much");
        let given = memory.allocate(300);
        assert_eq!((given.len(), given.as_ptr().addr() % 4096), (300, 0));
        let bytes = given.freeze();
        assert_eq!(bytes.len(), 300);
        // What one of them asked for before counts no more.
        memory.require(0, asked(0, 1, 0)).expect("nothing");
        memory.require(1, asked(0, 1, 0)).expect("nothing");
        assert!(memory.asked().all.is_none());
    }

    #[test]
    fn what_cannot_be_had_is_refused_before_the_first_sample() {
        let memory = NodeMemory::new(Arc::new(SlotAllocator::unlinked()));
        assert!(memory.require(0, asked(0, 3, 0)).is_err());
        let error = memory
            .require(0, asked(64 << 20, 1, 4))
            .expect_err("is more than all");
        assert!(error.to_string().contains("memory"), "{error}");
        memory.require(0, asked(64 << 20, 1, 3)).expect("is all");
        // The other outputs count too.
        assert!(memory.require(1, asked(0, 1, 1)).is_err());
        assert_eq!(memory.asked().all, asked(64 << 20, 1, 3));
    }
}
