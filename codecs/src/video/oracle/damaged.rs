//! The damaged files: whatever they hold, every stream is decoded to its end.

use std::fs;

use portcullis_engine::{MajorType, Subtype};
use serde_json::Value;

use super::files::{decode_stream, open, registry};
use super::{Clip, Decoded, annex_b, decode, media};
use portcullis_engine::{MediaTime, MediaType, Sample};

/// The frames of an IVF file.
fn ivf(bytes: &[u8], subtype: Subtype) -> Clip {
    let mut samples = Vec::new();
    let mut rest = bytes.get(32..).unwrap_or_default();
    while let Some((head, after)) = rest.split_at_checked(12) {
        let size = u32::from_le_bytes(head[..4].try_into().expect("4 bytes")) as usize;
        let frame = &after[..size.min(after.len())];
        samples.push(Sample::new(
            MediaTime::from_millis(40 * samples.len() as i64),
            MediaTime::ZERO,
            frame.to_vec(),
        ));
        rest = &after[frame.len()..];
    }
    Clip {
        media_type: MediaType::video(subtype, 320, 180),
        samples,
    }
}

#[test]
fn damaged_files_are_decoded_to_their_end() {
    let Some(media) = media() else { return };
    let registry = registry();
    let list = fs::read(media.join("bad/BAD.json")).expect("the list");
    let list: Value = serde_json::from_slice(&list).expect("JSON");
    let rows = list.as_array().or_else(|| list["files"].as_array());
    let mut failures = Vec::new();
    for row in rows.expect("rows") {
        let name = row["file"].as_str().expect("a name");
        let path = media.join(name);
        let mut decoded = Vec::new();
        if name.ends_with(".h264") {
            decoded.push(decode(&annex_b(&media, name)));
        } else if name.ends_with(".ivf") {
            let bytes = fs::read(&path).expect("the file");
            decoded.push(decode(&ivf(&bytes, Subtype::AV1)));
        } else if let Ok(mut source) = open(&registry, &path) {
            let streams: Vec<_> = source
                .presentation()
                .streams
                .iter()
                .filter(|stream| stream.major() == MajorType::Video)
                .filter(|stream| {
                    let known = [Subtype::H264, Subtype::VP9, Subtype::AV1];
                    known.contains(&stream.media_type.subtype)
                })
                .map(|stream| stream.id)
                .collect();
            for stream in streams {
                decoded.push(decode_stream(&registry, &mut *source, stream));
            }
        }
        let pictures: usize = decoded.iter().map(|one| one.samples.len()).sum();
        let errors: usize = decoded.iter().map(|one| one.errors.len()).sum();
        let first = decoded.iter().flat_map(|one: &Decoded| &one.errors).next();
        eprintln!("{name}: {pictures} pictures, {errors} errors: {first:?}");
        if name.ends_with(".h264") && row["expect"] == "error" && pictures > 0 {
            failures.push(format!("{name}: {pictures} pictures of nothing"));
        }
    }
    super::check_all(failures);
}
