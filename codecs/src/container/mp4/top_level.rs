//! The boxes of the file itself, walked one header at a time.

use portcullis_engine::{ContentLimits, Error, ErrorKind, Result};

use super::data::{Data, FourCc, name};
use crate::container::reader::Reader;

/// The header of a box at the top of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BoxHeader {
    pub(super) kind: FourCc,
    /// Where the box begins.
    pub(super) at: u64,
    /// Where its content begins; the reader stands there.
    pub(super) content: u64,
    /// Where it ends; `None` where it is open: to the end of the input.
    pub(super) end: Option<u64>,
}

impl BoxHeader {
    /// The whole content, for boxes that are kept in memory.
    pub(super) fn read(&self, reader: &mut Reader, limits: &ContentLimits) -> Result<Data> {
        let bytes = match self.end {
            Some(end) => {
                let len = end - self.content;
                if let Some(input) = reader.len().filter(|input| *input < end) {
                    return Err(Error::truncated(
                        input,
                        format!("box {} at byte {}", name(self.kind), self.at),
                    ));
                }
                let at = format!("box {} at byte {}", name(self.kind), self.at);
                limits
                    .check_header(len)
                    .map_err(|error| error.because(at))?;
                reader.read_vec(len)?
            }
            None => {
                let bytes = reader.read_up_to(limits.max_header_bytes.saturating_add(1))?;
                limits.check_header(bytes.len() as u64)?;
                bytes
            }
        };
        Ok(Data::new(bytes, self.content))
    }
}

/// A walk over the boxes of the file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TopLevel {
    /// Where the next box begins.
    next: u64,
    /// The box before it was media data and begins here; it may claim more than there is.
    data: Option<u64>,
    /// The input ended inside of that box, at this byte.
    cut_off: Option<u64>,
}

impl TopLevel {
    /// A walk from a box on.
    pub(super) fn from(next: u64) -> Self {
        Self {
            next,
            ..Self::default()
        }
    }

    /// Why the walk ended before the media data that it stands behind did, if so.
    pub(super) fn cut_off(&self) -> Option<Error> {
        let (at, end) = (self.data?, self.cut_off?);
        let len = self.next - at;
        Some(Error::truncated(
            end,
            format!("box mdat at byte {at}, {len} bytes"),
        ))
    }

    /// Where the next box begins.
    pub(super) fn position(&self) -> u64 {
        self.next
    }

    /// The next box's header, or `None` at the end of the input.
    pub(super) fn next(&mut self, reader: &mut Reader) -> Result<Option<BoxHeader>> {
        let at = self.next;
        if at == u64::MAX {
            return Ok(None);
        }
        if let Err(error) = reader.seek(at) {
            return match error.kind() {
                // Media data that claims more than there is ends with the input: who needs what lies behind it asks for `cut_off`.
                ErrorKind::Truncated { at, .. } if self.data.is_some() => {
                    self.cut_off = Some(*at);
                    Ok(None)
                }
                _ => Err(error),
            };
        }
        // Some writers fill up with zeros; fewer than a box header has are no box.
        let head = reader.peek(8)?;
        if head.len() < 8 && head.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let size = reader.u32_be()?;
        let kind: FourCc = reader.array()?;
        let end = match size {
            0 => None,
            1 => Some((reader.u64_be()?, 16)),
            size => Some((u64::from(size), 8)),
        };
        let content = reader.position();
        let end = match end {
            None => None,
            Some((size, header)) => Some(
                at.checked_add(size)
                    .filter(|end| size >= header && i64::try_from(*end).is_ok())
                    .ok_or_else(|| {
                        Error::malformed(at, format!("box {} of {size} bytes", name(kind)))
                    })?,
            ),
        };
        self.next = end.unwrap_or(u64::MAX);
        self.data = (kind == *b"mdat").then_some(at);
        Ok(Some(BoxHeader {
            kind,
            at,
            content,
            end,
        }))
    }
}

/// Whether this is a movie fragment.
pub(super) fn is_fragment(header: &BoxHeader) -> bool {
    header.kind == *b"moof"
}
