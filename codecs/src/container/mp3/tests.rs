//! MP3 files that are written here: stale headers, files behind each other, tails.
#![allow(clippy::unwrap_used, reason = "tests")]

use portcullis_engine::component::{Confidence, MemorySource, OpenContext};
use portcullis_engine::{
    ByteStreamHandler, Error, MediaSource, MediaTime, Sample, StreamId, TimeBase, keys, sample_keys,
};

use super::Mp3;

/// MPEG-1, layer III, 64 kbit/s, 48 kHz, stereo: frames of 192 bytes.
const HEADER: [u8; 4] = [0xff, 0xfb, 0x54, 0x00];
const FRAME: usize = 192;
const PER_FRAME: u64 = 1152;

/// Frames of silence.
fn silence(count: usize) -> Vec<u8> {
    let mut frame = HEADER.to_vec();
    frame.resize(FRAME, 0);
    frame.repeat(count)
}

/// A header frame that counts `frames`, with a delay of 576 and a padding of 1000.
fn header(kind: &[u8; 4], frames: u32) -> Vec<u8> {
    let mut bytes = silence(1);
    bytes[36..40].copy_from_slice(kind);
    bytes[43] = 0x0f;
    bytes[44..48].copy_from_slice(&frames.to_be_bytes());
    bytes[48..52].copy_from_slice(&((frames + 1) * FRAME as u32).to_be_bytes());
    bytes[156..160].copy_from_slice(b"Lavf");
    let packed = 576_u32 << 12 | 1000;
    bytes[177..180].copy_from_slice(&packed.to_be_bytes()[1..]);
    bytes
}

fn file(kind: &[u8; 4], stated: u32, frames: usize) -> Vec<u8> {
    [header(kind, stated), silence(frames)].concat()
}

fn open(bytes: Vec<u8>, seekable: bool) -> Box<dyn MediaSource> {
    let input = if seekable {
        MemorySource::new(bytes)
    } else {
        MemorySource::forward_only(bytes)
    };
    let context = OpenContext::default();
    Mp3 {}.open(Box::new(input), &context).unwrap()
}

fn drain(source: &mut dyn MediaSource) -> (Vec<Sample>, Option<Error>) {
    let mut samples = Vec::new();
    loop {
        match source.read() {
            Ok(Some((_, sample))) => samples.push(sample),
            Ok(None) => return (samples, None),
            Err(error) => return (samples, Some(error)),
        }
    }
}

/// PCM frames that remain of all samples.
fn kept(samples: &[Sample]) -> u64 {
    let trimmed = |sample: &Sample| {
        let trim = |key| sample.attributes.get(key).unwrap_or(0);
        trim(&sample_keys::TRIM_START) + trim(&sample_keys::TRIM_END)
    };
    samples.len() as u64 * PER_FRAME - samples.iter().map(trimmed).sum::<u64>()
}

fn bit_rate(source: &dyn MediaSource) -> Option<u64> {
    let stream = &source.presentation().streams[0];
    stream.media_type.attributes.get(&keys::BIT_RATE)
}

#[test]
fn the_stated_length_cuts_off_the_padding() {
    for seekable in [true, false] {
        let (samples, error) = drain(&mut *open(file(b"Info", 20, 20), seekable));
        assert_eq!((samples.len(), error), (20, None));
        assert_eq!(kept(&samples), 20 * PER_FRAME - 576 - 1000);
    }
}

#[test]
fn sound_behind_a_stale_count_is_kept() {
    // Only a little more than stated, and so much that the header is not believed at all.
    for (stated, padding) in [(20, 1000 - 529), (5, 0)] {
        let (samples, error) = drain(&mut *open(file(b"Xing", stated, 21), true));
        assert_eq!((samples.len(), error), (21, None));
        assert_eq!(kept(&samples), 21 * PER_FRAME - 1105 - padding);
    }
    // Without a known length there is no telling, but nothing behind is lost.
    let (samples, _) = drain(&mut *open(file(b"Xing", 5, 21), false));
    assert_eq!(kept(&samples), 21 * PER_FRAME - 1105 - (1000 - 529));
}

#[test]
fn files_behind_each_other_are_all_played() {
    let one = file(b"Info", 20, 20);
    let mut source = open([&one[..], &one].concat(), true);
    let (samples, error) = drain(&mut *source);
    assert_eq!((samples.len(), error), (41, None));
    assert_eq!(kept(&samples), 41 * PER_FRAME - 1105);
}

#[test]
fn info_means_one_bit_rate() {
    assert_eq!(bit_rate(&*open(file(b"Info", 20, 20), true)), Some(64_000));
    // The mean, over the header frame's bytes too.
    assert_eq!(bit_rate(&*open(file(b"Xing", 20, 20), true)), Some(67_200));
}

fn seconds(frames: u64) -> MediaTime {
    TimeBase::per_second(48_000)
        .unwrap()
        .to_time((frames * PER_FRAME) as i64)
}

/// An APE tag of 10 KB of items: of version 2 with or without its header, or of version 1.
fn ape(version: u32, header: bool) -> Vec<u8> {
    let items = [&[7; 96][..], &[0xff, 0xfb, 0x54, 0x00]]
        .concat()
        .repeat(100);
    let part = |flags: u32| {
        let mut part = b"APETAGEX".to_vec();
        for word in [version, items.len() as u32 + 32, 1, flags, 0, 0] {
            part.extend(word.to_le_bytes());
        }
        part
    };
    let has_header = if header { 1 << 31 } else { 0 };
    let front = if header {
        part(1 << 31 | 1 << 29)
    } else {
        Vec::new()
    };
    [front, items.clone(), part(has_header)].concat()
}

#[test]
fn tags_behind_the_sound_are_no_fault() {
    let id3 = [b"TAG".as_slice(), &[b'x'; 125]].concat();
    let extended = [b"TAG+".as_slice(), &[b'x'; 223]].concat();
    let text = b"[00:01]la la la\r\n".repeat(600);
    let lyrics1 = [b"LYRICSBEGIN".as_slice(), &text[..5000], b"LYRICSEND"].concat();
    let lyrics2 = [b"LYRICSBEGIN".as_slice(), &text, b"010211LYRICS200"].concat();
    for (name, tail) in [
        ("ID3v1", id3.clone()),
        ("the extended ID3v1", [extended, id3.clone()].concat()),
        ("Lyrics3", [lyrics1, id3.clone()].concat()),
        ("Lyrics3v2", [lyrics2.clone(), id3.clone()].concat()),
        ("APEv2", ape(2000, true)),
        ("APEv2 without header", ape(2000, false)),
        ("APEv1", [ape(1000, false), id3.clone()].concat()),
        ("all", [ape(2000, false), lyrics2, id3].concat()),
    ] {
        for seekable in [true, false] {
            let mut source = open([silence(20), tail.clone()].concat(), seekable);
            let duration = source.presentation().duration;
            assert_eq!(duration, seekable.then(|| seconds(20)), "{name}");
            let (samples, error) = drain(&mut *source);
            assert_eq!((samples.len(), error), (20, None), "{name}");
        }
    }
    let (_, error) = drain(&mut *open([silence(20), vec![7; 10_000]].concat(), true));
    assert!(error.is_some());
}

#[test]
fn what_no_header_says_is_measured() {
    // Frames of 64 and 128 kbit/s.
    let mut long = vec![0xff, 0xfb, 0x94, 0x00];
    long.resize(2 * FRAME, 0);
    let varied = [silence(30), long.repeat(10)].concat();
    let source = open(varied, true);
    assert_eq!(source.presentation().duration, Some(seconds(40)));
    assert_eq!(bit_rate(&*source), Some(80_000));
    let source = open(silence(30), true);
    assert_eq!(bit_rate(&*source), Some(64_000));
    // What cannot be looked at has what its first frame says.
    let source = open(silence(30), false);
    assert_eq!(source.presentation().duration, None);
    assert_eq!(bit_rate(&*source), Some(64_000));
    // A long one is looked at in several places: a quarter of its bytes are of the other rate.
    let mut source = open([silence(150_000), long.repeat(25_000)].concat(), true);
    let duration = source.presentation().duration.unwrap().as_secs_f64();
    let exact = seconds(175_000).as_secs_f64();
    assert!((duration / exact - 1.0).abs() < 0.05, "{duration} {exact}");
    let (_, first) = source.read().unwrap().unwrap();
    assert_eq!(
        (first.time, first.flags.discontinuity),
        (MediaTime::ZERO, false)
    );
}

#[test]
fn the_free_format_is_played() {
    let frame = |padded: bool| {
        let mut frame = vec![0xff, 0xfb, if padded { 0x06 } else { 0x04 }, 0x00];
        frame.resize(if padded { 501 } else { 500 }, 0);
        frame
    };
    for junk in [0, 100] {
        let mut bytes = vec![7; junk];
        for number in 0..40 {
            bytes.extend(frame(number % 3 == 1));
        }
        let hints = Default::default();
        // Behind junk only the name can tell.
        let expected = [Confidence::No, Confidence::Maybe][usize::from(junk == 0)];
        assert_eq!(Mp3 {}.probe(&bytes[..4096], &hints), expected);
        let mut source = open(bytes, true);
        assert_eq!(source.presentation().duration, Some(seconds(40)));
        let mut registry = portcullis_engine::Registry::new();
        crate::register(&mut registry);
        let mut decoder = registry
            .create_transform("audio.mpeg", &Default::default())
            .unwrap();
        let input = source.presentation().streams[0].media_type.clone();
        let types = decoder.set_input(&input).unwrap();
        decoder.set_output(&types[0]).unwrap();
        let mut output = portcullis_engine::Output::default();
        let (samples, error) = drain(&mut *source);
        assert_eq!((samples.len(), error), (40, None));
        let mut decoded = 0;
        for sample in samples {
            decoder.process(sample, &mut output).unwrap();
            while let Some(item) = output.take() {
                if let portcullis_engine::component::OutputItem::Sample(sample) = item {
                    decoded += sample.len() / 8;
                }
            }
        }
        assert_eq!(decoded as u64, 40 * PER_FRAME);
    }
}

#[test]
fn a_forward_only_input_passes_over_nothing() {
    // MPEG-2, 24 kHz: two frames lie before the sound's own beginning.
    let mut header = vec![0xff, 0xf3, 0x44, 0x00];
    header.resize(96, 0);
    let mut bytes = header.clone();
    bytes[21..25].copy_from_slice(b"Info");
    bytes[28] = 1;
    bytes[32] = 20;
    bytes[33..37].copy_from_slice(b"LAME");
    bytes[54..57].copy_from_slice(&(576_u32 << 12).to_be_bytes()[1..]);
    let frame = header;
    bytes.extend(frame.repeat(20));
    for seekable in [true, false] {
        let mut source = open(bytes.clone(), seekable);
        let samples = drain(&mut *source).0;
        let mut source = open(bytes.clone(), seekable);
        source.start(&[StreamId(0)], Some(MediaTime::ZERO)).unwrap();
        let again = drain(&mut *source).0;
        assert_eq!(samples.len(), again.len());
        let trims = |samples: &[Sample]| -> u64 {
            let trim = |s: &Sample| s.attributes.get(&sample_keys::TRIM_START).unwrap_or(0);
            samples.iter().map(trim).sum()
        };
        assert_eq!((trims(&samples), trims(&again)), (1105, 1105));
        // Further on it reads what lies between.
        let mut source = open(bytes.clone(), false);
        let position = MediaTime::from_millis(200);
        source.start(&[StreamId(0)], Some(position)).unwrap();
        let late = drain(&mut *source).0;
        assert_eq!(late.len(), samples.len());
        for sample in &late {
            assert_eq!(sample.flags.preroll, sample.end_time() <= position);
        }
    }
}
