//! Damage between clusters: the next place at which reading can go on.

use portcullis_engine::{ErrorKind, Result};

use super::ebml::Element;
use super::ids;
use crate::container::reader::Reader;

/// Bytes that one search looks through.
const MOST_SEARCHED: u64 = 64 << 20;
/// Bytes that are looked at once.
const WINDOW: usize = 16 << 10;
/// Bytes of a cluster that its timestamp must begin in.
const HEAD: usize = 128;

/// Goes to the next cluster: behind the damaged one, whose end is `end` where it says so, else the first thing from byte `from` on
/// that looks like one and fits a segment that ends at `segment_end`. `false` where there is none.
pub(crate) fn go_to_next(
    reader: &mut Reader,
    from: u64,
    end: Option<u64>,
    segment_end: Option<u64>,
) -> Result<bool> {
    if let Some(end) = end
        && reader.len().is_none_or(|len| end <= len)
        && can_go(reader.seek(end))?
    {
        match Element::peek(reader) {
            Ok(None) => return Ok(true),
            Ok(Some(element)) if ids::ends_cluster(element.id) => return Ok(true),
            Err(error) if !error.is_content() => return Err(error),
            _ => {}
        }
    }
    // An input that only goes forward has passed some of it.
    can_go(reader.seek(from))?;
    let begin = reader.position();
    while reader.position() - begin < MOST_SEARCHED {
        let window = reader.peek(WINDOW)?;
        if window.len() < 4 {
            return Ok(false);
        }
        let marker = ids::CLUSTER.to_be_bytes();
        let found = window.windows(4).position(|bytes| bytes == marker);
        let Some(skipped) = found else {
            let passed = window.len() as u64 - 3;
            reader.skip(passed)?;
            continue;
        };
        reader.skip(skipped as u64)?;
        if is_cluster(reader, segment_end)? {
            return Ok(true);
        }
        reader.skip(1)?;
    }
    Ok(false)
}

/// Whether what begins here is a cluster: its size is possible, and a timestamp is among its first children.
pub(crate) fn is_cluster(reader: &mut Reader, segment_end: Option<u64>) -> Result<bool> {
    let at = reader.position();
    let mut bytes = reader.peek(HEAD)?;
    let Ok(cluster) = Element::parse(bytes, at) else {
        return Ok(false);
    };
    if cluster.id != ids::CLUSTER {
        return Ok(false);
    }
    if let (Some(end), Some(limit)) = (cluster.known_end(), segment_end)
        && end > limit
    {
        return Ok(false);
    }
    let mut from = (cluster.data_at - at) as usize;
    loop {
        bytes = bytes.get(from..).unwrap_or_default();
        let Ok(child) = Element::parse(bytes, 0) else {
            return Ok(false);
        };
        match (child.id, child.size) {
            (ids::TIMESTAMP, Some(..=8)) => return Ok(true),
            (ids::VOID | ids::CRC_32, Some(size)) if size < HEAD as u64 => {
                from = (child.data_at + size) as usize;
            }
            _ => return Ok(false),
        }
    }
}

/// Whether a position was reached; one behind the end or in the past of the input is none.
fn can_go(result: Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::Truncated { .. } | ErrorKind::NotSeekable { .. } => Ok(false),
            _ => Err(error),
        },
    }
}
