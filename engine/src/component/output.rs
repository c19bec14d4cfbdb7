//! Where a transform puts what it makes.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::media::{
    ContentLimits, HeapAllocator, MediaType, Sample, SampleAllocator, SampleBuffer,
};

/// One thing that a transform put out.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum OutputItem {
    /// A sample.
    Sample(Sample),
    /// What follows is of this type.
    Format(MediaType),
}

/// Where a transform puts what it makes, with the memory and the limits to make it.
#[derive(Debug)]
pub struct Output {
    items: VecDeque<OutputItem>,
    allocator: Arc<dyn SampleAllocator>,
    limits: ContentLimits,
}

impl Default for Output {
    fn default() -> Self {
        Self::new(Arc::new(HeapAllocator), ContentLimits::default())
    }
}

impl Output {
    /// An empty output over this memory.
    pub fn new(allocator: Arc<dyn SampleAllocator>, limits: ContentLimits) -> Self {
        Self {
            items: VecDeque::new(),
            allocator,
            limits,
        }
    }

    /// Puts out one sample.
    pub fn push(&mut self, sample: Sample) {
        self.items.push_back(OutputItem::Sample(sample));
    }

    /// Says that the samples after this are of another type.
    pub fn push_format(&mut self, media_type: MediaType) {
        self.items.push_back(OutputItem::Format(media_type));
    }

    /// Memory for a payload of exactly `len` bytes with unspecified content; shared with the consumer where that saves a copy.
    pub fn allocate(&self, len: usize) -> SampleBuffer {
        self.allocator.allocate(len)
    }

    /// What content may ask for. A decoder checks picture sizes with it before it allocates.
    pub fn limits(&self) -> &ContentLimits {
        &self.limits
    }

    /// The oldest item that was not taken yet.
    pub fn take(&mut self) -> Option<OutputItem> {
        self.items.pop_front()
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The samples that wait, for tests of a component alone; formats are dropped.
    pub fn take_samples(&mut self) -> Vec<Sample> {
        self.items
            .drain(..)
            .filter_map(|item| match item {
                OutputItem::Sample(sample) => Some(sample),
                OutputItem::Format(_) => None,
            })
            .collect()
    }
}
