//! Cover pictures that audio files carry: listed as a video stream of one sample, as FFmpeg does.
//!
//! They are not selected: who plays a song does not want to be told that there is no decoder for its cover.

use bytes::Bytes;
use portcullis_engine::presentation::stream_keys;
use portcullis_engine::{
    Key, MediaTime, MediaType, Sample, StreamDescriptor, StreamId, Subtype, TimeBase, keys,
    sample_keys,
};

/// What the file says of a stream.
const TITLE: Key<String> = Key::new("title");
/// More pictures than this are not listed.
const MAX_PICTURES: usize = 16;

/// A picture that a tag carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    /// As the tag says it.
    pub(super) mime_type: String,
    /// What the picture shows.
    pub(super) description: String,
    /// The file.
    pub(super) data: Bytes,
    /// Where the file lies in the input, where that is known.
    pub(super) at: Option<u64>,
}

/// The streams that these pictures are, numbered from 1, with their samples.
pub(super) fn streams(pictures: &[Picture]) -> Vec<(StreamDescriptor, Sample)> {
    (1..)
        .zip(pictures.iter().take(MAX_PICTURES))
        .map(|(id, picture)| stream(StreamId(id), picture))
        .collect()
}

fn stream(id: StreamId, picture: &Picture) -> (StreamDescriptor, Sample) {
    let data = &picture.data;
    // The content tells better than the tag.
    let (subtype, size) = if data.starts_with(b"\x89PNG\r\n\x1a\n") {
        (Subtype::PNG, png_size(data))
    } else if data.starts_with(&[0xff, 0xd8, 0xff]) {
        (Subtype::MJPEG, jpeg_size(data))
    } else {
        let kind = picture.mime_type.rsplit('/').next().unwrap_or_default();
        (Subtype::named(kind), None)
    };
    let (width, height) = size.unwrap_or_default();
    let mut media_type = MediaType::video(subtype, width, height);
    if size.is_none() {
        media_type.attributes.remove(&keys::FRAME_SIZE);
    }
    // As FFmpeg's, for pictures that have no time of their own.
    let base = TimeBase::per_second(90_000).unwrap_or(TimeBase::TICKS);
    let mut stream = StreamDescriptor::new(id, media_type, base);
    stream.selected = false;
    stream.sample_count = Some(1);
    stream.attributes.set(&stream_keys::ATTACHED_PICTURE, true);
    stream.start_time = Some(MediaTime::ZERO);
    if !picture.description.is_empty() {
        stream.attributes.set(&TITLE, picture.description.clone());
    }
    let mut sample = Sample::new(MediaTime::ZERO, MediaTime::ZERO, data.clone());
    sample.flags.key = true;
    if let Some(at) = picture.at {
        sample.attributes.set(&sample_keys::BYTE_POSITION, at);
    }
    (stream, sample)
}

fn png_size(data: &[u8]) -> Option<(u32, u32)> {
    let side = |at: usize| {
        let bytes = data.get(at..)?.first_chunk()?;
        Some(u32::from_be_bytes(*bytes))
    };
    Some((side(16)?, side(20)?))
}

fn jpeg_size(data: &[u8]) -> Option<(u32, u32)> {
    let word = |at: usize| {
        let bytes = data.get(at..)?.first_chunk()?;
        Some(u16::from_be_bytes(*bytes))
    };
    let mut at = 2;
    loop {
        let [0xff, marker] = *data.get(at..)?.first_chunk()? else {
            return None;
        };
        match marker {
            // A frame header, of whatever kind of coding.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Some((u32::from(word(at + 7)?), u32::from(word(at + 5)?)));
            }
            0xff => at += 1,
            0xd9 | 0xda => return None,
            _ => at += 2 + usize::from(word(at + 2)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_names_the_format_and_the_size() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend([0, 0, 0, 64, 0, 0, 0, 48]);
        let jpeg = vec![
            0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xc2, 0, 17, 8, 0, 30, 0, 40,
        ];
        for (data, subtype, size) in [
            (png, Subtype::PNG, Some((64, 48))),
            (jpeg, Subtype::MJPEG, Some((40, 30))),
            (vec![0xff, 0xd8, 0xff, 0xe0], Subtype::MJPEG, None),
            (b"RIFF".to_vec(), Subtype::named("webp"), None),
        ] {
            let picture = Picture {
                mime_type: "image/webp".into(),
                description: String::new(),
                data: data.into(),
                at: None,
            };
            let (stream, _) = stream(StreamId(1), &picture);
            assert_eq!(stream.media_type.subtype, subtype);
            assert_eq!(stream.media_type.frame_size(), size);
            assert!(!stream.selected);
        }
    }
}
