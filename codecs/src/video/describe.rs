//! What the set-up data of compressed pictures say of them, for who lists a file without decoding it.

use portcullis_engine::{MediaType, StreamDescriptor, Subtype, Value, keys};

use super::h264;

/// Pictures that can precede one in decoding order and are shown after it, at most.
pub(crate) fn reorder_depth(media_type: &MediaType) -> usize {
    match media_type.subtype {
        Subtype::VP8 | Subtype::VP9 | Subtype::AV1 | Subtype::MJPEG | Subtype::PNG => 0,
        Subtype::H264 => media_type
            .private_data()
            .and_then(|record| h264::facts(&record))
            .map_or(MOST_REORDERED, |facts| facts.reorder_depth),
        _ => MOST_REORDERED,
    }
}

/// The most that any codec reorders.
const MOST_REORDERED: usize = 16;

/// Adds to a stream what its set-up data say: `pix_fmt`, `level`, `has_b_frames`, in FFmpeg's words.
pub(crate) fn describe(stream: &mut StreamDescriptor) {
    let Some(facts) = facts(&stream.media_type) else {
        return;
    };
    let attributes = &mut stream.attributes;
    if let Some(format) = facts.format.and_then(Format::name) {
        attributes.set_named("pix_fmt", Value::Text(format.into()));
    }
    if let Some(level) = facts.level {
        attributes.set_named("level", Value::Unsigned(level.into()));
    }
    if let Some(depth) = facts.reorder_depth {
        attributes.set_named("has_b_frames", Value::Unsigned(depth as u64));
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
    format: Option<Format>,
    level: Option<u8>,
    reorder_depth: Option<usize>,
}

/// How values of planar pictures are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    /// 0 for grey, 1 for 4:2:0, 2 for 4:2:2, 3 for 4:4:4.
    pub(crate) chroma: u8,
    pub(crate) bits: u8,
    pub(crate) full_range: bool,
}

impl Format {
    /// FFmpeg's name.
    fn name(self) -> Option<&'static str> {
        Some(match (self.chroma, self.bits, self.full_range) {
            (0, 8, _) => "gray",
            (1, 8, false) => "yuv420p",
            (2, 8, false) => "yuv422p",
            (3, 8, false) => "yuv444p",
            (1, 8, true) => "yuvj420p",
            (2, 8, true) => "yuvj422p",
            (3, 8, true) => "yuvj444p",
            (0, 10, _) => "gray10le",
            (1, 10, _) => "yuv420p10le",
            (2, 10, _) => "yuv422p10le",
            (3, 10, _) => "yuv444p10le",
            (0, 12, _) => "gray12le",
            (1, 12, _) => "yuv420p12le",
            (2, 12, _) => "yuv422p12le",
            (3, 12, _) => "yuv444p12le",
            _ => return None,
        })
    }
}

fn facts(media_type: &MediaType) -> Option<Facts> {
    let private = media_type.private_data().unwrap_or_default();
    let plain = |chroma: u8, bits: u8| Format {
        chroma,
        bits,
        full_range: false,
    };
    let of_format = |format| Facts {
        format: Some(format),
        reorder_depth: Some(0),
        ..Facts::default()
    };
    match media_type.subtype {
        Subtype::H264 => {
            let facts = h264::facts(&private)?;
            Some(Facts {
                format: Some(facts.format),
                level: Some(facts.level),
                reorder_depth: Some(facts.reorder_depth),
            })
        }
        Subtype::HEVC => {
            let (level, chroma) = (*private.get(12)?, private.get(16)? & 3);
            let bits = (private.get(17)? & 7) + 8;
            Some(Facts {
                format: Some(plain(chroma, bits)),
                level: Some(level),
                reorder_depth: None,
            })
        }
        Subtype::AV1 => {
            let [0x81, first, second, ..] = private[..] else {
                return None;
            };
            let bits = match second >> 5 & 3 {
                0 | 1 => 8,
                2 => 10,
                _ => 12,
            };
            let chroma = match (second >> 4 & 1, second >> 3 & 1, second >> 2 & 1) {
                (1, _, _) => 0,
                (_, 1, 1) => 1,
                (_, 1, 0) => 2,
                _ => 3,
            };
            Some(Facts {
                level: Some(first & 31),
                ..of_format(plain(chroma, bits))
            })
        }
        // The `vpcC` box says more than the profile, of which only the first leaves nothing open.
        Subtype::VP9 => match (private.get(6), media_type.get(&keys::PROFILE).as_deref()) {
            (Some(third), _) => {
                let chroma = match third >> 1 & 7 {
                    0 | 1 => 1,
                    chroma => chroma.min(3),
                };
                Some(of_format(plain(chroma, third >> 4)))
            }
            (None, Some("Profile 0")) => Some(of_format(plain(1, 8))),
            _ => None,
        },
        Subtype::VP8 => Some(of_format(plain(1, 8))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use portcullis_engine::{StreamId, TimeBase};

    use super::*;

    #[test]
    fn set_up_data_say_what_pictures_are() {
        let of = |subtype, private: &[u8]| {
            let media_type = MediaType::video(subtype, 16, 16)
                .with(&keys::PRIVATE_DATA, Bytes::copy_from_slice(private));
            let mut stream = StreamDescriptor::new(StreamId(0), media_type, TimeBase::TICKS);
            describe(&mut stream);
            match stream.attributes.named("pix_fmt") {
                Some(Value::Text(text)) => text.to_string(),
                _ => String::new(),
            }
        };
        assert_eq!(of(Subtype::AV1, &[0x81, 4, 0x0c, 0]), "yuv420p");
        assert_eq!(of(Subtype::AV1, &[0x81, 4, 0x4c, 0]), "yuv420p10le");
        assert_eq!(of(Subtype::AV1, &[0x81, 4]), "");
        assert_eq!(of(Subtype::VP9, &[1, 0, 0, 0, 2, 31, 0xa2]), "yuv420p10le");
        assert_eq!(of(Subtype::VP8, &[]), "yuv420p");
        assert_eq!(of(Subtype::H264, &[1, 2, 3]), "");
        let mut hevc = [0; 18];
        (hevc[16], hevc[17]) = (0xfd, 0xfa);
        assert_eq!(of(Subtype::HEVC, &hevc), "yuv420p10le");
    }
}
