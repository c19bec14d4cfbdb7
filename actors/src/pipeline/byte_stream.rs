//! Byte streams: the application's input as an actor, and the blocking reader that a demuxer gets of it.

mod blocking;
mod input;
mod readable;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use actix::{Actor, Handler};
use bytes::Bytes;
use portcullis_derive::Remote;
use portcullis_engine::{ByteSource, Error, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub use input::Input;
use readable::Readable;

use crate::bridge::{Context, FileDescriptor, Handle, ReplyFuture};

crate::interface! {
    /// Reads of an input that stays where it is.
    pub ByteStream = "portcullis.ByteStream" { ReadBytes }
}

/// Reads at a position. A stream that cannot seek answers only reads that go on where the last one ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Bytes, no_deadline)]
pub struct ReadBytes {
    /// Byte position.
    pub at: u64,
    /// Bytes at most; fewer are answered where fewer come at once, none only at the end.
    pub len: u32,
}

/// Bytes that one read answers at most.
pub const MAX_READ: u32 = 1 << 20;

/// An opened input, wherever it is read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenedStream {
    /// How it is read.
    pub access: Access,
    /// Length in bytes, where it is known.
    pub len: Option<u64>,
    /// Whether it can be read anywhere.
    pub seekable: bool,
    /// Name of the input for messages.
    pub name: String,
    /// File name extension, in lower case.
    pub extension: Option<String>,
    /// MIME type.
    pub mime_type: Option<String>,
}

/// How an opened input is read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Access {
    /// A regular file's read-only descriptor.
    File(FileDescriptor),
    /// An actor that reads it.
    Actor(Handle<ByteStream>),
    /// The bytes themselves.
    Bytes(Bytes),
}

impl OpenedStream {
    /// The blocking reader for a demuxer. Reads fail with `Cancelled` once `cancel` is dropped or has fired.
    ///
    /// # Errors
    /// When the descriptor was taken before or is not a regular file.
    pub(crate) fn into_source(self, cancel: Cancel) -> Result<Box<dyn ByteSource>> {
        blocking::open(self, cancel)
    }
}

/// Tells a blocked reader to give up.
#[derive(Clone, Debug)]
pub(crate) struct Cancel(pub(crate) tokio::sync::watch::Receiver<bool>);

/// Fires a [`Cancel`] when it is dropped.
#[derive(Debug)]
pub(crate) struct CancelGuard(tokio::sync::watch::Sender<bool>);

impl CancelGuard {
    pub(crate) fn new() -> (Self, Cancel) {
        let (sender, receiver) = tokio::sync::watch::channel(false);
        (Self(sender), Cancel(receiver))
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// Reads at one byte stream that wait, or whose bytes are held, at most.
const WAITING_READS: usize = 16;

type Read = (ReadBytes, oneshot::Sender<Result<Bytes>>);

/// Serves reads of one input.
pub(crate) struct ByteStreamActor {
    reads: mpsc::Sender<Read>,
    /// What was read counts until nobody holds it any more: a peer that asks and does not take costs no more than that.
    held: Arc<Semaphore>,
}

/// Bytes that were read, and their place among those that are held.
struct Held {
    bytes: Bytes,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl ByteStreamActor {
    /// Starts serving `input` on this arbiter.
    pub(crate) fn create(input: Readable) -> Handle<ByteStream> {
        let (reads, queue) = mpsc::channel(WAITING_READS);
        actix_rt::spawn(readable::serve(input, queue));
        let held = Arc::new(Semaphore::new(WAITING_READS));
        Handle::start(Self { reads, held })
    }
}

impl fmt::Debug for ByteStreamActor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ByteStreamActor")
    }
}

impl Actor for ByteStreamActor {
    type Context = Context<Self>;
}

impl Handler<ReadBytes> for ByteStreamActor {
    type Result = ReplyFuture<Bytes>;

    fn handle(&mut self, read: ReadBytes, _: &mut Self::Context) -> Self::Result {
        let (answer, bytes) = oneshot::channel();
        let read = ReadBytes {
            len: read.len.min(MAX_READ),
            ..read
        };
        let place = Arc::clone(&self.held).try_acquire_owned();
        let (Ok(place), Ok(())) = (place, self.reads.try_send((read, answer))) else {
            return ReplyFuture::ready(Err(Error::invalid_request(
                "too many reads wait at one byte stream",
            )));
        };
        ReplyFuture::new(async move {
            let bytes = bytes.await.unwrap_or_else(|_| Err(Error::cancelled()))?;
            Ok(Bytes::from_owner(Held {
                bytes,
                _place: place,
            }))
        })
    }
}

/// Whether this is a regular file.
pub(crate) fn is_regular_file(descriptor: &OwnedFd) -> bool {
    rustix::fs::fstat(descriptor).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
    })
}
