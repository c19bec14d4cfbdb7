//! Pages: the unit of Ogg framing, each with its own checksum.

use bytes::Bytes;
use portcullis_engine::{Error, Result};

use crate::container::reader::Reader;

/// The longest page: header, 255 lacing values, 255 full segments.
pub(crate) const MAX_PAGE: usize = 27 + 255 + 255 * 255;

/// Bytes of false pages that one search looks at before it gives up.
pub(crate) const SEARCH_BUDGET: u64 = 64 * MAX_PAGE as u64;

const CONTINUED: u8 = 1;
const BEGINS: u8 = 2;
const ENDS: u8 = 4;

/// One page whose checksum was right.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// Byte position of the capture pattern.
    pub(crate) at: u64,
    flags: u8,
    /// End position of the last packet that is complete on this page, in the codec's units; `None` where none is.
    pub(crate) granule: Option<u64>,
    /// Which logical stream this is a page of.
    pub(crate) serial: u32,
    /// Number of the page in its logical stream.
    pub(crate) sequence: u32,
    /// Lengths of the pieces of packets, and whether the packet ends with the piece.
    pub(crate) pieces: Vec<(usize, bool)>,
    /// The pieces, back to back.
    pub(crate) body: Bytes,
    /// Byte position of the body.
    pub(crate) body_at: u64,
}

impl Page {
    /// Reads the page that begins here; `None` at the end of the input. Of one that is damaged nothing is taken.
    pub(crate) fn read(reader: &mut Reader) -> Result<Option<Self>> {
        let at = reader.position();
        let head = reader.peek(27)?;
        if head.is_empty() {
            return Ok(None);
        }
        if !b"OggS".starts_with(&head[..head.len().min(4)]) {
            return Err(Error::malformed(at, "no Ogg page where one should begin"));
        }
        let lacing = head.get(26).map_or(0, |&count| usize::from(count));
        let len = claimed_len(reader.peek(27 + lacing)?);
        let bytes = reader.peek(len)?;
        if bytes.len() < len {
            let end = at + bytes.len() as u64;
            return Err(Error::truncated(end, format!("the Ogg page at byte {at}")));
        }
        let page = Self::parse(at, bytes)?;
        reader.skip(len as u64)?;
        Ok(Some(page))
    }

    /// The first whole page with a right checksum that begins in `from..until`; the reader is left where it begins.
    ///
    /// What only looks like one costs a checksum over what it claims to be: at most `budget` bytes of those, which is
    /// lessened, are looked at.
    pub(crate) fn find(
        reader: &mut Reader,
        from: u64,
        until: u64,
        budget: &mut u64,
    ) -> Result<Option<Self>> {
        reader.seek(from)?;
        while reader.position() < until {
            let window = reader.peek(MAX_PAGE)?;
            if window.len() < 27 {
                break;
            }
            let Some(offset) = window.windows(4).position(|four| four == b"OggS") else {
                // The last three bytes may begin a capture pattern.
                let skipped = window.len() - 3;
                reader.skip(skipped as u64)?;
                continue;
            };
            if offset > 0 {
                reader.skip(offset as u64)?;
                continue;
            }
            let at = reader.position();
            if at >= until {
                break;
            }
            let window = reader.peek(MAX_PAGE)?;
            let claimed = claimed_len(window);
            if let Some(page) = window.get(..claimed).map(|bytes| Self::parse(at, bytes))
                && let Ok(page) = page
            {
                return Ok(Some(page));
            }
            match budget.checked_sub(claimed as u64) {
                Some(left) => *budget = left,
                None => break,
            }
            reader.skip(1)?;
        }
        Ok(None)
    }

    /// Byte position behind the page.
    pub(crate) fn end(&self) -> u64 {
        self.body_at + self.body.len() as u64
    }

    /// The first page of a logical stream.
    pub(crate) fn begins(&self) -> bool {
        self.flags & BEGINS != 0
    }

    /// The last page of a logical stream.
    pub(crate) fn ends(&self) -> bool {
        self.flags & ENDS != 0
    }

    /// Whether the first piece goes on with the packet that the page before left open.
    pub(crate) fn continued(&self) -> bool {
        self.flags & CONTINUED != 0
    }

    /// The page that `bytes` are exactly.
    fn parse(at: u64, bytes: &[u8]) -> Result<Self> {
        let &[.., version, flags, g0, g1, g2, g3, g4, g5, g6, g7] = &bytes[..bytes.len().min(14)]
        else {
            return Err(Error::malformed(at, "no Ogg page header"));
        };
        let split = bytes.split_at_checked(27).and_then(|(header, rest)| {
            let (lacing, body) = rest.split_at_checked(usize::from(header[26]))?;
            Some((header, lacing, Bytes::copy_from_slice(body)))
        });
        let Some((header, lacing, body)) = split else {
            return Err(Error::malformed(at, "no Ogg page header"));
        };
        let body_at = at + 27 + lacing.len() as u64;
        if version != 0 {
            return Err(Error::malformed(
                at,
                format!("Ogg page of version {version}"),
            ));
        }
        let word = |from: usize| {
            let mut four = [0; 4];
            four.copy_from_slice(&header[from..from + 4]);
            u32::from_le_bytes(four)
        };
        let mut crc = checksum(0, &header[..22]);
        crc = checksum(crc, &[0, 0, 0, 0, header[26]]);
        crc = checksum(crc, lacing);
        crc = checksum(crc, &body);
        if crc != word(22) {
            return Err(Error::malformed(
                at,
                "the checksum of the Ogg page is wrong",
            ));
        }
        let granule = match i64::from_le_bytes([g0, g1, g2, g3, g4, g5, g6, g7]) {
            -1 => None,
            granule => Some(u64::try_from(granule).map_err(|_| {
                Error::malformed(at, format!("Ogg page with granule position {granule}"))
            })?),
        };
        let mut pieces = Vec::new();
        let mut len = 0;
        for &value in lacing {
            len += usize::from(value);
            if value < 255 {
                pieces.push((len, true));
                len = 0;
            }
        }
        if lacing.last() == Some(&255) {
            pieces.push((len, false));
        }
        Ok(Self {
            at,
            flags,
            granule,
            serial: word(14),
            sequence: word(18),
            pieces,
            body,
            body_at,
        })
    }
}

/// Length of the page that `window` begins with, as far as its header is there.
fn claimed_len(window: &[u8]) -> usize {
    let lacing = window.get(26).map_or(0, |&count| usize::from(count));
    let table = window.get(27..).unwrap_or_default();
    let body: usize = table.iter().take(lacing).map(|&v| usize::from(v)).sum();
    27 + lacing + body
}

/// CRC-32 with polynomial 0x04c11db7, not reflected, from 0, as Ogg has it.
pub(crate) fn checksum(mut crc: u32, bytes: &[u8]) -> u32 {
    for &byte in bytes {
        crc = (crc << 8) ^ TABLE[usize::from((crc >> 24) as u8 ^ byte)];
    }
    crc
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000_0000 != 0 {
                (crc << 1) ^ 0x04c1_1db7
            } else {
                crc << 1
            };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};
