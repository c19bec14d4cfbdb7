//! The content of a box in memory, read field by field with its byte position in the file.

use bytes::{Buf, Bytes};
use portcullis_engine::{Error, Result};

/// A box type.
pub(super) type FourCc = [u8; 4];

/// Unread bytes of a box together with where they lie in the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Data {
    bytes: Bytes,
    at: u64,
}

macro_rules! integers {
    ($($name:ident: $type:ty = $bytes:literal;)*) => {
        impl Data {
            $(pub(super) fn $name(&mut self) -> Result<$type> {
                Ok(<$type>::from_be_bytes(self.array::<$bytes>()?))
            })*
        }
    };
}

integers! {
    u8: u8 = 1;
    u16: u16 = 2;
    i16: i16 = 2;
    u32: u32 = 4;
    i32: i32 = 4;
    u64: u64 = 8;
    i64: i64 = 8;
}

impl Data {
    pub(super) fn new(bytes: impl Into<Bytes>, at: u64) -> Self {
        Self {
            bytes: bytes.into(),
            at,
        }
    }

    /// Byte position of what is read next.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The unread bytes. They share the memory of the box around them.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// A copy of the unread bytes, which does not keep the memory of the box around them.
    pub(super) fn to_owned_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some(array) = self.bytes.first_chunk::<N>().copied() else {
            return Err(self.too_short(N));
        };
        self.bytes.advance(N);
        self.at += N as u64;
        Ok(array)
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<()> {
        self.take(count).map(drop)
    }

    /// The next `count` bytes as data of their own.
    pub(super) fn take(&mut self, count: usize) -> Result<Self> {
        if count > self.bytes.len() {
            return Err(self.too_short(count));
        }
        let taken = Self::new(self.bytes.split_to(count), self.at);
        self.at += count as u64;
        Ok(taken)
    }

    /// Version and flags of a full box.
    pub(super) fn version_and_flags(&mut self) -> Result<(u8, u32)> {
        let word = self.u32()?;
        Ok(((word >> 24) as u8, word & 0x00ff_ffff))
    }

    /// A 32-bit or, where `wide`, 64-bit unsigned integer.
    pub(super) fn unsigned(&mut self, wide: bool) -> Result<u64> {
        if wide {
            self.u64()
        } else {
            self.u32().map(u64::from)
        }
    }

    /// The next child box, or `None` where fewer bytes are left than a box header has.
    pub(super) fn child(&mut self) -> Result<Option<(FourCc, Self)>> {
        if self.bytes.len() < 8 {
            return Ok(None);
        }
        let at = self.at;
        let size = self.u32()?;
        let kind: FourCc = self.array()?;
        let content = match size {
            0 => self.bytes.len() as u64,
            1 => self.u64()?.checked_sub(16).ok_or_else(|| {
                Error::malformed(at, format!("box {} is smaller than its header", name(kind)))
            })?,
            _ => u64::from(size).checked_sub(8).ok_or_else(|| {
                Error::malformed(at, format!("box {} of {size} bytes", name(kind)))
            })?,
        };
        let Some(content) = usize::try_from(content)
            .ok()
            .filter(|len| *len <= self.bytes.len())
        else {
            return Err(Error::malformed(
                at,
                format!(
                    "box {} claims {content} bytes, {} are left in the box around it",
                    name(kind),
                    self.bytes.len()
                ),
            ));
        };
        Ok(Some((kind, self.take(content)?)))
    }

    /// `Malformed` here.
    pub(super) fn malformed(&self, what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::malformed(self.at, what)
    }

    fn too_short(&self, wanted: usize) -> Error {
        self.malformed(format!(
            "{wanted} bytes are wanted where the box has {} left",
            self.bytes.len()
        ))
    }
}

/// A box type as text for messages and codec tags.
pub(super) fn name(kind: FourCc) -> String {
    kind.iter()
        .flat_map(|byte| std::ascii::escape_default(*byte))
        .map(char::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_end_at_the_parent() {
        let mut data = Data::new(&b"\0\0\0\x09freeX\0\0\0\0moov\x01\x02"[..], 100);
        let (kind, free) = data.child().unwrap().unwrap();
        assert_eq!((&kind, free.position(), free.len()), (b"free", 108, 1));
        let (kind, moov) = data.child().unwrap().unwrap();
        assert_eq!((&kind, moov.len()), (b"moov", 2));
        assert!(data.child().unwrap().is_none());
    }

    #[test]
    fn a_wrong_size_is_malformed_where_the_box_begins() {
        for bytes in [
            &b"\0\0\0\x07free"[..],
            b"\0\0\0\x09free",
            b"\0\0\0\x01free\0\0\0\0\0\0\0\x0f",
            b"\0\0\0\x01free\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let error = Data::new(bytes, 7).child().unwrap_err();
            assert!(
                error.to_string().starts_with("malformed input at byte 7"),
                "{error}"
            );
        }
    }
}
