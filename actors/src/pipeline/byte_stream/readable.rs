//! What a byte stream's actor reads, one read after another.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use portcullis_engine::Error;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use super::input::AsyncReadSeek;
use super::{Read, WAITING_READS};

/// Pieces of a body that one read puts together: others have their turn too.
const MAX_PIECES: usize = 4096;

/// What an actor reads.
pub(crate) enum Readable {
    Bytes(Bytes),
    Seekable(Box<dyn AsyncReadSeek>),
    Stream {
        body: BoxStream<'static, io::Result<Bytes>>,
        rest: Bytes,
        /// What came behind bytes that are answered first.
        failed: Option<io::Error>,
        position: u64,
    },
}

/// Serves reads until nobody can ask any more.
pub(super) async fn serve(mut input: Readable, mut reads: mpsc::Receiver<Read>) {
    let mut waiting = VecDeque::new();
    loop {
        let next = match waiting.pop_front() {
            Some(read) => Some(read),
            None => reads.recv().await,
        };
        let Some((read, mut answer)) = next else {
            return;
        };
        let again = input.can_read_again();
        let mut gone = false;
        let outcome = {
            let mut reading = std::pin::pin!(input.read(read.at, read.len as usize));
            loop {
                tokio::select! {
                    outcome = &mut reading => break outcome,
                    // A stream's data would be lost if its read were dropped: only positions can be read again. Once
                    // nobody can ask for it, an input that gives none must not be held for ever.
                    () = answer.closed(), if again || gone => break Err(io::ErrorKind::Interrupted.into()),
                    next = reads.recv(), if !gone && waiting.len() < WAITING_READS => match next {
                        Some(next) => waiting.push_back(next),
                        None => gone = true,
                    },
                }
            }
        };
        // The asker may have gone.
        let _ = answer.send(outcome.map_err(|error| Error::io("read of the input", &error)));
    }
}

impl Readable {
    /// A body that comes once.
    pub(super) fn stream(body: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self::Stream {
            // The end may be asked for more than once.
            body: body.fuse().boxed(),
            rest: Bytes::new(),
            failed: None,
            position: 0,
        }
    }

    fn can_read_again(&self) -> bool {
        !matches!(self, Self::Stream { .. })
    }

    async fn read(&mut self, at: u64, len: usize) -> io::Result<Bytes> {
        match self {
            Self::Bytes(bytes) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(from..from.saturating_add(len).min(bytes.len())))
            }
            Self::Seekable(input) => {
                input.seek(io::SeekFrom::Start(at)).await?;
                let mut bytes = Vec::with_capacity(len);
                // Full chunks: a short one would cost another round trip.
                input.take(len as u64).read_to_end(&mut bytes).await?;
                Ok(bytes.into())
            }
            Self::Stream {
                body,
                rest,
                failed,
                position,
            } => {
                if at != *position {
                    return Err(io::ErrorKind::NotSeekable.into());
                }
                while rest.is_empty() {
                    if let Some(error) = failed.take() {
                        return Err(error);
                    }
                    match body.next().await {
                        Some(chunk) => *rest = chunk?,
                        None => return Ok(Bytes::new()),
                    }
                }
                let mut bytes = rest.split_to(len.min(rest.len()));
                if bytes.len() < len {
                    bytes = gather(bytes, len, body, rest, failed);
                }
                *position += bytes.len() as u64;
                Ok(bytes)
            }
        }
    }
}

/// Small pieces that are there already, put behind `first`: each answer costs a round trip.
fn gather(
    first: Bytes,
    len: usize,
    body: &mut BoxStream<'static, io::Result<Bytes>>,
    rest: &mut Bytes,
    failed: &mut Option<io::Error>,
) -> Bytes {
    let mut bytes = BytesMut::new();
    for _ in 0..MAX_PIECES {
        let known = first.len() + bytes.len();
        if known >= len {
            break;
        }
        match body.next().now_or_never() {
            Some(Some(Ok(mut piece))) => {
                bytes.extend_from_slice(&piece.split_to(piece.len().min(len - known)));
                *rest = piece;
            }
            Some(Some(Err(error))) => {
                *failed = Some(error);
                break;
            }
            // The end is told again; what is still to come is waited for next time.
            Some(None) | None => break,
        }
    }
    if bytes.is_empty() {
        return first;
    }
    let mut whole = BytesMut::with_capacity(first.len() + bytes.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&bytes);
    whole.freeze()
}
