//! Positions: what comes after a seek is what a decode from the start has there.

use portcullis_engine::{ErrorKind, MediaTime, TimeBase};

use crate::clip::{Decoded, Decoder, decode, media, open, registry};

#[test]
fn every_position_is_found() {
    let Some(media) = media() else { return };
    let registry = registry();
    for name in [
        "audio/wav_u8.wav",
        "audio/wav_s24.wav",
        "audio/wav_rf64.wav",
        "audio/flac16.flac",
        "audio/flac24_96k.flac",
        "third_party/flac/subset_23_-_8_bit_per_sample.flac",
        "third_party/flac/subset_61_-_predictor_overflow_check_16-bit.flac",
        "audio/mp3_cbr_id3.mp3",
        "audio/mp3_vbr_apic.mp3",
        "audio/mp3_mpeg2_mono_22k.mp3",
        "audio/aac.adts",
    ] {
        let bytes = std::fs::read(media.join(name)).unwrap();
        let mut source = open(&registry, name, bytes.clone(), true).unwrap();
        let whole = decode(&registry, source.as_mut(), 0).unwrap();
        let media_type = whole.media_type.clone().unwrap();
        let base = TimeBase::per_second(media_type.sample_rate().unwrap()).unwrap();
        let frame = whole.bytes.len() / whole.frames() as usize;
        let length = base.to_time(whole.frames() as i64);
        let stream = source.presentation().streams[0].clone();
        for millis in [0, 1, 20, 21, 333, 499, 400, 100, 0, 480, 1000, 1999, 50] {
            let position = MediaTime::from_millis(millis);
            if position >= length {
                continue;
            }
            let (mut decoder, decoded_type) = Decoder::new(&registry, &stream.media_type).unwrap();
            let mut part = Decoded {
                media_type: Some(decoded_type),
                ..Decoded::default()
            };
            source.start(&[stream.id], Some(position)).unwrap();
            while let Some((_, sample)) = source.read().unwrap() {
                let mut heard = Decoded::default();
                let preroll = sample.flags.preroll;
                decoder.feed(sample, &mut heard);
                if !preroll {
                    if part.first.is_none() {
                        part.first = heard.first;
                    }
                    part.bytes.extend(heard.bytes);
                }
            }
            let first = part.first.unwrap();
            assert!(first <= position, "{name} at {position}: begins at {first}");
            assert!(
                first + MediaTime::from_millis(201) > position,
                "{name} at {position}: begins at {first}"
            );
            let from = base.to_units(first) as usize * frame;
            let expected = &whole.bytes[from..];
            assert_eq!(part.bytes.len(), expected.len(), "{name} at {position}");
            if media_type.subtype.name() != "pcm_f32le" {
                assert!(part.bytes == expected, "{name} at {position} is not exact");
                continue;
            }
            let expected = Decoded {
                bytes: expected.to_vec(),
                media_type: Some(media_type.clone()),
                ..Decoded::default()
            };
            for (at, (a, b)) in part.floats().iter().zip(expected.floats()).enumerate() {
                assert!(
                    (a - b).abs() < 1e-4,
                    "{name} at {position}, value {at}: {a} instead of {b}"
                );
            }
        }
        // Without going back only what lies ahead is found; what lies before may have to be decoded.
        let mut forward = open(&registry, name, bytes, false).unwrap();
        forward
            .start(&[stream.id], Some(MediaTime::from_millis(300)))
            .unwrap();
        let mut read = || forward.read().unwrap().unwrap().1;
        let mut sample = read();
        while sample.flags.preroll {
            sample = read();
        }
        assert!(
            sample.end_time() > MediaTime::from_millis(300)
                && sample.time <= MediaTime::from_millis(300),
            "{name}"
        );
        // What is still in the buffer may be gone back to.
        if let Err(back) = forward.start(&[stream.id], Some(MediaTime::ZERO)) {
            assert!(
                matches!(back.kind(), ErrorKind::NotSeekable { .. }),
                "{name}: {back}"
            );
        }
    }
}
