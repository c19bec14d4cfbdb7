//! What a partial type demands and what a new type takes over from the one before it.

use crate::media::{MediaType, Subtype, keys};

/// Whether a type has everything that a partial type names.
pub fn satisfies(media_type: &MediaType, wanted: &MediaType) -> bool {
    media_type.major == wanted.major
        && media_type.subtype == wanted.subtype
        && wanted
            .attributes
            .iter()
            .all(|(name, value)| media_type.attributes.named(name) == Some(value))
}

/// `media_type` with those attributes of `upstream` that hold behind a decoder or converter too and that it lacks.
#[must_use]
pub fn inherit(media_type: &MediaType, upstream: &MediaType) -> MediaType {
    let mut heir = media_type.clone();
    if heir.major != upstream.major {
        return heir;
    }
    let mut names = vec![
        keys::FRAME_SIZE.name(),
        keys::FRAME_RATE.name(),
        keys::PIXEL_ASPECT.name(),
        keys::ROTATION.name(),
        keys::FULL_RANGE.name(),
        keys::SAMPLE_RATE.name(),
        keys::CHANNELS.name(),
    ];
    if heir.subtype == Subtype::RAW_VIDEO && upstream.subtype == Subtype::RAW_VIDEO {
        names.push(keys::PIXEL_FORMAT.name());
    }
    for name in names {
        if heir.attributes.named(name).is_none()
            && let Some(value) = upstream.attributes.named(name)
        {
            heir.attributes.set_named(name, value.clone());
        }
    }
    heir
}

/// What is wanted, with what an offered type of the same subtype adds to it; `None` for another subtype.
pub(super) fn complete(wanted: &MediaType, offered: &MediaType) -> Option<MediaType> {
    if (wanted.major, wanted.subtype) != (offered.major, offered.subtype) {
        return None;
    }
    let mut whole = wanted.clone();
    whole.attributes.inherit(&offered.attributes);
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::PixelFormat;

    #[test]
    fn a_partial_type_names_what_must_be_met() {
        let picture = MediaType::raw_video(PixelFormat::I420, 320, 180);
        let wanted = MediaType::new(picture.major, Subtype::RAW_VIDEO);
        assert!(satisfies(&picture, &wanted));
        assert!(satisfies(
            &picture,
            &wanted.clone().with(&keys::FRAME_SIZE, (320, 180))
        ));
        assert!(!satisfies(
            &picture,
            &wanted.with(&keys::FRAME_SIZE, (640, 360))
        ));
        assert!(!satisfies(
            &picture,
            &MediaType::new(picture.major, Subtype::H264)
        ));
    }

    #[test]
    fn g13_what_is_missing_comes_from_upstream() {
        let coded = MediaType::video(Subtype::H264, 320, 180)
            .with(&keys::FRAME_RATE, (25, 1))
            .with(&keys::CODEC_TAG, "avc1".to_owned());
        let raw = MediaType::new(coded.major, Subtype::RAW_VIDEO)
            .with(&keys::PIXEL_FORMAT, PixelFormat::I420);
        let heir = inherit(&raw, &coded);
        assert_eq!(heir.frame_size(), Some((320, 180)));
        assert_eq!(heir.get(&keys::FRAME_RATE), Some((25, 1)));
        assert_eq!(heir.get(&keys::CODEC_TAG), None);
        let larger = raw.with(&keys::FRAME_SIZE, (640, 360));
        assert_eq!(inherit(&larger, &coded).frame_size(), Some((640, 360)));
    }
}
