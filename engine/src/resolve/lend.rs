//! One input for several handlers, one after the other.
//!
//! A handler takes its input by value. What it is given puts the input back when it is dropped, so the next handler can
//! have it; the one that succeeds keeps it and reads without a detour.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::PROBE_BYTES;
use crate::component::ByteSource;
use crate::error::{Error, ErrorKind, Result};

/// The first bytes of an input: [`PROBE_BYTES`], or all of a shorter one. A seekable input is read from its beginning,
/// wherever it stands.
pub(super) fn read_head(input: &mut dyn ByteSource) -> Result<Bytes> {
    if input.is_seekable() {
        rewind(input)?;
    }
    let mut head = vec![0; PROBE_BYTES];
    let mut len = 0;
    while len < head.len() {
        match input.read(&mut head[len..]) {
            Ok(0) => break,
            Ok(read) => len += read.min(PROBE_BYTES - len),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("reading the first bytes", &error)),
        }
    }
    head.truncate(len);
    Ok(head.into())
}

fn rewind(input: &mut dyn ByteSource) -> Result<()> {
    input
        .seek(SeekFrom::Start(0))
        .map(|_| ())
        .map_err(|error| Error::io("seeking to the first byte", &error))
}

/// Holds the input between tries.
pub(super) struct Lender {
    kept: Arc<Mutex<Option<Kept>>>,
    head: Bytes,
}

struct Kept {
    input: Box<dyn ByteSource>,
    /// Bytes that were taken from the input after the head.
    taken: u64,
}

impl Lender {
    /// Takes an input whose head was just read.
    pub(super) fn new(input: Box<dyn ByteSource>, head: Bytes) -> Self {
        Self {
            kept: Arc::new(Mutex::new(Some(Kept { input, taken: 0 }))),
            head,
        }
    }

    /// The input at its first byte; `None` where it was read past the head and cannot go back.
    pub(super) fn lend(&self) -> Result<Option<Box<dyn ByteSource>>> {
        let mut slot = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut kept) = slot.take() else {
            return Err(Error::new(ErrorKind::InvalidRequest(
                "a handler failed and kept the input".into(),
            )));
        };
        if kept.input.is_seekable() {
            rewind(kept.input.as_mut())?;
            return Ok(Some(Box::new(Lent {
                input: Some(kept),
                head: Bytes::new(),
                replayed: 0,
                home: Arc::clone(&self.kept),
            })));
        }
        if kept.taken > 0 {
            *slot = Some(kept);
            return Ok(None);
        }
        Ok(Some(Box::new(Lent {
            input: Some(kept),
            head: self.head.clone(),
            replayed: 0,
            home: Arc::clone(&self.kept),
        })))
    }
}

/// The input in the hands of a handler. `head` is what is given again before the input itself; empty for a seekable one.
struct Lent {
    input: Option<Kept>,
    head: Bytes,
    replayed: usize,
    home: Arc<Mutex<Option<Kept>>>,
}

impl Lent {
    fn kept(&self) -> &Kept {
        self.input.as_ref().expect("taken out only by drop")
    }

    fn kept_mut(&mut self) -> &mut Kept {
        self.input.as_mut().expect("taken out only by drop")
    }
}

impl Read for Lent {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let ahead = &self.head[self.replayed..];
        if !ahead.is_empty() {
            let len = ahead.len().min(into.len());
            into[..len].copy_from_slice(&ahead[..len]);
            self.replayed += len;
            return Ok(len);
        }
        let kept = self.kept_mut();
        let read = kept.input.read(into)?;
        kept.taken = kept.taken.saturating_add(read as u64);
        Ok(read)
    }
}

impl Seek for Lent {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            _ if self.kept().input.is_seekable() => self.kept_mut().input.seek(to),
            SeekFrom::Current(0) => Ok(self.kept().taken + self.replayed as u64),
            _ => Err(io::ErrorKind::NotSeekable.into()),
        }
    }
}

impl ByteSource for Lent {
    fn byte_len(&self) -> Option<u64> {
        self.kept().input.byte_len()
    }

    fn is_seekable(&self) -> bool {
        self.kept().input.is_seekable()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        *home = self.input.take();
    }
}
