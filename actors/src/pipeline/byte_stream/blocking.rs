//! The blocking reader that a demuxer gets on its worker.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use futures::executor::block_on;
use futures::future::{Either, select};
use portcullis_engine::component::MemorySource;
use portcullis_engine::{ByteSource, Error, ErrorKind, Result};

use super::{Access, ByteStream, Cancel, OpenedStream, ReadBytes, is_regular_file};
use crate::bridge::{Call, Handle};

/// Bytes that one request asks for; the next one is asked for before these are used up.
const CHUNK: u32 = 128 << 10;

pub(super) fn open(stream: OpenedStream, cancel: Cancel) -> Result<Box<dyn ByteSource>> {
    match stream.access {
        Access::File(descriptor) => {
            let descriptor = descriptor.take().ok_or_else(|| {
                Error::invalid_request("the descriptor of a byte stream was taken before")
            })?;
            if !is_regular_file(&descriptor) {
                return Err(Error::new(ErrorKind::Protocol(
                    "a byte stream that is not a regular file".into(),
                )));
            }
            let file = File::from(descriptor);
            let len = file
                .metadata()
                .map_err(|error| Error::io("length of the input", &error))?
                .len();
            Ok(Box::new(FileReader {
                file,
                len,
                position: 0,
                cancel,
            }))
        }
        Access::Bytes(bytes) => Ok(Box::new(MemorySource::new(bytes))),
        Access::Actor(actor) => Ok(Box::new(ActorReader {
            actor,
            len: stream.len,
            seekable: stream.seekable,
            position: 0,
            chunk: Bytes::new(),
            chunk_at: 0,
            ahead: None,
            cancel,
        })),
    }
}

/// Reads a file at positions of its own: whoever has another descriptor of it may move the file's.
struct FileReader {
    file: File,
    len: u64,
    position: u64,
    cancel: Cancel,
}

impl Read for FileReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        check(&self.cancel)?;
        let count = self.file.read_at(into, self.position)?;
        self.position = self.position.saturating_add(count as u64);
        Ok(count)
    }
}

impl Seek for FileReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl ByteSource for FileReader {
    fn byte_len(&self) -> Option<u64> {
        Some(self.len)
    }
    fn is_seekable(&self) -> bool {
        true
    }
}

/// Reads through an actor, one chunk ahead.
struct ActorReader {
    actor: Handle<ByteStream>,
    len: Option<u64>,
    seekable: bool,
    position: u64,
    chunk: Bytes,
    chunk_at: u64,
    /// The request for the bytes behind the chunk, and where they begin.
    ahead: Option<(u64, Call<ReadBytes>)>,
    cancel: Cancel,
}

impl ActorReader {
    fn request(&self, at: u64) -> Call<ReadBytes> {
        self.actor.send(ReadBytes { at, len: CHUNK })
    }

    fn fetch(&mut self) -> io::Result<()> {
        let call = match self.ahead.take() {
            Some((at, call)) if at == self.position => call,
            // The position has changed: dropping the old request cancels it.
            _ => self.request(self.position),
        };
        let mut cancel = self.cancel.0.clone();
        let outcome = block_on(async {
            let cancelled = std::pin::pin!(cancel.wait_for(|fired| *fired));
            match select(Box::pin(call), cancelled).await {
                Either::Left((bytes, _)) => bytes,
                Either::Right(_) => Err(Error::cancelled()),
            }
        });
        self.chunk = outcome.map_err(io::Error::other)?;
        if self.chunk.len() > CHUNK as usize {
            self.chunk = Bytes::new();
            return Err(io::Error::other(Error::new(ErrorKind::Protocol(
                "more bytes than were asked for".into(),
            ))));
        }
        self.chunk_at = self.position;
        let next = self.chunk_at.saturating_add(self.chunk.len() as u64);
        if !self.chunk.is_empty() && self.len.is_none_or(|len| next < len) {
            self.ahead = Some((next, self.request(next)));
        }
        Ok(())
    }
}

impl Read for ActorReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        let held = self.chunk_at..self.chunk_at.saturating_add(self.chunk.len() as u64);
        if !held.contains(&self.position) {
            if self.len.is_some_and(|len| self.position >= len) {
                return Ok(0);
            }
            self.fetch()?;
        }
        let from = usize::try_from(self.position - self.chunk_at).unwrap_or(usize::MAX);
        let rest = self.chunk.get(from..).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for ActorReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.len.and_then(|len| len.checked_add_signed(by)),
        };
        let target = target.ok_or(io::ErrorKind::InvalidInput)?;
        if target != self.position && !self.seekable {
            return Err(io::ErrorKind::NotSeekable.into());
        }
        self.position = target;
        Ok(target)
    }
}

impl ByteSource for ActorReader {
    fn byte_len(&self) -> Option<u64> {
        self.len
    }
    fn is_seekable(&self) -> bool {
        self.seekable
    }
}

fn check(cancel: &Cancel) -> io::Result<()> {
    if *cancel.0.borrow() {
        return Err(io::Error::other(Error::cancelled()));
    }
    Ok(())
}
