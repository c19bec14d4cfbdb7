//! Tags between and behind frames: ID3, APE, Lyrics3. None of them is sound, whatever bytes it holds.

use portcullis_engine::Result;

use super::super::id3;
use super::super::reader::Reader;

/// The longest Lyrics3 tag: its size has six digits.
const MAX_LYRICS: usize = 1 << 20;

/// A tag that the reader stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// Bytes from here to its end.
    pub(super) len: u64,
    /// Bytes before here that belong to it too: it was seen by its footer only.
    pub(super) before: u64,
}

/// Whether a tag may begin here.
pub(super) fn starts(bytes: &[u8]) -> bool {
    id3::tag_len(bytes).is_some()
        || [&b"TAG"[..], b"APETAGEX", b"LYRICSBEGIN"]
            .iter()
            .any(|mark| bytes.starts_with(mark))
}

/// The tag that the reader stands at.
pub(super) fn here(reader: &mut Reader) -> Result<Option<Tag>> {
    let whole = |len| Some(Tag { len, before: 0 });
    let head = reader.peek(32)?;
    if let Some(len) = id3::tag_len(head) {
        return Ok(whole(len));
    }
    if head.starts_with(b"TAG+") {
        // The extended tag stands before the plain one.
        let extended = reader.peek(227 + 3)?.ends_with(b"TAG");
        return Ok(whole(if extended { 227 } else { 128 }));
    }
    if head.starts_with(b"TAG") {
        return Ok(whole(128));
    }
    if let Some(fields) = head.strip_prefix(b"APETAGEX") {
        let word = |from: usize| {
            let four = fields.get(from..).and_then(<[u8]>::first_chunk);
            four.map(|four| u32::from_le_bytes(*four))
        };
        let (Some(size), Some(flags)) = (word(4), word(12)) else {
            return Ok(None);
        };
        // The size counts the items and the footer.
        let size = u64::from(size);
        return Ok(Some(if flags & 1 << 29 != 0 {
            Tag {
                len: 32 + size,
                before: 0,
            }
        } else {
            Tag {
                len: 32,
                before: size.saturating_sub(32),
            }
        }));
    }
    if head.starts_with(b"LYRICSBEGIN") {
        let window = reader.peek(MAX_LYRICS)?;
        let end = window
            .windows(9)
            .position(|nine| nine == b"LYRICSEND" || nine == b"LYRICS200");
        return Ok(end.and_then(|end| whole(end as u64 + 9)));
    }
    Ok(None)
}
