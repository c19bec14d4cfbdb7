//! Signatures of containers that hold elementary streams: whoever searches for sync words must not look inside of them.

/// Whether the input begins like a container that has frames of an elementary stream as its contents.
///
/// A row of frames behind such a beginning is what a track holds, however long it is.
pub(super) fn is_container(head: &[u8]) -> bool {
    is_boxes(head) || is_riff(head) || SIGNATURES.iter().any(|known| head.starts_with(known))
}

const SIGNATURES: [&[u8]; 8] = [
    b"\x1a\x45\xdf\xa3",                 // Matroska and WebM
    b"OggS\0",                           // Ogg
    b"fLaC",                             // FLAC
    b"FORM",                             // AIFF
    b"FLV\x01",                          // Flash
    b"\x00\x00\x01\xba",                 // MPEG program streams
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", // ASF
    b"caff\0\x01",                       // Core Audio
];

/// MP4 and QuickTime: the first box's kind follows its size.
fn is_boxes(head: &[u8]) -> bool {
    const FIRST: [&[u8; 4]; 10] = [
        b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"moof", b"sidx", b"pnot",
    ];
    head.get(4..8)
        .is_some_and(|kind| FIRST.iter().any(|first| kind == *first))
}

/// RIFF of any form but `RMP3`, which is a bare stream behind a header and has no reader of its own.
fn is_riff(head: &[u8]) -> bool {
    let ids: [&[u8]; 4] = [b"RIFF", b"RIFX", b"RF64", b"BW64"];
    ids.iter().any(|id| head.starts_with(id)) && head.get(8..12) != Some(b"RMP3")
}

#[cfg(test)]
mod tests {
    use portcullis_engine::ByteStreamHandler;
    use portcullis_engine::component::{Confidence, Hints};

    use super::super::{adts::Adts, mp3::Mp3};

    /// Sixteen frames of MP3, 128 kbit/s at 44.1 kHz.
    fn mp3() -> Vec<u8> {
        let mut frame = b"\xff\xfb\x90\x00".to_vec();
        frame.resize(417, 0);
        frame.repeat(16)
    }

    /// Sixteen frames of ADTS, 64 bytes each.
    fn adts() -> Vec<u8> {
        let mut frame = b"\xff\xf1\x50\x80\x08\x1f\xfc".to_vec();
        frame.resize(64, 0);
        frame.repeat(16)
    }

    #[test]
    fn frames_inside_of_a_container_are_not_an_elementary_stream() {
        let named = |extension: &str| Hints {
            extension: Some(extension.into()),
            ..Hints::default()
        };
        for hints in [Hints::default(), named("mp3"), named("aac")] {
            assert_eq!(Mp3 {}.probe(&mp3(), &hints), Confidence::Sure);
            assert_eq!(Adts {}.probe(&adts(), &hints), Confidence::Sure);
            let heads: [&[u8]; 10] = [
                b"\0\0\0\x20ftypisom",
                b"\0\0\x20\0moov",
                b"\0\0\x20\0mdat",
                b"\0\0\0\x08free\0\0\x20\0mdat",
                b"\0\0\0\x08skip",
                b"RIFF\0\0\x20\0WAVEfmt ",
                b"RF64\xff\xff\xff\xffWAVEds64",
                b"\x1a\x45\xdf\xa3\x9f",
                b"OggS\0\x02",
                b"fLaC\0\0\0\x22",
            ];
            for head in heads {
                let probed = Mp3 {}.probe(&[head, &mp3()].concat(), &hints);
                assert_eq!(probed, Confidence::No, "MP3 behind {head:?}");
                let probed = Adts {}.probe(&[head, &adts()].concat(), &hints);
                assert_eq!(probed, Confidence::No, "ADTS behind {head:?}");
            }
        }
    }
}
