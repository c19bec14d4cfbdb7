//! Fragmented files built box by box: what is cut off, reordered late, or too long to look through.

use portcullis_engine::{ErrorKind, MediaTime, keys};

use super::built::{Track, boxed, full, millis, movie, picture, samples, words};
use super::{open, read_all};

/// The `moov` box of a file of pictures in fragments, of 1000 units a second.
fn header() -> Vec<u8> {
    let track = Track {
        handler: *b"vide",
        timescale: 1000,
        edits: Vec::new(),
        entry: picture(b"jpeg"),
        tables: Vec::new(),
    };
    let defaults = full(b"trex", &[1, 1, 0, 0, 0]);
    movie(&[track.track(1)], &boxed(b"mvex", &defaults))
}

/// A `moof` box of samples of one byte and 100 ms with these composition offsets, whose data follows it.
fn fragment(time: u32, offsets: &[i32]) -> Vec<u8> {
    let with = |data: u32| {
        let mut run = words(&[0x0100_0b01, offsets.len() as u32, data]);
        for offset in offsets {
            run.extend(words(&[100, 1, *offset as u32]));
        }
        let traf = [
            boxed(b"tfhd", &words(&[0x0002_0000, 1])),
            full(b"tfdt", &[time]),
            boxed(b"trun", &run),
        ];
        boxed(b"moof", &boxed(b"traf", &traf.concat()))
    };
    with(with(0).len() as u32 + 8)
}

fn data(count: usize) -> Vec<u8> {
    boxed(b"mdat", &vec![7; count])
}

#[test]
fn media_data_that_is_cut_off_is_told_behind_what_is_intact() {
    let mut file = [header(), fragment(0, &[0, 0])].concat();
    let at = file.len();
    // The two samples are there, what the box holds for a track nobody selected is not.
    file.extend(words(&[1000]));
    file.extend(b"mdat77");
    for seekable in [true, false] {
        let mut source = open(file.clone(), seekable).unwrap();
        let (found, errors) = read_all(source.as_mut(), None);
        assert_eq!(found.len(), 2);
        let [error] = &errors[..] else {
            panic!("{errors:?}")
        };
        assert!(matches!(error.kind(), ErrorKind::Truncated { .. }));
        let text = error.to_string();
        assert!(text.contains(&format!("box mdat at byte {at}")), "{text}");
        assert!(text.contains("1000 bytes"), "{text}");
    }
}

#[test]
fn zeros_behind_the_last_box_are_no_box() {
    for count in 1..8 {
        let file = [header(), fragment(0, &[0]), data(1), vec![0; count]].concat();
        assert_eq!(samples(&file).len(), 1, "{count}");
        let mut file = file;
        *file.last_mut().unwrap() = 1;
        let (_, errors) = read_all(open(file, true).unwrap().as_mut(), None);
        assert_eq!(errors.len(), 1, "{count}");
    }
}

#[test]
fn pictures_are_not_shown_before_they_are_decoded_whichever_fragment_reorders_most() {
    let parts = [
        header(),
        fragment(0, &[0, 0]),
        data(2),
        fragment(200, &[100, -200]),
        data(2),
    ];
    let found = samples(&parts.concat());
    assert_eq!(millis(&found), [200, 300, 500, 300]);
    let early = |s: &&portcullis_engine::Sample| s.decode_time.is_some_and(|d| d > s.time);
    assert_eq!(found.iter().filter(early).count(), 0);
}

#[test]
fn a_stream_begins_where_its_first_fragment_does_whichever_that_is() {
    let source = open([header(), fragment(700, &[20]), data(1)].concat(), true).unwrap();
    let start = source.presentation().streams[0].start_time;
    assert_eq!(start, Some(MediaTime::from_millis(720)));
}

#[test]
fn the_bit_rate_is_that_of_all_fragments() {
    let parts = [
        header(),
        fragment(0, &[0, 0]),
        data(2),
        fragment(200, &[0]),
        data(1),
    ];
    let source = open(parts.concat(), true).unwrap();
    let rate = source.presentation().streams[0]
        .media_type
        .get(&keys::BIT_RATE);
    // A byte in 100 ms.
    assert_eq!(rate, Some(80));
}

#[test]
fn the_length_of_very_many_fragments_is_found_from_the_end() {
    let count = 17_000_u32;
    let mut file = header();
    for index in 0..count {
        file.extend(fragment(index * 100, &[0]));
        file.extend(data(1));
    }
    let source = open(file, true).unwrap();
    let length = MediaTime::from_millis(i64::from(count) * 100);
    assert_eq!(source.presentation().duration, Some(length));
    assert_eq!(source.presentation().streams[0].duration, Some(length));
}
