//! What a stream's decoder configuration record says, for who lists it without decoding.

use super::super::describe::Format;
use super::nal::{Avcc, payload};
use super::sps::Sps;

/// What a decoder configuration record says of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) format: Format,
    pub(crate) level: u8,
    /// How many pictures can precede one in decoding order and follow it in output order.
    pub(crate) reorder_depth: usize,
    /// Whether the stream says so; else it is the most that its level allows.
    pub(crate) reorder_stated: bool,
    pub(crate) pixel_aspect: Option<(u32, u32)>,
    pub(crate) full_range: Option<bool>,
}

/// Reads an `avcC` record; `None` where it is not one that can be read.
pub(crate) fn facts(record: &[u8]) -> Option<Facts> {
    let avcc = Avcc::parse(record).ok()?;
    let rbsp = payload(avcc.sps.first()?, MAX_FACTS);
    let (sps, _) = Sps::read(&rbsp).ok()?;
    Some(Facts {
        format: Format {
            chroma: u8::try_from(sps.chroma).ok()?,
            bits: u8::try_from(sps.bits).ok()?,
            full_range: sps.extra.full_range.unwrap_or(false),
        },
        level: u8::try_from(sps.level).ok()?,
        reorder_depth: sps.reorder_depth,
        reorder_stated: sps.reorder_stated,
        pixel_aspect: sps.extra.pixel_aspect,
        full_range: sps.extra.full_range,
    })
}

/// Bytes of a parameter set that are read to list a stream.
const MAX_FACTS: usize = 4096;
