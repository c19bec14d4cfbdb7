//! The metadata blocks in front of the frames.

use bytes::Bytes;
use portcullis_engine::component::OpenContext;
use portcullis_engine::{Attributes, Error, Result, Value};

use super::super::pictures::Picture;
use super::super::reader::Reader;
use crate::audio::bitstream::flac::StreamInfo;

/// Comments that are kept; the rest of a long list is skipped.
const MAX_COMMENTS: usize = 256;

/// What the blocks say.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    /// STREAMINFO, as far as it is there.
    pub(super) info: Option<StreamInfo>,
    pub(super) tags: Attributes,
    pub(super) pictures: Vec<Picture>,
    /// In the order of their PCM frames.
    seek_points: Vec<SeekPoint>,
}

/// Where a PCM frame's block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeekPoint {
    pub(super) pcm: u64,
    /// Bytes from the first frame.
    pub(super) offset: u64,
}

impl Metadata {
    /// The last point at or before a PCM frame.
    pub(super) fn seek_point(&self, pcm: u64) -> Option<SeekPoint> {
        let behind = self.seek_points.partition_point(|point| point.pcm <= pcm);
        behind
            .checked_sub(1)
            .and_then(|at| self.seek_points.get(at).copied())
    }
}

/// Reads the signature and the blocks; the reader then stands at the first frame, or at where it should be.
pub(super) fn read(reader: &mut Reader, context: &OpenContext) -> Result<Metadata> {
    let begin = reader.position();
    let mut metadata = Metadata::default();
    if !reader.peek(4)?.starts_with(b"fLaC") {
        return if reader.at_end()? {
            Err(Error::truncated(begin, "the FLAC signature"))
        } else {
            Err(Error::malformed(begin, "no FLAC signature"))
        };
    }
    reader.skip(4)?;
    loop {
        let at = reader.position();
        // Frames where a block should be: the blocks were cut off.
        if let [0xff, 0xf8 | 0xf9] = reader.peek(2)? {
            return Ok(metadata);
        }
        let [head, a, b, c] = reader.array()?;
        let len = u64::from(u32::from_be_bytes([0, a, b, c]));
        let (last, kind) = (head & 0x80 != 0, head & 0x7f);
        if kind == 127 {
            return Err(Error::malformed(
                at,
                "a metadata block of the forbidden type",
            ));
        }
        context
            .limits
            .check_header(reader.position().saturating_sub(begin).saturating_add(len))?;
        match kind {
            0 => {
                let block = reader.read_vec(len)?;
                if metadata.info.is_none() {
                    metadata.info = StreamInfo::parse(&block);
                }
            }
            3 => {
                let block = reader.read_vec(len)?;
                metadata.seek_points = seek_points(&block);
            }
            4 => {
                let block = reader.read_vec(len)?;
                read_comments(&block, &mut metadata.tags);
            }
            6 => {
                let from = reader.position();
                let block = reader.read_vec(len)?;
                metadata.pictures.extend(picture(&block, from));
            }
            _ => reader.skip(len)?,
        }
        if last {
            return Ok(metadata);
        }
    }
}

fn seek_points(block: &[u8]) -> Vec<SeekPoint> {
    let number = |bytes: &[u8]| {
        bytes
            .first_chunk()
            .map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes))
    };
    let mut points: Vec<_> = block
        .chunks_exact(18)
        .map(|point| SeekPoint {
            pcm: number(point),
            offset: number(&point[8..]),
        })
        // All ones is a placeholder.
        .filter(|point| point.pcm != u64::MAX)
        .collect();
    points.sort_by_key(|point| point.pcm);
    points
}

/// A PICTURE block that begins at byte `from`.
fn picture(block: &[u8], from: u64) -> Option<Picture> {
    let part = |at: usize| {
        let len = u32::from_be_bytes(*block.get(at..)?.first_chunk()?) as usize;
        let start = at + 4;
        block.get(start..start.checked_add(len)?)
    };
    let mime_type = part(4)?;
    let after_type = 8 + mime_type.len();
    let description = part(after_type)?;
    // Width, height, depth and colours come between.
    let data_at = after_type + 4 + description.len() + 16;
    let data = part(data_at)?;
    (!data.is_empty()).then(|| Picture {
        mime_type: String::from_utf8_lossy(mime_type).into_owned(),
        description: String::from_utf8_lossy(description).into_owned(),
        data: Bytes::copy_from_slice(data),
        at: Some(from + (data_at + 4) as u64),
    })
}

/// Vorbis comments; what is cut ends them.
fn read_comments(block: &[u8], tags: &mut Attributes) {
    fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (len, tail) = rest.split_first_chunk()?;
        let (text, tail) = tail.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        *rest = tail;
        Some(text)
    }
    let mut rest = block;
    let Some(_vendor) = text(&mut rest) else {
        return;
    };
    let Some((_count, tail)) = rest.split_first_chunk::<4>() else {
        return;
    };
    rest = tail;
    for _ in 0..MAX_COMMENTS {
        let Some(comment) = text(&mut rest) else {
            return;
        };
        let comment = String::from_utf8_lossy(comment);
        if let Some((name, value)) = comment.split_once('=')
            && !name.is_empty()
        {
            let value = Value::Text(value.to_owned().into());
            tags.set_named(name.to_lowercase(), value);
        }
    }
}
