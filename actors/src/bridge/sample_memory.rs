//! Memory that several hosts share, by the application's word.

use std::fmt;

use portcullis_transport::{Pool, PoolLimits};

/// Of what a link's peer maps the largest part is for this memory; the rest is for what other hosts lend and is passed on.
const MOST: usize = 192 << 20;

/// Memory of the application for samples that go to several hosts, and the word that these hosts may see each other's samples.
///
/// By itself each host has memory of its own: what was lent to one is copied for another. Hosts that are given the same
/// `SampleMemory` are lent the same slots, and what one of them has made is passed on to another as it is, without a copy.
/// The price is that each of them can read, besides the samples that it is given, whatever else is in the memory that they
/// share: give it only to hosts between which there is nothing to hide. None can write another's samples. A host that keeps
/// all that it is lent keeps at most half of this memory.
#[derive(Clone)]
pub struct SampleMemory(Pool);

impl SampleMemory {
    /// Memory for the hosts to which it is given.
    pub fn new() -> Self {
        Self(Pool::new(PoolLimits { max_bytes: MOST }))
    }

    #[cfg(test)]
    pub(crate) fn of_size(max_bytes: usize) -> Self {
        Self(Pool::new(PoolLimits { max_bytes }))
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.0
    }
}

impl Default for SampleMemory {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for SampleMemory {
    fn eq(&self, other: &Self) -> bool {
        self.0.is(&other.0)
    }
}

impl Eq for SampleMemory {}

impl fmt::Debug for SampleMemory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SampleMemory({:?})", self.0.usage())
    }
}
