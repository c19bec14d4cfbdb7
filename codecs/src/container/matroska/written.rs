//! Files that are written here, for what the test media do not have.
#![allow(clippy::unwrap_used, reason = "tests")]

use portcullis_engine::component::{ByteSource, OpenContext};
use portcullis_engine::{
    ContentLimits, ErrorKind, MediaTime, StreamId, Subtype, keys, sample_keys,
};

use super::tests::without_cues;
use super::*;
use crate::container::ogg::oracle::{self, Counting, drain, open};

fn element(id: u32, content: &[u8]) -> Vec<u8> {
    let id = id.to_be_bytes();
    let skip = id.iter().take_while(|&&byte| byte == 0).count();
    let mut bytes = id[skip..].to_vec();
    bytes.extend(((content.len() as u64) | 1 << 56).to_be_bytes());
    bytes.extend(content);
    bytes
}

fn unsized_element(id: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.push(0xff);
    bytes.extend(content);
    bytes
}

fn unsigned(id: u32, value: u64) -> Vec<u8> {
    element(id, &value.to_be_bytes())
}

fn real(id: u32, value: f64) -> Vec<u8> {
    element(id, &value.to_be_bytes())
}

fn head() -> Vec<u8> {
    element(ids::EBML, &element(ids::DOC_TYPE, b"webm"))
}

/// A document of one segment without size.
fn document(children: &[Vec<u8>]) -> Vec<u8> {
    [head(), unsized_element(ids::SEGMENT, &children.concat())].concat()
}

fn track(number: u64, kind: u64, codec: &str, more: &[Vec<u8>]) -> Vec<u8> {
    let fields = [
        unsigned(ids::TRACK_NUMBER, number),
        unsigned(ids::TRACK_TYPE, kind),
        element(ids::CODEC_ID, codec.as_bytes()),
        more.concat(),
    ];
    element(ids::TRACK_ENTRY, &fields.concat())
}

fn tracks(entries: &[Vec<u8>]) -> Vec<u8> {
    element(ids::TRACKS, &entries.concat())
}

fn pcm_track() -> Vec<u8> {
    let audio = [
        real(ids::SAMPLING_FREQUENCY, 1000.0),
        unsigned(ids::CHANNELS, 1),
        unsigned(ids::BIT_DEPTH, 16),
    ];
    track(
        1,
        2,
        "A_PCM/INT/LIT",
        &[element(ids::AUDIO, &audio.concat())],
    )
}

/// A simple block of track 1.
fn block(relative: i16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = relative.to_be_bytes();
    element(
        ids::SIMPLE_BLOCK,
        &[&[0x81, high, low, flags], payload].concat(),
    )
}

fn cluster(time: u64, blocks: &[Vec<u8>]) -> Vec<u8> {
    unsized_element(
        ids::CLUSTER,
        &[unsigned(ids::TIMESTAMP, time), blocks.concat()].concat(),
    )
}

type Delivered = Vec<(i64, i64, Vec<u8>)>;

/// Time and duration in milliseconds, and payload, of everything.
fn deliver(bytes: &[u8], seekable: bool) -> Delivered {
    let mut source = open(&MatroskaHandler, bytes.to_vec(), seekable).unwrap();
    let (samples, error) = drain(&mut *source);
    assert_eq!(error, None);
    let millis = |time: MediaTime| time.ticks() / 10_000;
    samples
        .iter()
        .map(|(_, s)| {
            (
                millis(s.time),
                millis(s.duration),
                s.payload.to_bytes().to_vec(),
            )
        })
        .collect()
}

#[test]
fn laced_frames_have_times_of_their_own() {
    let bytes = document(&[
        tracks(&[pcm_track()]),
        cluster(
            10,
            &[
                block(0, 0x80, &[1, 2, 3, 4]),
                // Two frames, of 2 and 4 bytes, in each kind of lacing; then three of 2.
                block(2, 0x82, &[1, 2, 1, 1, 2, 2, 2, 2]),
                block(5, 0x86, &[1, 0x82, 3, 3, 4, 4, 4, 4]),
                block(8, 0x84, &[2, 5, 5, 6, 6, 7, 7]),
            ],
        ),
    ]);
    for seekable in [true, false] {
        let expected: Delivered = vec![
            (10, 2, vec![1, 2, 3, 4]),
            (12, 1, vec![1, 1]),
            (13, 2, vec![2; 4]),
            (15, 1, vec![3, 3]),
            (16, 2, vec![4; 4]),
            (18, 1, vec![5, 5]),
            (19, 1, vec![6, 6]),
            (20, 1, vec![7, 7]),
        ];
        assert_eq!(deliver(&bytes, seekable), expected);
    }
}

#[test]
fn clusters_without_size_end_where_another_element_begins() {
    let void = || element(0xEC, &[0; 5]);
    let bytes = document(&[
        void(),
        tracks(&[pcm_track()]),
        cluster(
            0,
            &[block(0, 0x80, &[1, 1]), void(), block(1, 0x80, &[2, 2])],
        ),
        element(ids::CUES, &[]),
        cluster(2, &[]),
        cluster(3, &[element(0xBF, &[0; 4]), block(0, 0x80, &[3, 3])]),
        element(0x1254_C367, &[0; 3]),
    ]);
    let expected: Delivered = vec![(0, 1, vec![1, 1]), (1, 1, vec![2, 2]), (3, 1, vec![3, 3])];
    assert_eq!(deliver(&bytes, true), expected);
    assert_eq!(deliver(&bytes, false), expected);
}

#[test]
fn sizes_can_be_unknown_in_every_real_file_too() {
    if oracle::media().is_none() {
        return;
    }
    let whole = oracle::read("mkv/vp9_opus.webm");
    let mut bytes = without_cues(whole.clone());
    for id in [ids::SEGMENT, ids::CLUSTER] {
        let id = id.to_be_bytes();
        let found: Vec<_> = (0..bytes.len() - 4)
            .filter(|&at| bytes[at..at + 4] == id)
            .collect();
        for at in found {
            let len = bytes[at + 4].leading_zeros() as usize + 1;
            bytes[at + 4] = 0xff >> (len - 1);
            bytes[at + 5..at + 4 + len].fill(0xff);
        }
    }
    let (expected, _) = drain(&mut *open(&MatroskaHandler, whole, true).unwrap());
    for seekable in [true, false] {
        let mut source = open(&MatroskaHandler, bytes.clone(), seekable).unwrap();
        assert_eq!(drain(&mut *source), (expected.clone(), None));
    }
}

#[test]
fn stripped_headers_are_put_back() {
    let compression = [
        unsigned(ids::CONTENT_COMP_ALGO, 3),
        element(ids::CONTENT_COMP_SETTINGS, &[0xab, 0xcd]),
    ];
    let encoding = element(
        ids::CONTENT_ENCODING,
        &element(ids::CONTENT_COMPRESSION, &compression.concat()),
    );
    let entry = track(1, 2, "A_AC3", &[element(ids::CONTENT_ENCODINGS, &encoding)]);
    let bytes = document(&[tracks(&[entry]), cluster(0, &[block(0, 0x80, &[1])])]);
    assert_eq!(deliver(&bytes, true)[0].2, [0xab, 0xcd, 1]);
}

#[test]
fn frames_that_cannot_be_restored_are_refused_by_name() {
    let encoding = element(
        ids::CONTENT_ENCODING,
        &element(
            ids::CONTENT_COMPRESSION,
            &unsigned(ids::CONTENT_COMP_ALGO, 0),
        ),
    );
    let entry = track(
        2,
        0x11,
        "S_TEXT/UTF8",
        &[element(ids::CONTENT_ENCODINGS, &encoding)],
    );
    let bytes = document(&[
        tracks(&[pcm_track(), entry]),
        cluster(0, &[block(0, 0x80, &[1, 1])]),
    ]);
    assert_eq!(deliver(&bytes, true).len(), 1);
    let mut source = open(&MatroskaHandler, bytes, true).unwrap();
    let listed = &source.presentation().streams[1];
    assert_eq!(
        (listed.media_type.subtype, listed.selected),
        (Subtype::SUBRIP, false)
    );
    let error = source.start(&[StreamId(1)], None).unwrap_err();
    assert!(error.to_string().contains("zlib"), "{error}");
}

#[test]
fn opus_without_codec_delay_skips_what_its_header_says() {
    let head = [
        b"OpusHead\x01\x02".as_slice(),
        &312_u16.to_le_bytes(),
        &[0; 7],
    ]
    .concat();
    let entry = track(1, 2, "A_OPUS", &[element(ids::CODEC_PRIVATE, &head)]);
    let bytes = document(&[
        tracks(&[entry]),
        cluster(
            0,
            &[block(0, 0x80, &[0xfc, 1]), block(20, 0x80, &[0xfc, 1])],
        ),
    ]);
    let mut source = open(&MatroskaHandler, bytes, false).unwrap();
    let media_type = source.presentation().streams[0].media_type.clone();
    assert_eq!(
        (media_type.sample_rate(), media_type.channels()),
        (Some(48_000), Some(2))
    );
    assert_eq!(media_type.get(&keys::PRIVATE_DATA).unwrap(), head);
    let (samples, _) = drain(&mut *source);
    let trims: Vec<_> = samples
        .iter()
        .map(|(_, s)| s.attributes.get(&sample_keys::TRIM_START))
        .collect();
    assert_eq!(trims, [Some(312), None]);
}

#[test]
fn tracks_may_stand_behind_the_clusters() {
    let seek_head = |position: u64| {
        let seek = [
            element(ids::SEEK_ID, &ids::TRACKS.to_be_bytes()),
            unsigned(ids::SEEK_POSITION, position),
        ];
        element(ids::SEEK_HEAD, &element(ids::SEEK, &seek.concat()))
    };
    let sound = cluster(0, &[block(0, 0x80, &[1, 1])]);
    let at = seek_head(0).len() + sound.len();
    let bytes = document(&[seek_head(at as u64), sound, tracks(&[pcm_track()])]);
    assert_eq!(deliver(&bytes, true).len(), 1);
    let error = open(&MatroskaHandler, bytes, false).err().unwrap();
    assert!(
        matches!(error.kind(), ErrorKind::Malformed { .. }),
        "{error}"
    );
}

#[test]
fn damage_is_told_with_its_position() {
    let begin = document(&[
        tracks(&[pcm_track()]),
        cluster(0, &[block(0, 0x80, &[1, 1])]),
    ]);
    let at = begin.len() as u64;
    let bomb = [&[0xa3, 0x08][..], &[0xff; 6]].concat();
    for (damage, expected) in [
        (block(0, 0x82, &[9, 1]), "lacing"),
        (vec![0, 0, 0], "begins no element"),
        (element(ids::SIMPLE_BLOCK, &[0x81, 0]), "without its head"),
        (element(ids::BLOCK_GROUP, &[0xa1, 0x90, 0]), "reaches out"),
        (bomb, "element 0xA3"),
    ] {
        for seekable in [true, false] {
            let bytes = [begin.clone(), damage.clone()].concat();
            let mut source = open(&MatroskaHandler, bytes, seekable).unwrap();
            let (samples, error) = drain(&mut *source);
            let text = error.unwrap().to_string();
            assert_eq!(samples.len(), 1, "{text}");
            assert!(text.contains(expected), "{text}");
            let place = text.split("byte ").nth(1).unwrap();
            let place: u64 = place
                .split(|c: char| !c.is_ascii_digit())
                .next()
                .unwrap()
                .parse()
                .unwrap();
            assert!((at..at + 40).contains(&place), "{text} after {at}");
        }
    }
}

/// A picture track without a length of frames.
fn picture_track() -> Vec<u8> {
    let size = [
        unsigned(ids::PIXEL_WIDTH, 16),
        unsigned(ids::PIXEL_HEIGHT, 16),
    ];
    track(1, 1, "V_VP8", &[element(ids::VIDEO, &size.concat())])
}

fn sized_cluster(time: u64, blocks: &[Vec<u8>]) -> Vec<u8> {
    let content = [unsigned(ids::TIMESTAMP, time), blocks.concat()];
    element(ids::CLUSTER, &content.concat())
}

#[test]
fn damage_in_a_cluster_costs_what_follows_in_it() {
    let clusters = |make: fn(u64, &[Vec<u8>]) -> Vec<u8>| {
        [0_u8, 10, 20].map(|time| {
            let key = block(0, 0x80, &[time, 0]);
            let more = block(1, 0, &[time, 1]);
            make(time.into(), &[key, more, block(2, 0, &[time, 2])])
        })
    };
    let sized = clusters(sized_cluster);
    for whole in [clusters(cluster), sized.clone()] {
        for seekable in [true, false] {
            let mut damaged = whole.clone();
            // The middle of the second cluster: the second of its blocks.
            let second = damaged[1].len() - 2 * block(1, 0, &[0, 0]).len();
            damaged[1][second..second + 4].fill(0);
            let head = document(&[tracks(&[picture_track()])]);
            let bytes = [head, damaged.concat()].concat();
            let mut source = open(&MatroskaHandler, bytes, seekable).unwrap();
            let (samples, error) = drain(&mut *source);
            let error = error.unwrap().to_string();
            assert!(error.contains("begins no element"), "{error}");
            let found: Vec<_> = samples
                .iter()
                .map(|(_, s)| (s.payload.to_bytes()[0], s.flags.discontinuity))
                .collect();
            let calm = [(0, false), (0, false), (0, false), (10, false)];
            assert_eq!(found[..4], calm);
            assert_eq!(found[4..], [(20, true), (20, false), (20, false)]);
        }
    }
    // A size that takes in the next cluster.
    let mut damaged = sized;
    let long = damaged[1].len() as u64 + 20;
    damaged[1][4..12].copy_from_slice(&(long | 1 << 56).to_be_bytes());
    let head = document(&[tracks(&[picture_track()])]);
    let bytes = [head, damaged.concat()].concat();
    let mut source = open(&MatroskaHandler, bytes, true).unwrap();
    let (samples, error) = drain(&mut *source);
    assert_eq!(samples.len(), 9);
    assert!(error.unwrap().to_string().contains("inside of"));
}

#[test]
fn pictures_last_until_the_next_one_where_nothing_says_how_long() {
    let times = [0, 33, 67, 100, 233];
    let blocks = times.map(|time| block(time, if time == 0 { 0x80 } else { 0 }, &[time as u8]));
    let bytes = document(&[tracks(&[picture_track()]), cluster(0, &blocks)]);
    for seekable in [true, false] {
        let lengths: Vec<i64> = deliver(&bytes, seekable).iter().map(|s| s.1).collect();
        assert_eq!(lengths, [33, 34, 33, 133, 133]);
    }
    // What is seen at 200 ms is the picture of 100 ms.
    let mut source = open(&MatroskaHandler, bytes, true).unwrap();
    let position = MediaTime::from_millis(200);
    source.start(&[StreamId(0)], Some(position)).unwrap();
    let (samples, _) = drain(&mut *source);
    let shown: Vec<u8> = samples
        .iter()
        .filter(|(_, s)| !s.flags.preroll)
        .map(|(_, s)| s.payload.to_bytes()[0])
        .collect();
    assert_eq!(shown, [100, 233]);
}

#[test]
fn the_frame_rate_and_the_start_are_told_from_the_first_pictures() {
    let blocks: Vec<_> = (0..30)
        .map(|index| block(7 + index * 100 / 3, 0x80, &[1]))
        .collect();
    let bytes = document(&[tracks(&[picture_track()]), cluster(0, &blocks)]);
    for seekable in [true, false] {
        let source = open(&MatroskaHandler, bytes.clone(), seekable).unwrap();
        let stream = &source.presentation().streams[0];
        assert_eq!(stream.media_type.get(&keys::FRAME_RATE), Some((30, 1)));
        assert_eq!(stream.start_time, Some(MediaTime::from_millis(7)));
    }
}

#[test]
fn lengths_of_streams_are_those_of_tags_or_of_the_segment() {
    let seconds = |text: &str| {
        let tag = [
            element(ids::TARGETS, &unsigned(ids::TAG_TRACK_UID, 77)),
            element(
                ids::SIMPLE_TAG,
                &[
                    element(ids::TAG_NAME, b"DURATION"),
                    element(ids::TAG_STRING, text.as_bytes()),
                ]
                .concat(),
            ),
        ];
        let tags = [element(0xEC, &[0; 3]), element(ids::TAG, &tag.concat())];
        let uid = unsigned(ids::TRACK_UID, 77);
        let entry = track(1, 2, "A_AC3", &[uid]);
        let bytes = document(&[
            element(ids::INFO, &real(ids::DURATION, 3000.0)),
            tracks(&[entry]),
            element(ids::TAGS, &tags.concat()),
            cluster(0, &[block(0, 0x80, &[1])]),
        ]);
        let source = open(&MatroskaHandler, bytes, false).unwrap();
        source.presentation().streams[0].duration
    };
    assert_eq!(seconds("00:00:02.5"), Some(MediaTime::from_millis(2500)));
    assert_eq!(seconds("soon"), Some(MediaTime::from_secs(3)));
}

#[test]
fn a_second_segment_is_refused_by_name_behind_the_first() {
    let first = || {
        let sound = cluster(0, &[block(0, 0x80, &[1, 1])]);
        element(ids::SEGMENT, &[tracks(&[pcm_track()]), sound].concat())
    };
    let open_ended = document(&[
        tracks(&[pcm_track()]),
        cluster(0, &[block(0, 0x80, &[1, 1])]),
    ]);
    for bytes in [
        [head(), first(), head(), first()].concat(),
        [head(), first(), first()].concat(),
        [open_ended.clone(), open_ended].concat(),
    ] {
        let mut source = open(&MatroskaHandler, bytes, true).unwrap();
        let (samples, error) = drain(&mut *source);
        assert_eq!(samples.len(), 1);
        let error = error.unwrap();
        assert!(
            matches!(error.kind(), ErrorKind::UnsupportedByteStream { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("second segment"), "{error}");
    }
}

#[test]
fn limits_hold() {
    let many: Vec<_> = (1..=100).map(|n| track(n, 2, "A_AC3", &[])).collect();
    let error = open(&MatroskaHandler, document(&[tracks(&many)]), true)
        .err()
        .unwrap();
    assert!(
        matches!(error.kind(), ErrorKind::LimitExceeded { .. }),
        "{error}"
    );
    let context = OpenContext {
        limits: ContentLimits {
            max_sample_bytes: 100,
            ..ContentLimits::default()
        },
        ..OpenContext::default()
    };
    let bytes = document(&[
        tracks(&[pcm_track()]),
        cluster(0, &[block(0, 0x80, &[0; 101])]),
    ]);
    let input: Box<dyn ByteSource> = Box::new(Counting::new(bytes, true).0);
    let error = drain(&mut *MatroskaHandler.open(input, &context).unwrap())
        .1
        .unwrap();
    assert!(
        matches!(error.kind(), ErrorKind::LimitExceeded { .. }),
        "{error}"
    );
}

#[test]
fn an_input_is_read_once() {
    for list in ["MANIFEST.json", "bad/BAD.json"] {
        for (file, _) in oracle::rows(list, &["mkv", "webm", "mka"]) {
            let bytes = oracle::read(&file);
            let len = bytes.len() as u64;
            for seekable in [true, false] {
                let (input, count) = Counting::new(bytes.clone(), seekable);
                if let Ok(mut source) =
                    MatroskaHandler.open(Box::new(input), &OpenContext::default())
                {
                    drain(&mut *source);
                }
                let read = count.load(std::sync::atomic::Ordering::Relaxed);
                assert!(read <= len + (64 << 10), "{file}: {read} of {len}");
            }
        }
    }
}
