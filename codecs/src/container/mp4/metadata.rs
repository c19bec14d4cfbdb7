//! iTunes-style tags: texts and cover pictures of the user data box.
//!
//! Tags are ornament: one that cannot be read is passed over.

use bytes::Bytes;
use portcullis_engine::Subtype;

use super::data::Data;

/// What the user data box says of the whole file.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    /// Tag names, as ffprobe has them, and texts.
    pub(super) tags: Vec<(&'static str, String)>,
    pub(super) covers: Vec<Cover>,
}

/// A cover picture.
#[derive(Debug)]
pub(super) struct Cover {
    pub(super) subtype: Subtype,
    pub(super) picture: Bytes,
    pub(super) position: u64,
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
        while let Ok(Some((inner, mut data))) = item.child() {
            let (b"data", Ok(format), Ok(_)) = (&inner, data.u32(), data.u32()) else {
                continue;
            };
            if kind == b"covr" {
                let subtype = match format & 0xff_ffff {
                    13 => Subtype::MJPEG,
                    14 => Subtype::PNG,
                    27 => Subtype::named("bmp"),
                    _ => continue,
                };
                if self.covers.len() < MOST_COVERS && !data.is_empty() {
                    self.covers.push(Cover {
                        subtype,
                        position: data.position(),
                        picture: data.to_owned_bytes(),
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
