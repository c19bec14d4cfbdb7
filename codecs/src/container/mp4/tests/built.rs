//! Features that no clip of the test media has, in files built box by box.

use portcullis_engine::component::{MemorySource, OpenContext};
use portcullis_engine::{
    ByteStreamHandler, ContentLimits, ErrorKind, MediaTime, Sample, StreamId, Subtype,
};

use super::{media, open, read_all};
use crate::container::mp4::Mp4;
use crate::container::mp4::stream::SAMPLE_DESCRIPTION;

pub(super) fn boxed(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut bytes = (content.len() as u32 + 8).to_be_bytes().to_vec();
    bytes.extend_from_slice(kind);
    bytes.extend_from_slice(content);
    bytes
}

pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

pub(super) fn full(kind: &[u8; 4], content: &[u32]) -> Vec<u8> {
    boxed(kind, &[&words(&[0])[..], &words(content)].concat())
}

/// What differs from file to file.
pub(super) struct Track {
    pub(super) handler: [u8; 4],
    pub(super) timescale: u32,
    pub(super) edits: Vec<u8>,
    pub(super) entry: Vec<u8>,
    pub(super) tables: Vec<u8>,
}

impl Track {
    /// The `moov` box of a movie of 1000 units a second with this one track.
    pub(super) fn movie(&self) -> Vec<u8> {
        movie(&[self.track(1)], &[])
    }

    /// The `trak` box, with this number.
    pub(super) fn track(&self, id: u32) -> Vec<u8> {
        let stsd = [&words(&[0, 1])[..], &self.entry].concat();
        let stbl = [boxed(b"stsd", &stsd), self.tables.clone()].concat();
        let minf = boxed(b"minf", &boxed(b"stbl", &stbl));
        let handler = u32::from_be_bytes(self.handler);
        let mdia = [
            full(b"mdhd", &[0, 0, self.timescale, 0, 0x55c4_0000]),
            full(b"hdlr", &[0, handler, 0, 0, 0]),
            minf,
        ]
        .concat();
        let mut header = vec![0; 21];
        header[2] = id;
        let trak = [
            full(b"tkhd", &header),
            boxed(b"edts", &self.edits),
            boxed(b"mdia", &mdia),
        ]
        .concat();
        boxed(b"trak", &trak)
    }
}

/// The `moov` box of a movie of 1000 units a second with these tracks and other boxes.
pub(super) fn movie(tracks: &[Vec<u8>], more: &[u8]) -> Vec<u8> {
    let header = full(b"mvhd", &[0, 0, 1000, 0]);
    boxed(b"moov", &[&header[..], &tracks.concat(), more].concat())
}

/// A sound description of version 0 with these boxes in it.
pub(super) fn sound(kind: &[u8; 4], bits: u16, boxes: &[u8]) -> Vec<u8> {
    let mut content = vec![0; 28];
    content[7] = 1;
    content[17] = 2;
    content[18..20].copy_from_slice(&bits.to_be_bytes());
    content[24..26].copy_from_slice(&8000_u16.to_be_bytes());
    content.extend_from_slice(boxes);
    boxed(kind, &content)
}

pub(super) fn picture(kind: &[u8; 4]) -> Vec<u8> {
    let mut content = vec![0; 78];
    content[7] = 1;
    content[25] = 16;
    content[27] = 16;
    boxed(kind, &content)
}

pub(super) fn samples(bytes: &[u8]) -> Vec<Sample> {
    let mut source = open(bytes.to_vec(), true).unwrap();
    let (samples, errors) = read_all(source.as_mut(), None);
    assert!(errors.is_empty(), "{errors:?}");
    samples.into_iter().map(|(_, sample)| sample).collect()
}

pub(super) fn millis(samples: &[Sample]) -> Vec<i64> {
    samples.iter().map(|s| s.time.ticks() / 10_000).collect()
}

#[test]
fn wide_offsets_small_sizes_and_a_long_header() {
    // mdat with a 64-bit size, then co64 and 4-bit sizes 1, 2, 3 in chunks of two samples.
    let data = [
        &words(&[1])[..],
        b"mdat",
        &words(&[0, 16 + 6])[..],
        b"abbccc",
    ]
    .concat();
    let tables = [
        full(b"stts", &[1, 3, 40]),
        full(b"stsc", &[1, 1, 2, 1]),
        boxed(b"stz2", &[&words(&[0, 4, 3])[..], &[0x12, 0x30]].concat()),
        full(b"co64", &[2, 0, 16, 0, 19]),
    ]
    .concat();
    let track = Track {
        handler: *b"vide",
        timescale: 1000,
        edits: Vec::new(),
        entry: picture(b"jpeg"),
        tables,
    };
    let found = samples(&[data, track.movie()].concat());
    let texts: Vec<_> = found.iter().map(|s| s.payload.to_bytes()).collect();
    assert_eq!(texts, [&b"a"[..], b"bb", b"ccc"]);
    assert_eq!(millis(&found), [0, 40, 80]);
    assert!(found.iter().all(|sample| sample.flags.key));
}

/// Ten pictures of 100 ms, of which the first and the sixth are key pictures.
fn ten_pictures(edits: &[u32]) -> Vec<u8> {
    let tables = [
        full(b"stts", &[1, 10, 100]),
        full(b"stss", &[2, 1, 6]),
        full(b"stsc", &[1, 1, 10, 1]),
        full(b"stsz", &[1, 10]),
        full(b"stco", &[1, 8]),
    ]
    .concat();
    let track = Track {
        handler: *b"vide",
        timescale: 1000,
        edits: full(b"elst", edits),
        entry: picture(b"avc1"),
        tables,
    };
    [boxed(b"mdat", b"0123456789"), track.movie()].concat()
}

fn shown(samples: &[Sample]) -> Vec<(char, i64)> {
    let shown = samples.iter().filter(|sample| !sample.flags.preroll);
    shown
        .map(|s| (char::from(s.payload.to_bytes()[0]), s.time.ticks() / 10_000))
        .collect()
}

#[test]
fn edits_are_shown_in_their_order() {
    // 300 ms of nothing, then 700 to 900, then 200 to 400.
    let rate = 0x1_0000;
    let file = ten_pictures(&[3, 300, u32::MAX, rate, 200, 700, rate, 200, 200, rate]);
    let found = samples(&file);
    assert_eq!(
        shown(&found),
        [('7', 300), ('8', 400), ('2', 500), ('3', 600)]
    );
    // Decoding begins at the key pictures before.
    assert_eq!(&found[0].payload.to_bytes()[..], b"5");
    assert!(found.iter().any(|s| s.payload.to_bytes()[..] == *b"0"));
    let source = open(file, true).unwrap();
    assert_eq!(
        source.presentation().duration,
        Some(MediaTime::from_millis(700))
    );
}

#[test]
fn an_edit_list_that_shows_nothing_is_passed_over() {
    let file = ten_pictures(&[1, 1000, 0x7fff_ffff, 0x1_0000]);
    assert_eq!(shown(&samples(&file)).len(), 10);
}

#[test]
fn a_position_lies_in_the_edit_that_shows_it() {
    let rate = 0x1_0000;
    let file = ten_pictures(&[2, 200, 700, rate, 200, 200, rate]);
    let mut source = open(file, true).unwrap();
    let (found, _) = read_all(source.as_mut(), Some(MediaTime::from_millis(300)));
    let found: Vec<Sample> = found.into_iter().map(|(_, sample)| sample).collect();
    assert_eq!(shown(&found), [('3', 300)]);
}

fn pcm(entry: Vec<u8>, frame: u32, edits: Vec<u8>) -> Vec<u8> {
    let count = 3000;
    let tables = [
        full(b"stts", &[1, count, 1]),
        full(b"stsc", &[1, 1, count, 1]),
        full(b"stsz", &[1, count]),
        full(b"stco", &[1, 8]),
    ]
    .concat();
    let track = Track {
        handler: *b"soun",
        timescale: 8000,
        edits,
        entry,
        tables,
    };
    [
        boxed(b"mdat", &vec![1; (count * frame) as usize]),
        track.movie(),
    ]
    .concat()
}

#[test]
fn quicktime_sound_descriptions() {
    let subtype = |entry: &[u8]| {
        let source = open(pcm(entry.to_vec(), 8, Vec::new()), true).unwrap();
        source.presentation().streams[0].media_type.subtype
    };
    assert_eq!(subtype(&sound(b"sowt", 16, &[])), Subtype::PCM_S16);
    assert_eq!(subtype(&sound(b"twos", 8, &[])), Subtype::PCM_S8);
    assert_eq!(subtype(&sound(b"raw ", 8, &[])), Subtype::PCM_U8);
    assert_eq!(subtype(&sound(b"fl32", 32, &[])), Subtype::PCM_F32BE);
    // `wave` with a byte order, ended by a box of type 0.
    let wave = [boxed(b"enda", &[0, 1]), boxed(&[0; 4], &[])].concat();
    let mut entry = sound(b"in24", 16, &[]);
    entry[17] = 1;
    entry.extend(words(&[1, 3, 6, 2]));
    entry.extend(boxed(b"wave", &wave));
    let len = entry.len() as u32;
    entry[..4].copy_from_slice(&len.to_be_bytes());
    assert_eq!(subtype(&entry), Subtype::PCM_S24);
    // Version 2: 32-bit little-endian float.
    let mut entry = sound(b"lpcm", 16, &[]);
    entry[17] = 2;
    entry.extend(words(&[72]));
    entry.extend(8000_f64.to_bits().to_be_bytes());
    entry.extend(words(&[2, 0x7f00_0000, 32, 9, 8, 1]));
    let len = entry.len() as u32;
    entry[..4].copy_from_slice(&len.to_be_bytes());
    assert_eq!(subtype(&entry), Subtype::PCM_F32);
}

#[test]
fn pcm_comes_in_packets_and_is_cut_by_the_edit_list() {
    let frames = |file: &[u8]| -> Vec<(i64, usize)> {
        let found = samples(file);
        found
            .iter()
            .map(|s| (s.time.ticks() * 8 / 10_000, s.len() / 4))
            .collect()
    };
    let entry = sound(b"sowt", 16, &[]);
    let whole = pcm(entry.clone(), 4, Vec::new());
    assert_eq!(frames(&whole), [(0, 1024), (1024, 1024), (2048, 952)]);
    // 200 ms from frame 1000 on.
    let edits = full(b"elst", &[1, 200, 1000, 0x1_0000]);
    assert_eq!(
        frames(&pcm(entry, 4, edits)),
        [(0, 24), (24, 1024), (1048, 552)]
    );
}

#[test]
fn limits_are_kept() {
    let file = ten_pictures(&[0]);
    let small = ContentLimits {
        max_header_bytes: 100,
        ..ContentLimits::default()
    };
    let none = ContentLimits {
        max_tracks: 0,
        ..ContentLimits::default()
    };
    for limits in [small, none] {
        let context = OpenContext {
            limits,
            ..OpenContext::default()
        };
        let input = Box::new(MemorySource::new(file.clone()));
        let error = Mp4.open(input, &context).err().unwrap();
        assert!(
            matches!(error.kind(), ErrorKind::LimitExceeded { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("byte"), "{error}");
    }
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut source = open(ten_pictures(&[0]), true).unwrap();
    assert!(source.read().is_err());
    assert!(source.start(&[StreamId(1)], None).is_err());
    let late = source.start(&[StreamId(0)], Some(MediaTime::from_secs(2)));
    assert!(matches!(
        late.unwrap_err().kind(),
        ErrorKind::InvalidPosition { .. }
    ));
}

#[test]
fn a_stream_that_is_selected_later_begins_where_the_others_are() {
    let Some(root) = media() else { return };
    let bytes = std::fs::read(root.join("mp4/h264main_aac_prog_faststart.mp4")).unwrap();
    let mut source = open(bytes, true).unwrap();
    source.start(&[StreamId(0)], None).unwrap();
    for _ in 0..60 {
        assert_eq!(source.read().unwrap().unwrap().0, StreamId(0));
    }
    source.start(&[StreamId(0), StreamId(1)], None).unwrap();
    let sound = std::iter::from_fn(|| source.read().unwrap()).find(|(id, _)| *id == StreamId(1));
    let (_, sound) = sound.unwrap();
    assert!(
        (1.5..2.1).contains(&sound.time.as_secs_f64()),
        "{}",
        sound.time
    );
}

#[test]
fn a_clear_lead_is_told_from_what_is_encrypted() {
    let Some(root) = media() else { return };
    let bytes = std::fs::read(root.join("cenc/shaka_cenc_clearlead_video.mp4")).unwrap();
    let found = samples(&bytes);
    let clear = |sample: &&Sample| sample.attributes.get(&SAMPLE_DESCRIPTION) == Some(2);
    let clear = found.iter().filter(clear).count();
    assert!((1..found.len()).contains(&clear), "{clear}");
}
