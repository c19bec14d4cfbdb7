//! The transform role: decoders, converters, effects.

use super::output::Output;
use crate::error::Result;
use crate::media::{AllocationRequirements, MediaType, Sample};

/// Turns samples into samples. One input, one output.
///
/// Call order: `set_input`, `set_output` with one of the types it answered, then `process` for each sample and
/// `drain` at the end of the stream; after `drain` or `flush` samples may come again. A decoder that learns its output
/// type only from the samples (or whose type changes) says so with [`Output::push_format`] before the first sample of it.
/// An error of `process` concerns that sample; whether the next one can be processed is the component's to say by
/// succeeding. A panic ends the node with `Panicked`; the rest
/// of the session goes on.
pub trait Transform {
    /// Fixes the input type and answers the output types that can be made from it, best first.
    ///
    /// The default accepts what the class's description accepts and puts out the same type.
    ///
    /// # Errors
    /// `InvalidMediaType`, `UnsupportedCodec`, or `Malformed` private data.
    fn set_input(&mut self, input: &MediaType) -> Result<Vec<MediaType>> {
        Ok(vec![input.clone()])
    }

    /// Fixes the output type, one of those that `set_input` answered or one with the same subtype and other attributes.
    ///
    /// # Errors
    /// `InvalidMediaType` where that cannot be made.
    fn set_output(&mut self, output: &MediaType) -> Result<()> {
        let _ = output;
        Ok(())
    }

    /// What it asks of the memory in which samples come to it.
    fn allocation(&self) -> AllocationRequirements {
        AllocationRequirements::default()
    }

    /// Takes one sample and puts out whatever is ready: none, one or several.
    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()>;

    /// Puts out everything that is still held back: the stream ends or changes.
    fn drain(&mut self, output: &mut Output) -> Result<()> {
        let _ = output;
        Ok(())
    }

    /// Forgets everything that is held back: the position changes.
    fn flush(&mut self) {}
}

impl<T: Transform + ?Sized> Transform for Box<T> {
    fn set_input(&mut self, input: &MediaType) -> Result<Vec<MediaType>> {
        (**self).set_input(input)
    }
    fn set_output(&mut self, output: &MediaType) -> Result<()> {
        (**self).set_output(output)
    }
    fn allocation(&self) -> AllocationRequirements {
        (**self).allocation()
    }
    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        (**self).process(input, output)
    }
    fn drain(&mut self, output: &mut Output) -> Result<()> {
        (**self).drain(output)
    }
    fn flush(&mut self) {
        (**self).flush();
    }
}
