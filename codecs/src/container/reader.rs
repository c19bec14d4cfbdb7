//! A buffered reader over an input that always knows its byte position.
//!
//! Every container reads through this: input errors become engine errors with positions, a length that a file claims never
//! makes an allocation before the bytes have arrived, and an input that cannot seek is skipped by reading.

use std::io::SeekFrom;

use bytes::Bytes;
use portcullis_engine::{ByteSource, Error, ErrorKind, Result};

/// How much is asked of the input at once.
const CHUNK: usize = 16 << 10;

/// A position-tracking, buffered reader over a [`ByteSource`] that stands at its first byte.
pub(crate) struct Reader {
    input: Box<dyn ByteSource>,
    /// `buffer[start..]` was read from the input and not yet taken; `buffer[start]` lies at `position`.
    buffer: Vec<u8>,
    start: usize,
    position: u64,
    len: Option<u64>,
    seekable: bool,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Reader at {} of {:?}", self.position, self.len)
    }
}

macro_rules! integers {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $from:ident, $bytes:literal;)*) => {
        #[allow(dead_code, reason = "each container uses the byte order of its format")]
        impl Reader {
            $($(#[$doc])* pub(crate) fn $name(&mut self) -> Result<$type> {
                Ok(<$type>::$from(self.array::<$bytes>()?))
            })*

            /// A big-endian 24-bit integer.
            pub(crate) fn u24_be(&mut self) -> Result<u32> {
                let [a, b, c] = self.array()?;
                Ok(u32::from_be_bytes([0, a, b, c]))
            }

            /// A little-endian 24-bit integer.
            pub(crate) fn u24_le(&mut self) -> Result<u32> {
                let [a, b, c] = self.array()?;
                Ok(u32::from_le_bytes([a, b, c, 0]))
            }
        }
    };
}

integers! {
    /// One byte.
    u8: u8 = from_be_bytes, 1;
    /// A big-endian 16-bit integer.
    u16_be: u16 = from_be_bytes, 2;
    /// A big-endian 32-bit integer.
    u32_be: u32 = from_be_bytes, 4;
    /// A big-endian 64-bit integer.
    u64_be: u64 = from_be_bytes, 8;
    /// A little-endian 16-bit integer.
    u16_le: u16 = from_le_bytes, 2;
    /// A little-endian 32-bit integer.
    u32_le: u32 = from_le_bytes, 4;
    /// A little-endian 64-bit integer.
    u64_le: u64 = from_le_bytes, 8;
}

#[allow(dead_code, reason = "each container uses what its format needs")]
impl Reader {
    /// A reader over an input that stands at its first byte.
    pub(crate) fn new(input: Box<dyn ByteSource>) -> Self {
        Self {
            len: input.byte_len(),
            seekable: input.is_seekable(),
            input,
            buffer: Vec::new(),
            start: 0,
            position: 0,
        }
    }

    /// Byte position of what is read next.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The input's length, where it is known.
    pub(crate) fn len(&self) -> Option<u64> {
        self.len
    }

    /// Bytes from here to the end of the input, where its length is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        self.len.map(|len| len.saturating_sub(self.position))
    }

    /// Whether `seek` can go back.
    pub(crate) fn is_seekable(&self) -> bool {
        self.seekable
    }

    /// The next bytes without taking them: `want`, or fewer where the input ends before.
    pub(crate) fn peek(&mut self, want: usize) -> Result<&[u8]> {
        self.fill(want)?;
        let have = self.buffered().min(want);
        Ok(&self.buffer[self.start..self.start + have])
    }

    /// Whether the input ends here.
    pub(crate) fn at_end(&mut self) -> Result<bool> {
        Ok(self.peek(1)?.is_empty())
    }

    /// Fills `into`, or fails with `Truncated` at the input's end.
    pub(crate) fn read_exact(&mut self, into: &mut [u8]) -> Result<()> {
        let from = self.position;
        let mut done = 0;
        while done < into.len() {
            let got = self.read_some(&mut into[done..])?;
            if got == 0 {
                return Err(self.ends_inside(from, into.len() as u64));
            }
            done += got;
        }
        Ok(())
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The next `len` bytes, or `Truncated`. The caller has checked `len` against its limit; memory grows only as bytes arrive.
    pub(crate) fn read_vec(&mut self, len: u64) -> Result<Vec<u8>> {
        let from = self.position;
        let bytes = self.read_up_to(len)?;
        if (bytes.len() as u64) < len {
            return Err(self.ends_inside(from, len));
        }
        Ok(bytes)
    }

    /// As [`Self::read_vec`], as a payload.
    pub(crate) fn read_bytes(&mut self, len: u64) -> Result<Bytes> {
        self.read_vec(len).map(Bytes::from)
    }

    /// The next `len` bytes, or fewer where the input ends before.
    pub(crate) fn read_up_to(&mut self, len: u64) -> Result<Vec<u8>> {
        // A known length is trusted for one allocation; an unknown or wrong one is grown into.
        let expected = len.min(self.remaining().unwrap_or(0)).min(1 << 20) as usize;
        let mut bytes = Vec::with_capacity(expected);
        while (bytes.len() as u64) < len {
            let done = bytes.len();
            let ahead = done
                .clamp(CHUNK, 1 << 20)
                .max(expected.saturating_sub(done));
            let want = (len - done as u64).min(ahead as u64) as usize;
            bytes.resize(done + want, 0);
            let got = self.read_some(&mut bytes[done..])?;
            bytes.truncate(done + got);
            if got == 0 {
                break;
            }
        }
        Ok(bytes)
    }

    /// Goes forward by `count` bytes, or fails with `Truncated` where the input is known to end before.
    pub(crate) fn skip(&mut self, count: u64) -> Result<()> {
        match self.position.checked_add(count) {
            Some(to) => self.seek(to),
            None => Err(self.ends_inside(self.position, count)),
        }
    }

    /// Goes to a byte position. A forward-only input goes forward by reading and refuses to go back.
    ///
    /// A position behind a known end is `Truncated`; with an unknown length the next read says so.
    pub(crate) fn seek(&mut self, to: u64) -> Result<()> {
        if let Some(ahead) = to.checked_sub(self.position)
            && let Ok(ahead) = usize::try_from(ahead)
            && ahead <= self.buffered()
        {
            self.take(ahead);
            return Ok(());
        }
        if let Some(back) = self.position.checked_sub(to)
            && back <= self.start as u64
        {
            self.start -= back as usize;
            self.position = to;
            return Ok(());
        }
        if let Some(len) = self.len
            && to > len
        {
            return Err(Error::truncated(len, format!("the way to byte {to}")));
        }
        if self.seekable {
            self.input
                .seek(SeekFrom::Start(to))
                .map_err(|error| Error::io(format!("seeking to byte {to}"), &error))?;
            self.buffer.clear();
            self.start = 0;
            self.position = to;
            return Ok(());
        }
        if to < self.position {
            return Err(Error::new(ErrorKind::NotSeekable {
                what: format!("going back from byte {} to {to}", self.position).into(),
            }));
        }
        while self.position < to {
            let ahead = (to - self.position).min(CHUNK as u64) as usize;
            self.fill(ahead)?;
            if self.buffered() == 0 {
                return Err(Error::truncated(
                    self.position,
                    format!("the way to byte {to}"),
                ));
            }
            self.take(ahead.min(self.buffered()));
        }
        Ok(())
    }

    /// `Truncated` at the input's end, said of something of `len` bytes that begins at `from`.
    fn ends_inside(&self, from: u64, len: u64) -> Error {
        Error::truncated(self.position, format!("{len} bytes from byte {from}"))
    }

    fn buffered(&self) -> usize {
        self.buffer.len() - self.start
    }

    fn take(&mut self, count: usize) {
        self.start += count;
        self.position += count as u64;
    }

    /// Reads once, from the buffer or, where much is wanted, straight from the input; 0 at the end.
    fn read_some(&mut self, into: &mut [u8]) -> Result<usize> {
        if self.buffered() == 0 && into.len() >= CHUNK {
            let got = self.read_input(into)?;
            self.buffer.clear();
            self.start = 0;
            self.position += got as u64;
            return Ok(got);
        }
        self.fill(1)?;
        let got = self.buffered().min(into.len());
        into[..got].copy_from_slice(&self.buffer[self.start..self.start + got]);
        self.take(got);
        Ok(got)
    }

    /// Makes at least `want` bytes available, or all that the input has.
    fn fill(&mut self, want: usize) -> Result<()> {
        if self.buffered() >= want {
            return Ok(());
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        while self.buffer.len() < want {
            let have = self.buffer.len();
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.resize(have + CHUNK, 0);
            let got = self.read_input(&mut buffer[have..]);
            buffer.truncate(have + got.as_ref().copied().unwrap_or(0));
            self.buffer = buffer;
            if got? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn read_input(&mut self, into: &mut [u8]) -> Result<usize> {
        loop {
            match self.input.read(into) {
                Ok(got) => return Ok(got.min(into.len())),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let at = self.position + self.buffered() as u64;
                    return Err(Error::io(format!("reading at byte {at}"), &error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_engine::component::MemorySource;

    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n % 251) as u8).collect()
    }

    fn both(len: usize) -> [Reader; 2] {
        [
            Reader::new(Box::new(MemorySource::new(bytes(len)))),
            Reader::new(Box::new(MemorySource::forward_only(bytes(len)))),
        ]
    }

    #[test]
    fn reads_and_tracks_the_position() {
        for mut reader in both(100_000) {
            assert_eq!(reader.u16_be().unwrap(), 0x0001);
            assert_eq!(reader.u24_le().unwrap(), 0x04_03_02);
            assert_eq!(reader.peek(3).unwrap(), [5, 6, 7]);
            assert_eq!(reader.position(), 5);
            reader.skip(70_000).unwrap();
            assert_eq!(reader.u8().unwrap(), (70_005 % 251) as u8);
            assert_eq!(reader.read_vec(29_000).unwrap().len(), 29_000);
            assert_eq!(reader.peek(10_000).unwrap().len(), 994);
        }
    }

    #[test]
    fn a_short_input_is_truncated_where_it_ends() {
        for mut reader in both(10) {
            let error = reader.read_vec(u64::MAX).unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Truncated { at: 10, .. }),
                "{error}"
            );
        }
        for mut reader in both(10) {
            let error = reader.skip(11).unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Truncated { at: 10, .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn only_a_seekable_input_goes_back() {
        let [mut seekable, mut forward] = both(100_000);
        seekable.seek(90_000).unwrap();
        seekable.seek(2).unwrap();
        assert_eq!(seekable.u8().unwrap(), 2);
        forward.seek(90_000).unwrap();
        let error = forward.seek(2).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::NotSeekable { .. }),
            "{error}"
        );
        assert_eq!(forward.u8().unwrap(), (90_000 % 251) as u8);
    }
}
