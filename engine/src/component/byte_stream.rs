//! Byte streams as components see them, and the role that makes sources from them.

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use bytes::Bytes;

use super::source::MediaSource;
use crate::error::Result;
use crate::media::ContentLimits;

/// Blocking input: reads block on the worker that the component runs on.
///
/// On cancel, shutdown or loss a pending read fails with an [`io::Error`] that holds the project's own error;
/// [`Error::io`](crate::Error::io) takes it out again.
pub trait ByteSource: Read + Seek + Send {
    /// Length in bytes, where it is known.
    fn byte_len(&self) -> Option<u64>;
    /// Whether `seek` works; where it does not, a forward seek that skips may still fail.
    fn is_seekable(&self) -> bool;
}

/// Blocking output.
pub trait ByteSink: Write + Seek + Send {}

impl<T: Write + Seek + Send> ByteSink for T {}

/// A byte source over memory.
#[derive(Debug, Clone)]
pub struct MemorySource {
    bytes: Cursor<Bytes>,
    seekable: bool,
}

impl MemorySource {
    /// A seekable source over these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: Cursor::new(bytes.into()),
            seekable: true,
        }
    }

    /// A source that can only be read forward and does not know its length, like an upload.
    pub fn forward_only(bytes: impl Into<Bytes>) -> Self {
        Self {
            seekable: false,
            ..Self::new(bytes)
        }
    }
}

impl Read for MemorySource {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(into)
    }
}

impl Seek for MemorySource {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Current(0) => Ok(self.bytes.position()),
            _ if self.seekable => self.bytes.seek(to),
            _ => Err(io::ErrorKind::NotSeekable.into()),
        }
    }
}

impl ByteSource for MemorySource {
    fn byte_len(&self) -> Option<u64> {
        self.seekable.then_some(self.bytes.get_ref().len() as u64)
    }
    fn is_seekable(&self) -> bool {
        self.seekable
    }
}

/// How sure a handler is that an input is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// It is not.
    No,
    /// Only the name or MIME type says so.
    Hint,
    /// The bytes may be its own: a weak pattern, such as a sync word.
    Maybe,
    /// The bytes carry its signature.
    Sure,
}

/// What is known of an input besides its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// File name extension in lower case, without the dot.
    pub extension: Option<String>,
    /// MIME type.
    pub mime_type: Option<String>,
}

/// What a handler is given besides the input.
#[derive(Clone, Debug, Default)]
pub struct OpenContext {
    /// What the content may ask for.
    pub limits: ContentLimits,
    /// What is known of the input.
    pub hints: Hints,
}

/// Makes a source from a byte stream: a container format.
pub trait ByteStreamHandler {
    /// Looks at the first bytes (up to 4 KiB; fewer only if the input is shorter).
    fn probe(&self, head: &[u8], hints: &Hints) -> Confidence;

    /// Reads headers and makes the source. The input stands at its first byte.
    ///
    /// # Errors
    /// `Malformed`, `Truncated`, `UnsupportedByteStream`, `NotSeekable`, `LimitExceeded`. A stream whose codec is unknown is no
    /// error: it is listed with a subtype that no decoder accepts.
    fn open(
        &self,
        input: Box<dyn ByteSource>,
        context: &OpenContext,
    ) -> Result<Box<dyn MediaSource>>;
}
