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

/// Bytes that are worth a round trip.
const WORTH: usize = 16 << 10;

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

/// Small pieces that are there already, put behind `first`: each answer costs a round trip. An answer of [`WORTH`] bytes goes as
/// it is, without a copy.
fn gather(
    first: Bytes,
    len: usize,
    body: &mut BoxStream<'static, io::Result<Bytes>>,
    rest: &mut Bytes,
    failed: &mut Option<io::Error>,
) -> Bytes {
    if first.len() >= WORTH.min(len) {
        return first;
    }
    let mut bytes = BytesMut::from(first);
    for _ in 0..MAX_PIECES {
        if bytes.len() >= WORTH.min(len) {
            break;
        }
        match body.next().now_or_never() {
            Some(Some(Ok(mut piece))) => {
                bytes.extend_from_slice(&piece.split_to(piece.len().min(len - bytes.len())));
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
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(pieces: Vec<io::Result<Bytes>>) -> Readable {
        Readable::stream(futures::stream::iter(pieces))
    }

    async fn read(input: &mut Readable, at: usize) -> io::Result<usize> {
        input
            .read(at as u64, 64 << 10)
            .await
            .map(|bytes| bytes.len())
    }

    #[tokio::test]
    async fn small_pieces_are_put_together_and_what_follows_is_told_next() {
        let mut small: Vec<_> = (0..20)
            .map(|_| Ok(Bytes::from_static(b"1234567")))
            .collect();
        small.push(Err(io::ErrorKind::ConnectionReset.into()));
        let mut input = pieces(small);
        assert_eq!(read(&mut input, 0).await.unwrap(), 140);
        let error = read(&mut input, 140).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(read(&mut input, 140).await.unwrap(), 0, "the end");
        assert_eq!(read(&mut input, 140).await.unwrap(), 0, "the end again");
    }

    #[tokio::test]
    async fn a_large_piece_goes_as_it_is_and_one_too_large_in_parts() {
        let large = Bytes::from(vec![0; 100 << 10]);
        let mut input = pieces(vec![Ok(large.clone()), Ok(large.slice(..10))]);
        let first = input.read(0, 64 << 10).await.unwrap();
        assert_eq!((first.as_ptr(), first.len()), (large.as_ptr(), 64 << 10));
        assert_eq!(read(&mut input, 64 << 10).await.unwrap(), 36 << 10);
        assert_eq!(read(&mut input, 100 << 10).await.unwrap(), 10);
    }
}
