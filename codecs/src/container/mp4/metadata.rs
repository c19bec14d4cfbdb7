//! iTunes-style tags: texts and cover pictures of the user data box.
//!
//! Tags are ornament: one that cannot be read is passed over.

use super::data::Data;
use crate::container::pictures::Picture;

/// What the user data box says of the whole file.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    /// Tag names, as ffprobe has them, and texts.
    pub(super) tags: Vec<(&'static str, String)>,
    pub(super) covers: Vec<Picture>,
    pub(super) gapless: Option<Gapless>,
}

/// What iTunes says of the sound that the encoder added (`iTunSMPB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gapless {
    /// Frames before the sound.
    pub(super) delay: u16,
    /// Frames of the sound itself.
    pub(super) frames: u32,
}

impl Gapless {
    /// Hexadecimal numbers: nothing, delay, padding, length.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text
            .split_ascii_whitespace()
            .map(|number| u64::from_str_radix(number, 16).ok());
        let (_, delay, _) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(Self {
            delay: u16::try_from(delay).ok()?,
            frames: u32::try_from(numbers.next()??).ok().filter(|n| *n > 0)?,
        })
    }
}

/// Longest text that is taken over.
const MOST_TEXT: usize = 4096;
/// Most pictures that are taken over.
const MOST_COVERS: usize = 8;

impl Metadata {
    /// Reads the content of a `udta` box.
    pub(super) fn parse(user_data: Data) -> Self {
        let mut metadata = Self::default();
        if let Some(mut list) = find(user_data, b"meta").and_then(item_list) {
            while let Ok(Some((kind, item))) = list.child() {
                metadata.read_item(&kind, item);
            }
        }
        metadata
    }

    fn read_item(&mut self, kind: &[u8; 4], mut item: Data) {
        if kind == b"----" {
            let named = find(item.clone(), b"name");
            if named.is_some_and(|name| name.bytes().ends_with(b"iTunSMPB"))
                && let Some(data) = find(item, b"data")
                && let Some(text) = data.bytes().get(8..)
            {
                self.gapless = std::str::from_utf8(text).ok().and_then(Gapless::parse);
            }
            return;
        }
        while let Ok(Some((inner, mut data))) = item.child() {
            let (b"data", Ok(format), Ok(_)) = (&inner, data.u32(), data.u32()) else {
                continue;
            };
            if kind == b"covr" {
                let mime_type = match format & 0xff_ffff {
                    13 => "image/jpeg",
                    14 => "image/png",
                    27 => "image/bmp",
                    _ => continue,
                };
                if self.covers.len() < MOST_COVERS && !data.is_empty() {
                    self.covers.push(Picture {
                        mime_type: mime_type.to_owned(),
                        description: String::new(),
                        at: Some(data.position()),
                        data: data.to_owned_bytes(),
                    });
                }
            } else if let (Some(tag), 1) = (tag(kind), format & 0xff_ffff)
                && data.len() <= MOST_TEXT
                && let Ok(text) = std::str::from_utf8(data.bytes())
            {
                self.tags.push((tag, text.to_owned()));
            }
        }
    }
}

fn find(mut data: Data, wanted: &[u8; 4]) -> Option<Data> {
    while let Ok(Some((kind, content))) = data.child() {
        if kind == *wanted {
            return Some(content);
        }
    }
    None
}

/// `meta` is a full box in ISO files and a plain one in QuickTime's.
fn item_list(meta: Data) -> Option<Data> {
    let mut full = meta.clone();
    full.skip(4).ok()?;
    find(full, b"ilst").or_else(|| find(meta, b"ilst"))
}

fn tag(kind: &[u8; 4]) -> Option<&'static str> {
    Some(match kind {
        b"\xa9nam" => "title",
        b"\xa9ART" => "artist",
        b"aART" => "album_artist",
        b"\xa9alb" => "album",
        b"\xa9day" => "date",
        b"\xa9gen" => "genre",
        b"\xa9cmt" => "comment",
        b"\xa9wrt" => "composer",
        b"\xa9too" => "encoder",
        b"\xa9grp" => "grouping",
        b"\xa9lyr" => "lyrics",
        b"cprt" => "copyright",
        b"desc" => "description",
        b"ldes" => "synopsis",
        b"tvsh" => "show",
        b"tven" => "episode_id",
        b"tvnn" => "network",
        b"keyw" => "keywords",
        b"catg" => "category",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_itunes_says_of_gaps() {
        let text = " 00000000 00000840 000001CA 0000000000003F31 00000000 00000000";
        let found = Gapless::parse(text).unwrap();
        assert_eq!((found.delay, found.frames), (2112, 0x3f31));
        assert_eq!(Gapless::parse(" 00000000 00000840"), None);
    }
}
