//! The sink role.

use super::byte_stream::ByteSink;
use crate::error::{Error, Result};
use crate::media::{AllocationRequirements, MediaType, Sample};

/// Consumes samples of one or more streams, numbered from 0 in the order in which they were connected.
///
/// The sink's actor asks for samples, waits for their time by the presentation clock and gives them here; a sink
/// never waits by itself.
pub trait MediaSink {
    /// Fixes the type of a stream, before its first sample and whenever it changes.
    ///
    /// # Errors
    /// `InvalidMediaType` where the sink does not take it.
    fn set_type(&mut self, stream: u32, media_type: &MediaType) -> Result<()>;

    /// What it asks of the memory in which a stream's samples come.
    fn allocation(&self, stream: u32) -> AllocationRequirements {
        let _ = stream;
        AllocationRequirements::default()
    }

    /// Consumes one sample.
    fn render(&mut self, stream: u32, sample: Sample) -> Result<()>;

    /// The stream has ended; samples may come again after a new start.
    fn end_of_stream(&mut self, stream: u32) -> Result<()> {
        let _ = stream;
        Ok(())
    }

    /// Completes what is written, once, when the session closes.
    fn finalize(&mut self) -> Result<()> {
        Ok(())
    }

    /// Whether samples are wanted as fast as they come, whatever the clock says.
    fn is_rateless(&self) -> bool {
        false
    }

    /// The URL that this sink writes to. The actor asks the session's opener for it and calls `attach` before anything else.
    fn output_url(&self) -> Option<&str> {
        None
    }

    /// Gives the opened output.
    fn attach(&mut self, output: Box<dyn ByteSink>) -> Result<()> {
        let _ = output;
        Err(Error::invalid_request("this sink writes no byte stream"))
    }
}
