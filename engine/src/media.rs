//! The words for media itself: time, types, samples.

mod allocation;
mod attributes;
mod limits;
mod media_type;
mod payload;
mod sample;
mod time;

pub use allocation::AllocationRequirements;
pub use attributes::{AttributeValue, Attributes, Key, Value};
pub use limits::{ContentLimits, Usage};
pub use media_type::{MajorType, MediaType, PixelFormat, SampleFormat, Subtype, keys};
pub use payload::{
    HeapAllocator, Payload, PayloadPort, PayloadRef, SampleAllocator, SampleBuffer, SharedView,
    WritableMemory, with_payload_port,
};
pub use sample::{Sample, SampleFlags, sample_keys};
pub use time::{MediaTime, TimeBase};
