//! What a component is: settings and a description, and one trait for its role.
//!
//! A component knows nothing of actors, processes or credits. It runs on one thread, needs not be `Send`, and the
//! same object works in the application, in an isolated host or in a protected one.

mod byte_stream;
mod info;
mod output;
mod registry;
mod sink;
mod source;
mod transform;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use byte_stream::{
    ByteSink, ByteSource, ByteStreamHandler, Confidence, Hints, MemorySource, OpenContext,
};
pub use info::{ComponentInfo, Role, Settings};
pub use output::{Output, OutputItem};
pub use registry::{Entry, Registry};
pub use sink::MediaSink;
pub use source::MediaSource;
pub use transform::Transform;

use crate::error::Result;

/// A thing that a registry can create by class id and settings.
///
/// Where the settings are the component itself, `#[derive(Component)]` writes this implementation.
pub trait Component: Sized + 'static {
    /// What the component is created from. Unknown fields should be refused (`deny_unknown_fields`).
    type Settings: Serialize + DeserializeOwned;
    /// Class id, role, and what is accepted and produced.
    const INFO: ComponentInfo;
    /// Creates the component. Cheap: what is expensive waits for the first use.
    fn new(settings: Self::Settings) -> Result<Self>;
}
