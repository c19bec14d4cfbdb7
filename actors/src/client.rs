//! What an application holds: a session and a reader, wherever they run.
//!
//! Everything here is `Send` and works on any executor.

mod events;
mod grabber;
mod reader;
mod resolution;
mod session;

pub use events::EventStream;
pub(crate) use events::matters;
pub use grabber::GrabbedSamples;
pub use reader::{
    Output, OutputFormat, PictureFormat, SampleStream, SoundFormat, SourceReader,
    SourceReaderBuilder, StreamSelector,
};
pub use resolution::Resolution;
pub use session::{MediaSession, MediaSessionBuilder, Placement, PmpFlags, SourceSide};
