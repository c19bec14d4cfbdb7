//! Chains whose links have other headers: the decoder gets them, and every position sounds as in a run from the beginning.
#![allow(clippy::unwrap_used, reason = "tests")]

use portcullis_engine::component::OutputItem;
use portcullis_engine::{
    MediaSource, MediaTime, MediaType, Output, Registry, Role, Sample, Settings, StreamId, keys,
};

use super::oracle::{self, drain, open};
use super::written::{ENDS, PACKET, page};
use super::*;

/// Frames and formats of all sound from a position on.
struct Sound {
    formats: Vec<MediaType>,
    parts: Vec<(MediaTime, usize, Vec<u8>)>,
}

fn decode(source: &mut dyn MediaSource, position: Option<MediaTime>) -> Sound {
    let mut registry = Registry::new();
    crate::register(&mut registry);
    let input = source.presentation().streams[0].media_type.clone();
    let class = registry
        .candidates(|info| info.role == Role::Decoder && info.takes(input.subtype))
        .first()
        .unwrap()
        .info()
        .class;
    let mut decoder = registry
        .create_transform(class, &Settings::default())
        .unwrap();
    let formats = decoder.set_input(&input).unwrap();
    decoder.set_output(&formats[0]).unwrap();
    let mut sound = Sound {
        formats,
        parts: Vec::new(),
    };
    source.start(&[StreamId(0)], position).unwrap();
    let mut output = Output::default();
    while let Some((_, sample)) = source.read().unwrap() {
        decoder.process(sample, &mut output).unwrap();
        while let Some(item) = output.take() {
            match item {
                OutputItem::Format(format) => sound.formats.push(format),
                OutputItem::Sample(sample) if !sample.flags.preroll => {
                    let channels = sound.formats.last().unwrap().channels().unwrap() as usize;
                    let bytes = sound
                        .formats
                        .last()
                        .unwrap()
                        .sample_format()
                        .unwrap()
                        .bytes();
                    let payload = sample.payload.to_bytes().to_vec();
                    let frames = payload.len() / channels / bytes;
                    sound.parts.push((sample.time, frames, payload));
                }
                _ => {}
            }
        }
    }
    sound
}

fn frames(sound: &Sound) -> usize {
    sound.parts.iter().map(|part| part.1).sum()
}

#[test]
fn links_with_other_headers_are_decoded() {
    if oracle::media().is_none() {
        return;
    }
    for (first, second, changes) in [
        ("audio/vorbis.ogg", "third_party/exo/bear_vorbis.ogg", false),
        ("audio/vorbis.ogg", "audio/vorbis_chained.ogg", true),
        ("audio/opus.opus", "audio/opus_silk_mono.opus", true),
        ("audio/opus_silk_mono.opus", "audio/opus.opus", true),
        ("audio/flac_in_ogg.oga", "audio/flac_in_ogg.oga", false),
    ] {
        let mut links = [first, second].map(oracle::read);
        renumber(&mut links[1]);
        let mut alone = links
            .clone()
            .map(|link| decode(&mut *open(&OggHandler, link, true).unwrap(), None));
        let both = links.concat();
        for seekable in [true, false] {
            let mut source = open(&OggHandler, both.clone(), seekable).unwrap();
            let sound = decode(&mut *source, None);
            assert_eq!(
                frames(&sound),
                frames(&alone[0]) + frames(&alone[1]),
                "{first}"
            );
            assert_eq!(sound.formats.len(), if changes { 2 } else { 1 }, "{first}");
            let last = |sound: &Sound| sound.parts.last().unwrap().2.clone();
            assert_eq!(last(&sound), last(&alone[1]), "{first} {second}");
        }
        let mut source = open(&OggHandler, both, true).unwrap();
        let lengths = links.map(|link| {
            let source = open(&OggHandler, link, true).unwrap();
            source.presentation().duration.unwrap()
        });
        let duration = source.presentation().duration.unwrap();
        let difference = (duration - lengths[0] - lengths[1]).ticks();
        assert!(difference.abs() <= 1000, "{first} {second} {difference}");
        // Forwards and back: each time a new decoder, which has the first link's headers.
        alone.reverse();
        for part in [3, 1, 7, 5, 0] {
            let position = MediaTime::from_ticks(duration.ticks() * part / 8);
            let sound = decode(&mut *source, Some(position));
            let start = sound.parts[0].0;
            assert!(
                (start - position).ticks().abs() < 2_000_000,
                "{first} {part}"
            );
            let (last, whole) = (&sound.parts.last().unwrap().2, &alone[0].parts);
            assert_eq!(last.len(), whole.last().unwrap().2.len(), "{first} {part}");
        }
    }
}

/// Gives all pages another serial number.
fn renumber(bytes: &mut [u8]) {
    for at in 0..bytes.len() - 18 {
        if bytes[at..].starts_with(b"OggS\0") {
            bytes[at + 14] ^= 0x55;
        }
    }
    super::tests::repair(bytes);
}

fn head(gain: i16) -> Vec<u8> {
    [
        b"OpusHead\x01\x02".as_slice(),
        &[0; 6],
        &gain.to_le_bytes(),
        &[0],
    ]
    .concat()
}

/// Links of `pages` pages of 20 ms, each with another gain.
fn chain(links: u32, pages: u32) -> Vec<u8> {
    let link = |number: u32| {
        let mut bytes = page(number, 0, 2, 0, &[&head(number as i16)]);
        bytes.extend(page(number, 1, 0, 0, &[b"OpusTags"]));
        for sound in 0..pages {
            let flags = if sound + 1 == pages { ENDS } else { 0 };
            let granule = i64::from(sound + 1) * 960;
            bytes.extend(page(number, sound + 2, flags, granule, &[PACKET]));
        }
        bytes
    };
    (1..=links).flat_map(link).collect()
}

fn headers(samples: &[Sample]) -> Vec<(usize, Vec<u8>)> {
    let has = |(at, sample): (usize, &Sample)| {
        let headers = sample.attributes.get(&keys::PRIVATE_DATA)?;
        Some((at, headers.to_vec()))
    };
    samples.iter().enumerate().filter_map(has).collect()
}

#[test]
fn the_first_sample_of_a_link_carries_its_headers() {
    let mut source = open(&OggHandler, chain(3, 50), true).unwrap();
    assert_eq!(
        source.presentation().duration,
        Some(MediaTime::from_secs(3))
    );
    let mut run = |position| {
        source.start(&[StreamId(0)], position).unwrap();
        let (samples, error) = drain(&mut *source);
        assert_eq!(error, None);
        samples.into_iter().map(|(_, s)| s).collect::<Vec<_>>()
    };
    let whole = run(None);
    assert_eq!(headers(&whole), [(50, head(2)), (100, head(3))]);
    // From within a link the first sample that is delivered carries them, whatever was dropped before.
    for (millis, expected) in [(2500, 3), (1500, 2), (0, 1), (2990, 3), (1000, 2)] {
        let samples = run(Some(MediaTime::from_millis(millis)));
        assert_eq!(headers(&samples)[0], (0, head(expected)), "{millis}");
        let first = samples.iter().find(|s| !s.flags.preroll).unwrap();
        assert_eq!(
            first.time,
            MediaTime::from_millis(millis - millis % 20),
            "{millis}"
        );
    }
}

#[test]
fn a_long_chain_is_measured_and_searched_with_few_reads() {
    // 200 links of 20 seconds: 10 MB.
    let bytes = chain(200, 1000);
    let len = bytes.len() as u64;
    let (input, count) = oracle::Counting::new(bytes, true);
    let mut source = OggHandler
        .open(Box::new(input), &OpenContext::default())
        .unwrap();
    let duration = source.presentation().duration;
    assert_eq!(duration, Some(MediaTime::from_secs(4000)));
    let before = count.load(std::sync::atomic::Ordering::Relaxed);
    let position = MediaTime::from_secs(3210);
    source.start(&[StreamId(0)], Some(position)).unwrap();
    let (_, sample) = source.read().unwrap().unwrap();
    assert!(position - sample.time <= MediaTime::from_millis(100));
    let read = count.load(std::sync::atomic::Ordering::Relaxed) - before;
    assert!(read < 2 << 20 && before < 40 * len, "{before} {read}");
}
