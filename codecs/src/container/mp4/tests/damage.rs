//! Files of which a part is damaged: the rest is played, and the damage is told to who asks for it.

use portcullis_engine::presentation::stream_keys;
use portcullis_engine::{ErrorKind, MediaTime, StreamId, keys};

use super::built::{Track, boxed, full, movie, picture, samples, sound, words};
use super::{open, read_all};

/// A track of one chunk of samples of one byte and one unit.
fn track(handler: &[u8; 4], entry: Vec<u8>, count: u32, first_chunk: u32) -> Track {
    let tables = [
        full(b"stts", &[1, count, 1]),
        full(b"stsc", &[1, first_chunk, count, 1]),
        full(b"stsz", &[1, count]),
        full(b"stco", &[1, 8]),
    ];
    Track {
        handler: *handler,
        timescale: 1000,
        edits: Vec::new(),
        entry,
        tables: tables.concat(),
    }
}

fn file(tracks: &[Track]) -> Vec<u8> {
    let tracks: Vec<Vec<u8>> = tracks.iter().zip(1..).map(|(t, id)| t.track(id)).collect();
    [boxed(b"mdat", &[1; 10]), movie(&tracks, &[])].concat()
}

#[test]
fn a_damaged_track_that_nobody_plays_does_not_keep_the_others() {
    let pictures = || track(b"vide", picture(b"jpeg"), 2, 1);
    let cut_short = || full(b"esds", &[0x0319_ffff]);
    for damaged in [
        track(b"sbtl", boxed(b"tx3g", &[0; 8]), 2, 2),
        track(b"meta", boxed(b"mebx", &[0; 4]), 2, 1),
        track(b"vide", picture(b"jpeg"), 2, 7),
    ] {
        let bytes = file(&[pictures(), damaged]);
        let mut source = open(bytes, true).unwrap();
        let [first, second] = &source.presentation().streams[..] else {
            panic!("two tracks")
        };
        assert!(first.selected && !second.selected);
        assert_eq!(second.sample_count, None);
        let error = source.start(&[StreamId(1)], None).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Malformed { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("byte"), "{error}");
        source.start(&[StreamId(0)], None).unwrap();
        let read = std::iter::from_fn(|| source.read().unwrap()).count();
        assert_eq!(read, 2);
    }
    // What everybody plays is another matter.
    let entry = || sound(b"mp4a", 16, &cut_short());
    assert!(open(file(&[pictures(), track(b"soun", entry(), 2, 1)]), true).is_err());
    assert!(open(file(&[track(b"vide", picture(b"jpeg"), 2, 7)]), true).is_err());
    assert!(open(file(&[track(b"sbtl", boxed(b"tx3g", &[0; 8]), 2, 2)]), true).is_err());
}

#[test]
fn an_offset_at_the_end_of_numbers_is_an_error_with_its_place() {
    let tables = [
        full(b"stts", &[1, 10, 1]),
        full(b"stsc", &[1, 1, 10, 1]),
        full(b"stsz", &[1, 10]),
        full(b"co64", &[1, u32::MAX, u32::MAX - 3]),
    ];
    let track = Track {
        handler: *b"soun",
        timescale: 8000,
        edits: full(b"elst", &[1, 0, 5, 0x1_0000]),
        entry: sound(b"sowt", 16, &[]),
        tables: tables.concat(),
    };
    for seekable in [true, false] {
        let Ok(mut source) = open([track.movie(), boxed(b"mdat", &[0; 64])].concat(), seekable)
        else {
            panic!("the tables are well-formed")
        };
        let (found, errors) = read_all(source.as_mut(), None);
        assert_eq!((found.len(), errors.len()), (0, 1), "{errors:?}");
        assert!(errors[0].to_string().contains("byte 184467"), "{errors:?}");
    }
}

#[test]
fn single_frames_of_sound_may_come_in_many_runs() {
    let mut track = track(b"soun", sound(b"sowt", 16, &[]), 3000, 1);
    track.timescale = 8000;
    track.tables = [
        full(b"stts", &[3, 1000, 1, 1500, 1, 500, 1]),
        full(b"stsc", &[1, 1, 3000, 1]),
        full(b"stsz", &[1, 3000]),
        full(b"stco", &[1, 8]),
    ]
    .concat();
    let bytes = [boxed(b"mdat", &[1; 12_000]), track.movie()].concat();
    let lens: Vec<usize> = samples(&bytes).iter().map(|s| s.len()).collect();
    assert_eq!(lens, [4096, 4096, 3808]);
    let source = open(bytes, true).unwrap();
    let rate = source.presentation().streams[0]
        .media_type
        .get(&keys::BIT_RATE);
    assert_eq!(rate, Some(8000 * 2 * 16));
}

#[test]
fn boxes_that_only_describe_keep_nobody_from_playing() {
    for kind in [b"colr", b"pasp", b"btrt"] {
        let mut entry = picture(b"jpeg");
        entry.extend(boxed(kind, &[1, 2]));
        let len = entry.len() as u32;
        entry[..4].copy_from_slice(&len.to_be_bytes());
        let bytes = file(&[track(b"vide", entry, 2, 1)]);
        assert_eq!(samples(&bytes).len(), 2);
    }
}

#[test]
fn pictures_of_many_lengths_have_a_rate_that_all_their_times_fit() {
    let mut track = track(b"vide", picture(b"jpeg"), 10, 1);
    track.tables = [
        full(b"stts", &[3, 4, 40, 5, 80, 1, 7]),
        full(b"stsc", &[1, 1, 10, 1]),
        full(b"stsz", &[1, 10]),
        full(b"stco", &[1, 8]),
    ]
    .concat();
    let source = open(file(&[track]), true).unwrap();
    let stream = &source.presentation().streams[0];
    let rate = stream.attributes.get(&stream_keys::BASE_FRAME_RATE);
    assert_eq!(rate, Some((25, 1)));
    assert_eq!(
        stream.media_type.get(&keys::FRAME_RATE),
        Some((10_000, 567))
    );
    assert_eq!(stream.start_time, Some(MediaTime::ZERO));
}

#[test]
fn bit_rates_are_what_the_samples_have() {
    let rate = [boxed(b"btrt", &words(&[0, 0, 99]))].concat();
    let mut entry = picture(b"jpeg");
    entry.extend(rate);
    let len = entry.len() as u32;
    entry[..4].copy_from_slice(&len.to_be_bytes());
    let source = open(file(&[track(b"vide", entry, 10, 1)]), true).unwrap();
    // 10 bytes in 10 ms.
    let rate = source.presentation().streams[0]
        .media_type
        .get(&keys::BIT_RATE);
    assert_eq!(rate, Some(8000));
}
