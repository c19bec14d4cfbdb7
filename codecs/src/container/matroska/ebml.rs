//! EBML: elements with an id and a size (RFC 8794).

use portcullis_engine::{Error, ErrorKind, Result};

use crate::container::reader::Reader;

/// The header of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    /// The id with its length marker, as the specification writes it.
    pub(crate) id: u32,
    /// Byte position of the header.
    pub(crate) at: u64,
    /// Byte position of the content.
    pub(crate) data_at: u64,
    /// Bytes of content; `None` where the element does not say.
    pub(crate) size: Option<u64>,
}

impl Element {
    /// The header that begins here, which is not taken; `None` at the end of the input.
    pub(crate) fn peek(reader: &mut Reader) -> Result<Option<Self>> {
        let at = reader.position();
        let bytes = reader.peek(12)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        Self::parse(bytes, at).map(Some)
    }

    /// Takes the header: the reader stands at the content.
    pub(crate) fn enter(&self, reader: &mut Reader) -> Result<()> {
        reader.seek(self.data_at)
    }

    /// Goes behind the element.
    pub(crate) fn skip(&self, reader: &mut Reader) -> Result<()> {
        let end = self.end()?;
        reader.seek(end).map_err(|error| self.inside(error))
    }

    /// Takes the whole content, of at most `max` bytes.
    pub(crate) fn read(&self, reader: &mut Reader, max: u64) -> Result<Vec<u8>> {
        self.enter(reader)?;
        let size = self.known_size()?;
        if size > max {
            return Err(match reader.len() {
                // What the input cannot hold is no matter of limits.
                Some(len) if len - self.data_at.min(len) < size => {
                    self.inside(Error::truncated(len, ""))
                }
                _ => Error::limit("header bytes", max, size)
                    .because(format!("element {:#X} at byte {}", self.id, self.at)),
            });
        }
        reader.read_vec(size).map_err(|error| self.inside(error))
    }

    /// Where the element ends, where it says.
    pub(crate) fn known_end(&self) -> Option<u64> {
        self.size.map(|size| self.data_at.saturating_add(size))
    }

    /// Where the element ends.
    pub(crate) fn end(&self) -> Result<u64> {
        let size = self.known_size()?;
        Ok(self.data_at.saturating_add(size))
    }

    /// Bytes of content, which every element but a segment and a cluster must say.
    pub(crate) fn known_size(&self) -> Result<u64> {
        self.size.ok_or_else(|| {
            Error::malformed(self.at, format!("element {:#X} of unknown size", self.id))
        })
    }

    /// Says of an input that ends inside of this element where the element begins.
    pub(crate) fn inside(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Truncated { at, .. } => Error::truncated(
                *at,
                format!("element {:#X}, which begins at byte {}", self.id, self.at),
            ),
            _ => error,
        }
    }

    /// The header at the begin of `bytes`, which lie at byte `at`.
    pub(crate) fn parse(bytes: &[u8], at: u64) -> Result<Self> {
        let ends =
            || Error::truncated(at + bytes.len() as u64, format!("the element at byte {at}"));
        let first = *bytes.first().ok_or_else(ends)?;
        let id_len = first.leading_zeros() as usize + 1;
        if id_len > 4 {
            return Err(Error::malformed(
                at,
                format!("byte {first:#04x} begins no element"),
            ));
        }
        let (id, rest) = bytes.split_at_checked(id_len).ok_or_else(ends)?;
        let id = id.iter().fold(0, |id, &byte| id << 8 | u32::from(byte));
        if rest.first() == Some(&0) {
            return Err(Error::malformed(
                at,
                format!("element {id:#X} with a size of more than 8 bytes"),
            ));
        }
        let (size, size_len) = number(rest).ok_or_else(ends)?;
        Ok(Self {
            id,
            at,
            data_at: at + (id_len + size_len) as u64,
            size: (size != (1 << (7 * size_len)) - 1).then_some(size),
        })
    }
}

/// A variable-length number without its length marker, and its length; `None` where the bytes end before.
pub(crate) fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let len = bytes.first()?.leading_zeros() as usize + 1;
    if len > 8 {
        return None;
    }
    let value = unsigned(bytes.get(..len)?)?;
    Some((value & ((1 << (7 * len)) - 1), len))
}

/// A big-endian integer of up to 8 bytes.
pub(crate) fn unsigned(bytes: &[u8]) -> Option<u64> {
    let append = |value, &byte| value << 8 | u64::from(byte);
    (bytes.len() <= 8).then(|| bytes.iter().fold(0, append))
}

/// A big-endian signed integer of up to 8 bytes.
pub(crate) fn signed(bytes: &[u8]) -> Option<i64> {
    let value = unsigned(bytes)?;
    if bytes.is_empty() {
        return Some(0);
    }
    let unused = 64 - 8 * bytes.len() as u32;
    Some(((value << unused) as i64) >> unused)
}

/// The children of a master element whose content is in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Children<'a> {
    bytes: &'a [u8],
    at: u64,
}

impl<'a> Children<'a> {
    /// The children in `bytes`, which begin at byte `at` of the input.
    pub(crate) fn new(bytes: &'a [u8], at: u64) -> Self {
        Self { bytes, at }
    }

    /// The next child.
    pub(crate) fn next(&mut self) -> Result<Option<Child<'a>>> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let out = |what: String| Error::malformed(self.at, what + " reaches out of its parent");
        let element = Element::parse(self.bytes, self.at).map_err(|error| match error.kind() {
            ErrorKind::Truncated { .. } => out("an element".to_owned()),
            _ => error,
        })?;
        let content = &self.bytes[(element.data_at - self.at) as usize..];
        let size = usize::try_from(element.known_size()?).unwrap_or(usize::MAX);
        let (bytes, rest) = content
            .split_at_checked(size)
            .ok_or_else(|| out(format!("element {:#X}", element.id)))?;
        self.at = element.data_at + size as u64;
        self.bytes = rest;
        Ok(Some(Child { element, bytes }))
    }
}

/// A child with its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Child<'a> {
    pub(crate) element: Element,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Child<'a> {
    /// The child's own children.
    pub(crate) fn children(&self) -> Children<'a> {
        Children::new(self.bytes, self.element.data_at)
    }

    /// An unsigned integer.
    pub(crate) fn unsigned(&self) -> Result<u64> {
        unsigned(self.bytes).ok_or_else(|| self.refuse("an integer"))
    }

    /// An unsigned integer that fits 32 bits.
    pub(crate) fn small(&self) -> Result<u32> {
        u32::try_from(self.unsigned()?).map_err(|_| self.refuse("an integer of 32 bits"))
    }

    /// A real number.
    pub(crate) fn real(&self) -> Result<f64> {
        let value = match *self.bytes {
            [] => 0.0,
            [a, b, c, d] => f64::from(f32::from_be_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => f64::from_be_bytes([a, b, c, d, e, f, g, h]),
            _ => return Err(self.refuse("a real number")),
        };
        if value.is_finite() {
            Ok(value)
        } else {
            Err(self.refuse("a finite number"))
        }
    }

    /// A text; it ends at a zero.
    pub(crate) fn text(&self) -> String {
        let end = self.bytes.iter().position(|&byte| byte == 0);
        String::from_utf8_lossy(&self.bytes[..end.unwrap_or(self.bytes.len())]).into_owned()
    }

    fn refuse(&self, what: &str) -> Error {
        Error::malformed(
            self.element.at,
            format!("element {:#X} is not {what}", self.element.id),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length() {
        assert_eq!(number(&[0x81]), Some((1, 1)));
        assert_eq!(number(&[0x40, 2]), Some((2, 2)));
        assert_eq!(number(&[1, 0, 0, 0, 0, 0, 0, 3]), Some((3, 8)));
        assert_eq!(number(&[0, 1, 2, 3, 4, 5, 6, 7, 8]), None);
        assert_eq!(number(&[0x40]), None);
        assert_eq!(signed(&[0xff, 0xfe]), Some(-2));
        assert_eq!(signed(&[]), Some(0));
        assert_eq!(signed(&[0x0e, 0xf0, 0xdf]), Some(979_167));
    }

    #[test]
    fn a_child_stays_in_its_parent() {
        let error = Children::new(&[0xae, 0x85, 1], 100).next().err();
        let kind = error.as_ref().map(Error::kind);
        assert!(
            matches!(kind, Some(ErrorKind::Malformed { at: 100, .. })),
            "{error:?}"
        );
    }
}
