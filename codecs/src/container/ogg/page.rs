//! Pages: the unit of Ogg framing, each with its own checksum.

use bytes::Bytes;
use portcullis_engine::{Error, ErrorKind, Result};

use crate::container::reader::Reader;

/// The longest page: header, 255 lacing values, 255 full segments.
pub(crate) const MAX_PAGE: usize = 27 + 255 + 255 * 255;

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
    /// Reads the page that begins here; `None` at the end of the input.
    pub(crate) fn read(reader: &mut Reader) -> Result<Option<Self>> {
        let at = reader.position();
        let head = reader.peek(27)?;
        if head.is_empty() {
            return Ok(None);
        }
        if !b"OggS".starts_with(&head[..head.len().min(4)]) {
            return Err(Error::malformed(at, "no Ogg page where one should begin"));
        }
        let header: [u8; 27] = reader.array().map_err(|e| in_page(e, at))?;
        let lacing = reader
            .read_vec(u64::from(header[26]))
            .map_err(|e| in_page(e, at))?;
        let body_len: u64 = lacing.iter().map(|&value| u64::from(value)).sum();
        let body_at = reader.position();
        let body = reader.read_bytes(body_len).map_err(|e| in_page(e, at))?;
        Self::parse(at, &header, &lacing, body_at, body).map(Some)
    }

    /// The first whole page with a right checksum that begins in `from..until`; the reader is left behind its header.
    pub(crate) fn find(reader: &mut Reader, from: u64, until: u64) -> Result<Option<Self>> {
        reader.seek(from)?;
        // Each costs a checksum over what claims to be a page: an input full of them is not searched to its end.
        let mut wrong = 0;
        while reader.position() < until && wrong < 64 {
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
            if let Some(page) = Self::parse_prefix(at, window) {
                return Ok(Some(page));
            }
            wrong += 1;
            reader.skip(1)?;
        }
        Ok(None)
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

    fn parse_prefix(at: u64, bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<27>()?;
        let (lacing, rest) = rest.split_at_checked(usize::from(header[26]))?;
        let body_len = lacing.iter().map(|&value| usize::from(value)).sum();
        let body = rest.get(..body_len)?;
        let body_at = at + 27 + lacing.len() as u64;
        Self::parse(at, header, lacing, body_at, Bytes::copy_from_slice(body)).ok()
    }

    fn parse(at: u64, header: &[u8; 27], lacing: &[u8], body_at: u64, body: Bytes) -> Result<Self> {
        let [.., version, flags, g0, g1, g2, g3, g4, g5, g6, g7] = header[..14] else {
            return Err(Error::malformed(at, "no Ogg page header"));
        };
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

/// Says of an input that ends inside of a page where the page begins.
fn in_page(error: Error, page: u64) -> Error {
    match error.kind() {
        ErrorKind::Truncated { at, .. } => {
            Error::truncated(*at, format!("the Ogg page at byte {page}"))
        }
        _ => error,
    }
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
