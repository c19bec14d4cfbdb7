//! The words of the media field and the pure state machines of Portcullis.
//!
//! Nothing here reads a clock, opens a socket, starts a task or a thread: time comes in as an argument, and
//! what has to be done goes out as a value. So each machine can be driven, recorded and replayed alone.
//!
//! ```
//! use portcullis_engine::{MediaTime, MediaType, Sample, Subtype};
//!
//! let sound = MediaType::audio(Subtype::PCM_S16, 48_000, 2);
//! let second = Sample::new(MediaTime::ZERO, MediaTime::from_secs(1), vec![0; 48_000 * 4]);
//! assert_eq!(sound.to_string(), "audio/pcm_s16le 48000 Hz 2 ch");
//! assert_eq!(second.end_time(), MediaTime::from_secs(1));
//! ```
#![forbid(unsafe_code)]

pub mod clock;
pub mod component;
pub mod credit;
pub mod error;
pub mod event;
pub mod loader;
pub mod media;
pub mod presentation;
pub mod quality;
pub mod resolve;
pub mod session;
pub mod source;
pub mod topology;
pub mod trust;

pub use clock::{ClockSnapshot, ClockState, PresentationClock, Rate, SystemTime100ns};
pub use component::{
    ByteSource, ByteStreamHandler, Component, ComponentInfo, MediaSink, MediaSource, Output,
    Registry, Role, Settings, Transform,
};
pub use error::{Error, ErrorKind, Place, Result};
pub use event::{Capabilities, CommandId, Event, EventKind, EventSource, TopologyStatus};
pub use media::{
    Attributes, ContentLimits, Key, MajorType, MediaTime, MediaType, Payload, PixelFormat, Sample,
    SampleAllocator, SampleBuffer, SampleFlags, SampleFormat, SharedView, Subtype, TimeBase, Value,
    keys, sample_keys,
};
pub use presentation::{PresentationDescriptor, StreamDescriptor, StreamId};
pub use session::{Command, Effect, Epoch, Input, Report, SessionMachine};
pub use topology::{NodeId, NodeKind, ObjectId, ObjectRef, Placement, Topology, TopologyId};
