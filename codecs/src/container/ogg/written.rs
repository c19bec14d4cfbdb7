//! Streams that are written here, for what the test media do not have.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::Ordering;

use portcullis_engine::component::OpenContext;
use portcullis_engine::{ErrorKind, MajorType, MediaTime, StreamId, sample_keys};

use super::oracle::{self, Counting, drain, open};
use super::tests::repair;
use super::*;

const BEGINS: u8 = 2;
pub(super) const ENDS: u8 = 4;

/// A page with these whole packets.
pub(super) fn page(
    serial: u32,
    sequence: u32,
    flags: u8,
    granule: i64,
    packets: &[&[u8]],
) -> Vec<u8> {
    let mut lacing = Vec::new();
    for packet in packets {
        lacing.resize(lacing.len() + packet.len() / 255, 255);
        lacing.push((packet.len() % 255) as u8);
    }
    raw_page(serial, sequence, flags, granule, &lacing, &packets.concat())
}

fn raw_page(
    serial: u32,
    sequence: u32,
    flags: u8,
    granule: i64,
    lacing: &[u8],
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = b"OggS\0".to_vec();
    bytes.push(flags);
    bytes.extend(granule.to_le_bytes());
    bytes.extend(serial.to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.push(lacing.len() as u8);
    bytes.extend(lacing);
    bytes.extend(body);
    repair(&mut bytes);
    bytes
}

/// Packets of 20 ms.
pub(super) const PACKET: &[u8] = &[0xfc, 1, 2];

pub(super) fn opus_head(pre_skip: u16) -> Vec<u8> {
    [
        b"OpusHead\x01\x02".as_slice(),
        &pre_skip.to_le_bytes(),
        &[0; 7],
    ]
    .concat()
}

pub(super) fn opus_headers(serial: u32, pre_skip: u16) -> [Vec<u8>; 2] {
    [
        page(serial, 0, BEGINS, 0, &[&opus_head(pre_skip)]),
        page(serial, 1, 0, 0, &[b"OpusTags"]),
    ]
}

/// Start, length and trims of all samples in frames of 48 kHz.
fn frames(bytes: Vec<u8>) -> Vec<(i64, i64, u64, u64)> {
    let mut source = open(&OggHandler, bytes, false).unwrap();
    let base = source.presentation().streams[0].time_base;
    let (samples, error) = drain(&mut *source);
    assert_eq!(error, None);
    let trim = |s: &portcullis_engine::Sample, key| s.attributes.get(key).unwrap_or(0);
    samples
        .iter()
        .map(|(_, s)| {
            (
                base.to_units(s.time),
                base.to_units(s.duration),
                trim(s, &sample_keys::TRIM_START),
                trim(s, &sample_keys::TRIM_END),
            )
        })
        .collect()
}

#[test]
fn a_stream_of_one_page_is_trimmed_at_its_end() {
    let [head, tags] = opus_headers(1, 312);
    let sound = page(1, 2, ENDS, 312 + 1000, &[PACKET, PACKET]);
    let expected = [(-312, 960, 312, 0), (648, 352, 0, 608)];
    assert_eq!(frames([head, tags, sound].concat()), expected);
}

#[test]
fn a_stream_that_was_cut_begins_where_its_first_page_says() {
    let [head, tags] = opus_headers(1, 312);
    let sound = [
        page(1, 2, 0, 48_000, &[PACKET, PACKET]),
        page(1, 3, 0, 48_960, &[PACKET]),
    ];
    let expected = [
        (48_000 - 1920 - 312, 960, 312, 0),
        (48_000 - 960 - 312, 960, 0, 0),
        (48_000 - 312, 960, 0, 0),
    ];
    assert_eq!(frames([head, tags, sound.concat()].concat()), expected);
}

#[test]
fn a_first_page_that_ends_early_trims_the_start() {
    if oracle::media().is_none() {
        return;
    }
    let mut bytes = oracle::read("audio/vorbis.ogg");
    // The granule position of the first page of sound.
    let at = 3982 + 6;
    bytes[at..at + 8].copy_from_slice(&(47_872_i64 - 1000).to_le_bytes());
    repair(&mut bytes);
    let mut source = open(&OggHandler, bytes, true).unwrap();
    let base = source.presentation().streams[0].time_base;
    let (samples, _) = drain(&mut *source);
    let trims: Vec<_> = samples
        .iter()
        .filter_map(|(_, s)| {
            Some((
                base.to_units(s.time),
                s.attributes.get(&sample_keys::TRIM_START)?,
            ))
        })
        .collect();
    assert_eq!(trims, [(-1000, 1000)]);
    // The page after goes on where the first one ended, and the end is further than it was.
    assert_eq!(base.to_units(samples.last().unwrap().1.time), 94_680);
}

#[test]
fn a_gap_between_pages_moves_the_time() {
    let [head, tags] = opus_headers(1, 0);
    let sound = [
        page(1, 2, 0, 960, &[PACKET]),
        page(1, 5, 0, 9600, &[PACKET]),
        page(1, 6, ENDS, 10_560, &[PACKET]),
    ];
    let bytes = [head, tags, sound.concat()].concat();
    let at = bytes.len() - 2 * sound[2].len();
    let (samples, error) = drain(&mut *open(&OggHandler, bytes, true).unwrap());
    let text = error.unwrap().to_string();
    assert!(text.contains("pages 3 to 4"), "{text}");
    assert!(text.contains(&format!("byte {at}")), "{text}");
    let starts = samples.iter().map(|(_, s)| s.time.ticks() * 48 / 10_000);
    assert_eq!(starts.collect::<Vec<_>>(), [0, 8640, 9600]);
    let marks: Vec<bool> = samples.iter().map(|(_, s)| s.flags.discontinuity).collect();
    assert_eq!(marks, [false, true, false]);
}

#[test]
fn a_packet_may_lie_on_three_pages() {
    let [head, tags] = opus_headers(1, 0);
    let packet = [PACKET, &[7; 255 * 2 + 10]].concat();
    let sound = [
        raw_page(1, 2, 0, -1, &[255], &packet[..255]),
        raw_page(1, 3, 1, -1, &[255], &packet[255..510]),
        raw_page(
            1,
            4,
            1 | ENDS,
            960,
            &[(packet.len() - 510) as u8],
            &packet[510..],
        ),
    ];
    let bytes = [head, tags, sound.concat()].concat();
    let (samples, error) = drain(&mut *open(&OggHandler, bytes.clone(), true).unwrap());
    assert_eq!(error, None);
    assert_eq!(samples[0].1.payload.to_bytes(), packet);
    // Without its middle, and without its end.
    let third = bytes.len() - sound[2].len();
    let second = third - sound[1].len();
    let without = [&bytes[..second], &bytes[third..]].concat();
    for (damaged, at) in [(without, second), (bytes[..third].to_vec(), third)] {
        let (samples, error) = drain(&mut *open(&OggHandler, damaged, true).unwrap());
        assert_eq!(samples.len(), 0);
        let error = error.unwrap();
        assert!(error.to_string().contains(&format!("byte {at}")), "{error}");
    }
}

#[test]
fn streams_may_be_multiplexed() {
    let [head_a, tags_a] = opus_headers(7, 0);
    let [head_b, tags_b] = opus_headers(9, 312);
    let unknown = [
        page(8, 0, BEGINS, 0, &[b"fishead\0 and so on"]),
        page(8, 1, 0, 17, &[b"anything"]),
        page(8, 2, ENDS, 0, &[]),
    ];
    let bytes = [
        head_a,
        unknown[0].clone(),
        head_b,
        tags_a,
        unknown[1].clone(),
        // Sound of the first before the other's header is there.
        page(7, 2, 0, 960, &[PACKET]),
        tags_b,
        page(9, 2, 0, 1920, &[PACKET, PACKET]),
        unknown[2].clone(),
        page(7, 3, ENDS, 1920, &[PACKET]),
        page(9, 3, ENDS, 2880, &[PACKET]),
    ]
    .concat();
    for seekable in [true, false] {
        let mut source = open(&OggHandler, bytes.clone(), seekable).unwrap();
        let streams = &source.presentation().streams;
        assert_eq!(streams.len(), 3);
        assert_eq!(
            (streams[1].major(), streams[1].selected),
            (MajorType::Data, false)
        );
        assert_eq!(streams[1].media_type.subtype.name(), "skeleton");
        let duration = seekable.then(|| MediaTime::from_ticks(2568 * 10_000 / 48));
        assert_eq!(source.presentation().duration, duration);
        let (samples, error) = drain(&mut *source);
        assert_eq!(error, None);
        let ids: Vec<u32> = samples.iter().map(|(id, _)| id.0).collect();
        assert_eq!(ids, [0, 2, 2, 0, 2]);
    }
}

#[test]
fn a_link_may_change_its_delay() {
    let link = |serial, pre_skip: u16| {
        let [head, tags] = opus_headers(serial, pre_skip);
        let sound = page(
            serial,
            2,
            ENDS,
            i64::from(pre_skip) + 960,
            &[PACKET, PACKET],
        );
        [head, tags, sound].concat()
    };
    let expected = [
        (-312, 960, 312, 0),
        (648, 312, 0, 648),
        (960 - 120, 960, 120, 0),
        (960 + 840, 120, 0, 840),
    ];
    let bytes = [link(1, 312), link(2, 120)].concat();
    assert_eq!(frames(bytes.clone()), expected);
    // The same serial number again is a link too.
    let same = [link(1, 312), link(1, 120)].concat();
    assert_eq!(frames(same.clone()), expected);
    let source = open(&OggHandler, same, true).unwrap();
    assert_eq!(source.presentation().duration, None);
    let mut source = open(&OggHandler, bytes, true).unwrap();
    let duration = MediaTime::from_ticks(1920 * 10_000 / 48);
    assert_eq!(source.presentation().duration, Some(duration));
    source
        .start(&[StreamId(0)], Some(MediaTime::from_millis(35)))
        .unwrap();
    let (samples, _) = drain(&mut *source);
    let kept = samples.iter().filter(|(_, s)| !s.flags.preroll);
    assert_eq!(kept.count(), 2);
}

#[test]
fn damage_is_told_with_its_position() {
    let [head, tags] = opus_headers(1, 0);
    let begin = [head.clone(), tags, page(1, 2, 0, 960, &[PACKET])].concat();
    let at = begin.len();
    let long = [&[0xff, 63][..], &[0; 20]].concat();
    for (damage, expected) in [
        (page(1, 3, 0, -2, &[PACKET]), "granule position -2"),
        (page(4, 3, 0, 960, &[PACKET]), "never began"),
        (page(1, 3, 1, 1920, &[PACKET]), "did not begin"),
        (page(1, 3, 0, 1920, &[&long]), "no opus packet"),
        (b"garbage".to_vec(), "no Ogg page"),
        (page(1, 3, 0, 1920, &[PACKET])[..30].to_vec(), "Ogg page"),
    ] {
        for seekable in [true, false] {
            let bytes = [begin.clone(), damage.clone()].concat();
            let (samples, error) = drain(&mut *open(&OggHandler, bytes, seekable).unwrap());
            assert_eq!(samples.len(), 1, "{expected}");
            let text = error.unwrap().to_string();
            assert!(text.contains(expected), "{text}");
            let place = text.split("byte ").nth(1).unwrap();
            let place: usize = place
                .split(|c: char| !c.is_ascii_digit())
                .next()
                .unwrap()
                .parse()
                .unwrap();
            assert!((at..at + 60).contains(&place), "{text} after {at}");
        }
    }
    let twice = [head.clone(), head].concat();
    let error = open(&OggHandler, twice, true).err().unwrap();
    assert!(
        matches!(error.kind(), ErrorKind::Malformed { at: 47, .. }),
        "{error}"
    );
}

#[test]
fn a_flood_of_false_pages_costs_little() {
    let [head, tags] = opus_headers(1, 0);
    let mut bytes = [head, tags, page(1, 2, 0, 960, &[PACKET])].concat();
    // Each claims the longest body.
    let mut lie = b"OggS\0\0".to_vec();
    lie.resize(26, 0);
    lie.push(255);
    lie.resize(27 + 255, 255);
    while bytes.len() < 1 << 20 {
        bytes.extend(&lie);
    }
    let (input, count) = Counting::new(bytes, true);
    let mut source = OggHandler
        .open(Box::new(input), &OpenContext::default())
        .unwrap();
    source
        .start(&[StreamId(0)], Some(MediaTime::from_millis(10)))
        .unwrap();
    let (samples, error) = drain(&mut *source);
    assert!(samples.len() == 1 && error.is_some());
    assert!(count.load(Ordering::Relaxed) < 8 << 20);
}

#[test]
fn an_input_is_read_once() {
    for list in ["MANIFEST.json", "bad/BAD.json"] {
        for (file, _) in oracle::rows(list, &["ogg", "oga", "opus"]) {
            let bytes = oracle::read(&file);
            let len = bytes.len() as u64;
            for seekable in [true, false] {
                let (input, count) = Counting::new(bytes.clone(), seekable);
                if let Ok(mut source) = OggHandler.open(Box::new(input), &OpenContext::default()) {
                    drain(&mut *source);
                }
                // The end is looked at for the length.
                let tail = if seekable { 160 << 10 } else { 0 };
                let read = count.load(Ordering::Relaxed);
                assert!(read <= len + tail, "{file}: {read} of {len}");
            }
        }
    }
}

#[test]
fn a_position_in_a_long_stream_costs_little() {
    let [head, tags] = opus_headers(1, 0);
    let mut bytes = [head, tags].concat();
    let packet = [PACKET, &[9; 160]].concat();
    let packets = [&packet[..]; 50];
    // 4000 pages of a second, 33 MB.
    for second in 0..4000_u32 {
        let flags = if second == 3999 { ENDS } else { 0 };
        let granule = i64::from(second + 1) * 48_000;
        bytes.extend(page(1, second + 2, flags, granule, &packets));
    }
    let (input, count) = Counting::new(bytes, true);
    let mut source = OggHandler
        .open(Box::new(input), &OpenContext::default())
        .unwrap();
    assert_eq!(
        source.presentation().duration,
        Some(MediaTime::from_secs(4000))
    );
    for seconds in [3999, 1, 2000, 1234, 0] {
        let before = count.load(Ordering::Relaxed);
        let position = MediaTime::from_secs(seconds) + MediaTime::from_millis(500);
        source.start(&[StreamId(0)], Some(position)).unwrap();
        let (_, sample) = source.read().unwrap().unwrap();
        let early = position - sample.time;
        assert!((80..=100).contains(&(early.ticks() / 10_000)), "{early}");
        let read = count.load(Ordering::Relaxed) - before;
        assert!(read < 3 << 20, "{read} bytes for {position}");
    }
}
