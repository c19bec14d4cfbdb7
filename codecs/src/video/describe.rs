//! What the set-up data of compressed pictures say of them, for who lists a file without decoding it.

use portcullis_engine::presentation::stream_keys;
use portcullis_engine::{MediaType, StreamDescriptor, Subtype, keys};

use super::bits::Bits;
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

/// Adds to a stream what its set-up data say.
pub(crate) fn describe(stream: &mut StreamDescriptor) {
    if let Some(facts) = facts(&stream.media_type) {
        add(stream, &facts);
    }
}

/// Adds to a stream what only its first frame says, where that is clear.
pub(crate) fn describe_frame(stream: &mut StreamDescriptor, frame: &[u8]) {
    if stream.media_type.is_protected() || stream.media_type.get(&keys::PROFILE).is_some() {
        return;
    }
    let (profile, format) = match stream.media_type.subtype {
        Subtype::VP8 => match frame.first() {
            Some(first) => ((first >> 1 & 7).to_string(), None),
            None => return,
        },
        Subtype::VP9 => match vp9_head(frame) {
            Some((profile, format)) => (format!("Profile {profile}"), format),
            None => return,
        },
        _ => return,
    };
    stream.media_type.attributes.set(&keys::PROFILE, profile);
    let facts = Facts {
        format,
        full_range: format.map(|format| format.full_range),
        ..Facts::default()
    };
    add(stream, &facts);
}

fn add(stream: &mut StreamDescriptor, facts: &Facts) {
    let attributes = &mut stream.attributes;
    if let Some(format) = facts.format.and_then(Format::name) {
        attributes.set(&stream_keys::PIX_FMT, format.to_owned());
    }
    if let Some(level) = facts.level {
        attributes.set(&stream_keys::LEVEL, level.into());
    }
    if let Some(depth) = facts.reorder_depth {
        attributes.set(&stream_keys::HAS_B_FRAMES, depth as u64);
    }
    if let Some(bits) = facts.coded_bits {
        attributes.set(&stream_keys::CODED_BITS, bits.into());
    }
    if let Some(aspect) = facts.pixel_aspect {
        attributes.set(&stream_keys::CODED_PIXEL_ASPECT, aspect);
    }
    if let Some(full) = facts.full_range {
        attributes.set(&stream_keys::CODED_FULL_RANGE, full);
    }
}

/// Profile and format of a key frame of VP9.
fn vp9_head(frame: &[u8]) -> Option<(u32, Option<Format>)> {
    let mut bits = Bits::new(frame);
    if bits.bits(2)? != 2 {
        return None;
    }
    let profile = bits.bits(1)? | bits.bits(1)? << 1;
    if profile == 3 {
        bits.bit()?;
    }
    let (shows_existing, inter) = (bits.bit()?, bits.bit()?);
    bits.skip(2)?;
    if shows_existing || inter || bits.bits(24)? != 0x49_8342 {
        return Some((profile, None));
    }
    let depth = match profile {
        0 | 1 => 8,
        _ if bits.bit()? => 12,
        _ => 10,
    };
    let space = bits.bits(3)?;
    if space == 7 {
        // Red, green and blue.
        return Some((profile, None));
    }
    let full_range = bits.bit()?;
    let chroma = match profile & 1 {
        0 => 1,
        _ => match (bits.bit()?, bits.bit()?) {
            (true, true) => 1,
            (true, false) => 2,
            _ => 3,
        },
    };
    let format = Format {
        chroma,
        bits: depth,
        full_range,
    };
    Some((profile, Some(format)))
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
    format: Option<Format>,
    level: Option<u8>,
    reorder_depth: Option<usize>,
    coded_bits: Option<u8>,
    pixel_aspect: Option<(u32, u32)>,
    full_range: Option<bool>,
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
                reorder_depth: facts.reorder_stated.then_some(facts.reorder_depth),
                coded_bits: Some(facts.format.bits),
                pixel_aspect: facts.pixel_aspect,
                full_range: facts.full_range,
            })
        }
        Subtype::HEVC => {
            let (level, chroma) = (*private.get(12)?, private.get(16)? & 3);
            let bits = (private.get(17)? & 7) + 8;
            Some(Facts {
                format: Some(plain(chroma, bits)),
                level: Some(level),
                ..Facts::default()
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
        // What is kept of the `vpcC` box of MP4 begins with the level; Matroska has another form, and mostly none.
        Subtype::VP9 => {
            let tag = media_type.get(&keys::CODEC_TAG).unwrap_or_default();
            let Some(second) = private.get(1).filter(|_| tag == "vp09") else {
                return Some(Facts {
                    reorder_depth: Some(0),
                    ..Facts::default()
                });
            };
            let chroma = match second >> 1 & 7 {
                0 | 1 => 1,
                chroma => chroma.min(3),
            };
            Some(Facts {
                full_range: Some(second & 1 != 0),
                ..of_format(plain(chroma, second >> 4))
            })
        }
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
            stream
                .attributes
                .get(&stream_keys::PIX_FMT)
                .unwrap_or_default()
        };
        assert_eq!(of(Subtype::AV1, &[0x81, 4, 0x0c, 0]), "yuv420p");
        assert_eq!(of(Subtype::AV1, &[0x81, 4, 0x4c, 0]), "yuv420p10le");
        assert_eq!(of(Subtype::AV1, &[0x81, 4]), "");
        assert_eq!(of(Subtype::VP9, &[1, 1, 2]), "");
        let tagged = MediaType::video(Subtype::VP9, 16, 16)
            .with(&keys::CODEC_TAG, "vp09".to_owned())
            .with(&keys::PRIVATE_DATA, Bytes::from_static(&[31, 0xa2]));
        let format = facts(&tagged).and_then(|facts| facts.format);
        assert_eq!(format.and_then(Format::name), Some("yuv420p10le"));
        assert_eq!(of(Subtype::VP8, &[]), "yuv420p");
        assert_eq!(of(Subtype::H264, &[1, 2, 3]), "");
        // A key frame of profile 2: 10 bits.
        assert_eq!(
            vp9_head(&[0x92, 0x49, 0x83, 0x42, 0x00]).map(|(profile, _)| profile),
            Some(1 << 1)
        );
        let mut hevc = [0; 18];
        (hevc[16], hevc[17]) = (0xfd, 0xfa);
        assert_eq!(of(Subtype::HEVC, &hevc), "yuv420p10le");
    }
}
