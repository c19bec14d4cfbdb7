//! Blocks: one or, laced together, several frames of a track.

use bytes::Bytes;
use portcullis_engine::{Error, Result};

use super::ebml::{Element, number};
use crate::container::reader::Reader;

/// What stands at the begin of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHead {
    /// The track's number.
    pub(crate) track: u64,
    /// Time from the cluster's.
    pub(crate) relative: i16,
    /// Key mark of a simple block, lacing.
    flags: u8,
    /// Byte position of what follows.
    pub(crate) data_at: u64,
    /// Bytes that follow.
    pub(crate) len: u64,
}

impl BlockHead {
    /// Reads the head of a block element; the reader stands at what follows.
    pub(crate) fn read(element: &Element, reader: &mut Reader) -> Result<Self> {
        element.enter(reader)?;
        let size = element.known_size()?;
        let want = size.min(11) as usize;
        let bytes = reader.peek(want)?;
        if bytes.len() < want {
            let at = element.data_at + bytes.len() as u64;
            return Err(element.inside(Error::truncated(at, "")));
        }
        let head = number(bytes).and_then(|(track, len)| match *bytes.get(len..len + 3)? {
            [high, low, flags] => Some((track, i16::from_be_bytes([high, low]), flags, len + 3)),
            _ => None,
        });
        let Some((track, relative, flags, len)) = head else {
            return Err(Error::malformed(element.at, "a block without its head"));
        };
        reader.skip(len as u64)?;
        Ok(Self {
            track,
            relative,
            flags,
            data_at: element.data_at + len as u64,
            len: size - len as u64,
        })
    }

    /// The key mark, which only simple blocks have.
    pub(crate) fn is_key(&self) -> bool {
        self.flags & 0x80 != 0
    }

    /// The frames in what follows the head, with their byte positions.
    pub(crate) fn frames(&self, payload: &Bytes) -> Result<Vec<(Bytes, u64)>> {
        let malformed =
            || Error::malformed(self.data_at, "a block whose lacing does not fit its size");
        if self.flags & 6 == 0 {
            return Ok(vec![(payload.clone(), self.data_at)]);
        }
        let (&last, mut rest) = payload.split_first().ok_or_else(malformed)?;
        let last = usize::from(last);
        let mut sizes = match self.flags & 6 {
            2 => xiph_sizes(&mut rest, last),
            6 => ebml_sizes(&mut rest, last),
            _ if rest.len() % (last + 1) == 0 => Some(vec![rest.len() / (last + 1); last]),
            _ => None,
        }
        .ok_or_else(malformed)?;
        let laced = sizes.iter().try_fold(0_usize, |sum, &n| sum.checked_add(n));
        let remaining = laced.and_then(|laced| rest.len().checked_sub(laced));
        sizes.push(remaining.ok_or_else(malformed)?);
        let mut from = payload.len() - rest.len();
        let frame = |size| {
            let frame = (payload.slice(from..from + size), self.data_at + from as u64);
            from += size;
            frame
        };
        Ok(sizes.into_iter().map(frame).collect())
    }
}

/// Sizes of `count` frames, each a sum of bytes that ends with one below 255.
fn xiph_sizes(rest: &mut &[u8], count: usize) -> Option<Vec<usize>> {
    let mut sizes = Vec::with_capacity(count);
    for _ in 0..count {
        let mut size = 0;
        loop {
            let (&byte, after) = rest.split_first()?;
            *rest = after;
            size += usize::from(byte);
            if byte < 255 {
                break;
            }
        }
        sizes.push(size);
    }
    Some(sizes)
}

/// Sizes of `count` frames: the first as a number, the others as differences.
fn ebml_sizes(rest: &mut &[u8], count: usize) -> Option<Vec<usize>> {
    let mut sizes = Vec::with_capacity(count);
    let mut size = 0_i64;
    for index in 0..count {
        let (value, len) = number(rest)?;
        *rest = &rest[len..];
        let value = i64::try_from(value).ok()?;
        let bias = (1 << (7 * len - 1)) - 1;
        size = match index {
            0 => value,
            _ => size.checked_add(value - bias)?,
        };
        sizes.push(usize::try_from(size).ok()?);
    }
    Some(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lens(flags: u8, payload: &[u8]) -> Option<Vec<usize>> {
        let head = BlockHead {
            track: 1,
            relative: 0,
            flags,
            data_at: 0,
            len: payload.len() as u64,
        };
        let frames = head.frames(&Bytes::copy_from_slice(payload)).ok()?;
        Some(frames.iter().map(|(frame, _)| frame.len()).collect())
    }

    #[test]
    fn three_kinds_of_lacing() {
        let mut xiph = vec![2, 255, 1, 3];
        xiph.resize(4 + 256 + 3 + 10, 0);
        assert_eq!(lens(2, &xiph), Some(vec![256, 3, 10]));
        // 800, 500, 1000: the example of the specification.
        let mut ebml = vec![2, 0x43, 0x20, 0x5e, 0xd3];
        ebml.resize(5 + 800 + 500 + 1000, 0);
        assert_eq!(lens(6, &ebml), Some(vec![800, 500, 1000]));
        assert_eq!(lens(4, &[1, 0, 0, 0, 0]), Some(vec![2, 2]));
        assert_eq!(lens(0, &[1, 2, 3]), Some(vec![3]));
    }

    #[test]
    fn lacing_that_does_not_fit_is_refused() {
        assert_eq!(lens(4, &[1, 0, 0, 0]), None);
        assert_eq!(lens(2, &[1, 255, 255]), None);
        assert_eq!(lens(2, &[1, 9, 0]), None);
        assert_eq!(lens(6, &[2, 0x81, 0x80, 0, 0]), None);
        assert_eq!(lens(6, &[1, 1, 255, 255, 255, 255, 255, 255, 255]), None);
        assert_eq!(lens(6, &[]), None);
    }
}
