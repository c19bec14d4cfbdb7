//! ID3v2 tags in front of audio streams: how long they are, and what the common text frames say.

use std::borrow::Cow;

use bytes::Bytes;
use portcullis_engine::component::OpenContext;
use portcullis_engine::{Attributes, Result, Value};

use super::pictures::Picture;
use super::reader::Reader;

/// Bytes of a tag's header.
const HEADER: usize = 10;
/// A tag's own tables end long before: what follows is not read as a tag.
const MAX_FRAMES: usize = 4096;

/// What the tags in front of a stream say.
#[derive(Clone, Debug, Default)]
pub(super) struct Id3 {
    pub(super) tags: Attributes,
    pub(super) pictures: Vec<Picture>,
}

/// Whole length of the tag that `head` starts with; `None` where it starts with none.
pub(super) fn tag_len(head: &[u8]) -> Option<u64> {
    let head: &[u8; HEADER] = head.first_chunk()?;
    if &head[..3] != b"ID3" || head[3] == 0xff || head[4] == 0xff {
        return None;
    }
    let size = syncsafe(&head[6..])?;
    let footer = if head[5] & 0x10 != 0 {
        HEADER as u64
    } else {
        0
    };
    Some(HEADER as u64 + u64::from(size) + footer)
}

/// Skips the tags that the input stands at, and keeps what they say.
///
/// A tag that claims more than the input has is not believed: the search for the first frame begins behind its header.
/// What lies beyond `max_header_bytes` is skipped unread.
pub(super) fn skip_tags(reader: &mut Reader, context: &OpenContext) -> Result<Id3> {
    let mut found = Id3::default();
    while let Some(len) = tag_len(reader.peek(HEADER)?) {
        let at = reader.position();
        let too_long = reader.remaining().is_some_and(|left| len > left);
        if too_long {
            reader.skip(HEADER as u64)?;
            break;
        }
        if at.saturating_add(len) > context.limits.max_header_bytes {
            reader.skip(len)?;
            continue;
        }
        let tag = reader.read_up_to(len)?;
        read_tag(&tag, at, &mut found);
    }
    Ok(found)
}

fn syncsafe(bytes: &[u8]) -> Option<u32> {
    let bytes: &[u8; 4] = bytes.first_chunk()?;
    bytes.iter().try_fold(0, |value, byte| {
        (byte & 0x80 == 0).then(|| value << 7 | u32::from(*byte))
    })
}

fn read_tag(tag: &[u8], at: u64, found: &mut Id3) {
    let (version, flags) = (tag[3], tag[5]);
    let mut body: Cow<'_, [u8]> = Cow::Borrowed(&tag[HEADER..]);
    let unsynchronised = flags & 0x80 != 0;
    // Before 2.4 the whole tag is protected from false sync words, in 2.4 each frame by itself.
    if unsynchronised && version < 4 {
        body = Cow::Owned(undo_unsynchronisation(&body));
    }
    let mut from = 0;
    if flags & 0x40 != 0 && version >= 3 {
        let Some(size) = body.first_chunk::<4>() else {
            return;
        };
        from = match version {
            3 => 4 + u32::from_be_bytes(*size) as usize,
            _ => syncsafe(size).unwrap_or(0) as usize,
        };
    }
    let head_len = if version == 2 { 6 } else { 10 };
    for _ in 0..MAX_FRAMES {
        let Some(head) = body.get(from..from.saturating_add(head_len)) else {
            return;
        };
        if head[0] == 0 {
            return;
        }
        let len = match version {
            2 => u32::from_be_bytes([0, head[3], head[4], head[5]]),
            3 => u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
            // Some writers put plain sizes into 2.4 tags.
            _ => syncsafe(&head[4..])
                .unwrap_or(u32::from_be_bytes([head[4], head[5], head[6], head[7]])),
        } as usize;
        let start = from + head_len;
        let Some(content) = body.get(start..start.saturating_add(len)) else {
            return;
        };
        let name = &head[..if version == 2 { 3 } else { 4 }];
        let frame_flags = if version == 2 { 0 } else { head[9] };
        // Where the bytes were moved, their position in the input is lost.
        let moved = matches!(body, Cow::Owned(_));
        let position = (!moved).then_some(at + (HEADER + start) as u64);
        read_frame(name, version, frame_flags, content, position, found);
        from = start + len;
    }
}

fn read_frame(
    name: &[u8],
    version: u8,
    flags: u8,
    content: &[u8],
    at: Option<u64>,
    found: &mut Id3,
) {
    let (packed, unsynchronised, prefixed) = match version {
        4 => (flags & 0x0c != 0, flags & 0x02 != 0, flags & 0x01 != 0),
        3 => (flags & 0xc0 != 0, false, false),
        _ => (false, false, false),
    };
    if packed {
        return;
    }
    let content = if prefixed {
        content.get(4..).unwrap_or_default()
    } else {
        content
    };
    let content = if unsynchronised {
        Cow::Owned(undo_unsynchronisation(content))
    } else {
        Cow::Borrowed(content)
    };
    let key = match name {
        b"TIT2" | b"TT2" => "title",
        b"TPE1" | b"TP1" => "artist",
        b"TALB" | b"TAL" => "album",
        b"TPE2" | b"TP2" => "album_artist",
        b"TRCK" | b"TRK" => "track",
        b"TDRC" | b"TYER" | b"TYE" => "date",
        b"TCON" | b"TCO" => "genre",
        b"TCOM" | b"TCM" => "composer",
        b"TSSE" | b"TSS" => "encoder",
        b"TCOP" | b"TCR" => "copyright",
        b"APIC" | b"PIC" => {
            let at = at.filter(|_| matches!(content, Cow::Borrowed(_)));
            let at = at.map(|at| at + if prefixed { 4 } else { 0 });
            if let Some(picture) = picture(&content, version, at) {
                found.pictures.push(picture);
            }
            return;
        }
        _ => return,
    };
    if let Some((encoding, text)) = content.split_first() {
        let text = decode_text(*encoding, text);
        let text = text.split('\0').next().unwrap_or_default();
        if !text.is_empty() {
            found
                .tags
                .set_named(key, Value::Text(text.to_owned().into()));
        }
    }
}

fn picture(content: &[u8], version: u8, at: Option<u64>) -> Option<Picture> {
    let (encoding, rest) = content.split_first()?;
    let (mime_type, rest) = if version == 2 {
        let (format, rest) = rest.split_first_chunk::<3>()?;
        (
            format!("image/{}", String::from_utf8_lossy(format).to_lowercase()),
            rest,
        )
    } else {
        let end = rest.iter().position(|byte| *byte == 0)?;
        (
            String::from_utf8_lossy(&rest[..end]).into_owned(),
            &rest[end + 1..],
        )
    };
    let (_kind, rest) = rest.split_first()?;
    let wide = matches!(encoding, 1 | 2);
    let (text_len, skip) = if wide {
        let pairs = rest.as_chunks::<2>().0;
        let end = pairs.iter().position(|pair| *pair == [0, 0])?;
        (end * 2, end * 2 + 2)
    } else {
        let end = rest.iter().position(|byte| *byte == 0)?;
        (end, end + 1)
    };
    let data = &rest[skip..];
    (!data.is_empty()).then(|| Picture {
        mime_type,
        description: decode_text(*encoding, &rest[..text_len]),
        data: Bytes::copy_from_slice(data),
        at: at.map(|at| at + (content.len() - data.len()) as u64),
    })
}

fn decode_text(encoding: u8, bytes: &[u8]) -> String {
    let wide = |big: bool, bytes: &[u8]| {
        let units = bytes.as_chunks::<2>().0.iter().map(|pair| {
            if big {
                u16::from_be_bytes(*pair)
            } else {
                u16::from_le_bytes(*pair)
            }
        });
        char::decode_utf16(units)
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    };
    match (encoding, bytes) {
        (0, _) => bytes.iter().map(|byte| char::from(*byte)).collect(),
        (1, [0xfe, 0xff, rest @ ..]) => wide(true, rest),
        (1, [0xff, 0xfe, rest @ ..]) => wide(false, rest),
        (1, _) => wide(false, bytes),
        (2, _) => wide(true, bytes),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn undo_unsynchronisation(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut after_ff = false;
    for byte in bytes {
        if !(after_ff && *byte == 0) {
            plain.push(*byte);
        }
        after_ff = *byte == 0xff;
    }
    plain
}

#[cfg(test)]
mod tests {
    use portcullis_engine::component::MemorySource;

    use super::*;

    fn tag(version: u8, frames: &[u8]) -> Vec<u8> {
        let mut tag = vec![b'I', b'D', b'3', version, 0, 0, 0, 0];
        tag.extend([(frames.len() >> 7) as u8, (frames.len() & 0x7f) as u8]);
        tag.extend(frames);
        tag
    }

    fn skip(bytes: Vec<u8>) -> (Id3, u64) {
        let mut reader = Reader::new(Box::new(MemorySource::new(bytes)));
        let found = skip_tags(&mut reader, &OpenContext::default()).expect("no input error");
        (found, reader.position())
    }

    #[test]
    fn texts_of_all_versions() {
        for (version, frame) in [
            (2, &b"TT2\0\0\x03\0Hi"[..]),
            (3, b"TIT2\0\0\0\x03\0\0\0Hi"),
            (4, b"TIT2\0\0\0\x03\0\0\x03Hi"),
            (3, b"TIT2\0\0\0\x07\0\0\x01\xff\xfeH\0i\0"),
        ] {
            let (found, end) = skip(tag(version, frame));
            assert_eq!(
                found.tags.named("title"),
                Some(&Value::Text("Hi".into())),
                "version {version}"
            );
            assert_eq!(end as usize, HEADER + frame.len());
        }
    }

    #[test]
    fn a_tag_that_claims_more_than_there_is_is_not_believed() {
        let mut bytes = tag(4, b"");
        bytes[6..10].copy_from_slice(&[0x7f; 4]);
        bytes.extend([1, 2, 3]);
        assert_eq!(skip(bytes).1, HEADER as u64);
        let mut bytes = tag(4, b"");
        bytes[6] = 0x80;
        assert_eq!(skip(bytes).1, 0, "not a syncsafe size");
    }

    #[test]
    fn cut_frames_end_the_tag_quietly() {
        let (found, _) = skip(tag(3, b"TIT2\0\0\xff\xff\0\0\0Hi"));
        assert!(found.tags.is_empty());
        let (found, _) = skip(tag(3, b"APIC\0\0\0\x0c\0\0\0image/png\0\x03"));
        assert!(found.pictures.is_empty());
    }
}
