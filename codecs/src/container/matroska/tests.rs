//! Matroska against the oracles, and against damage.
#![allow(clippy::unwrap_used, reason = "tests")]

use portcullis_engine::{
    ErrorKind, MajorType, MediaSource, MediaTime, Sample, StreamId, keys, sample_keys,
};

use super::*;
use crate::container::ogg::oracle::{self, Random, drain, open};
use crate::container::ogg::position::IsBefore;

const EXTENSIONS: &[&str] = &["mkv", "webm", "mka"];

/// Time in whole milliseconds, as FFmpeg cuts it: the time base of all the files.
fn millis(time: MediaTime) -> i64 {
    time.ticks().div_euclid(10_000)
}

/// Where neither file nor codec says a length, FFmpeg guesses; in these it is wrong.
const GUESSED: [&str; 1] = ["third_party/exo/sample.mkv"];

#[test]
fn packets_are_those_of_the_oracle() {
    for (file, row) in oracle::rows("MANIFEST.json", EXTENSIONS) {
        let Some(expected) = oracle::packets(&row) else {
            continue;
        };
        for seekable in [true, false] {
            let mut source = open(&MatroskaHandler, oracle::read(&file), seekable).unwrap();
            let (samples, error) = drain(&mut *source);
            assert_eq!(error, None, "{file}");
            let protected = source.presentation().requires_protected_host();
            // FFmpeg leaves out encrypted Opus packets that it cannot parse (and shifts the times of the others), and takes
            // every encrypted VP9 frame for a key.
            let mut rest = expected.iter();
            let mut next = rest.next();
            for (id, sample) in &samples {
                let md5 = oracle::md5(&sample.payload.to_bytes());
                let Some(packet) = next.filter(|packet| packet.md5 == md5) else {
                    assert!(protected, "{file}: {sample:?} is not {next:?}");
                    continue;
                };
                next = rest.next();
                let place = format!("{file} {packet:?}");
                assert_eq!(
                    (id.0, sample.len()),
                    (packet.stream, packet.size),
                    "{place}"
                );
                assert!(protected || sample.flags.key == packet.key, "{place}");
                if !protected || samples.len() == expected.len() {
                    assert_eq!(millis(sample.time), packet.pts.unwrap(), "{place}");
                }
                if let Some(duration) = packet
                    .duration
                    .filter(|_| sample.duration != MediaTime::ZERO && !GUESSED.contains(&&*file))
                {
                    let ours = millis(sample.duration);
                    assert!((ours - duration).abs() <= 1, "{place}: {ours}");
                }
            }
            assert!(next.is_none(), "{file}: {next:?} is missing");
        }
    }
}

#[test]
fn streams_are_those_of_the_oracle() {
    for (file, row) in oracle::rows("MANIFEST.json", EXTENSIONS) {
        let expected = row["streams"].as_array().unwrap();
        // FFmpeg refuses a file with a broken Vorbis header as a whole; here that is the decoder's to say.
        if expected.is_empty() {
            continue;
        }
        let source = open(&MatroskaHandler, oracle::read(&file), true).unwrap();
        let presentation = source.presentation();
        assert_eq!(presentation.streams.len(), expected.len(), "{file}");
        for (stream, expected) in presentation.streams.iter().zip(expected) {
            let place = format!("{file} {}", stream.media_type);
            let text = |key: &str| expected[key].as_str().unwrap().to_owned();
            let number = |key: &str| expected[key].as_u64().map(|n| n as u32);
            assert_eq!(
                stream.media_type.subtype.name(),
                text("codec_name"),
                "{place}"
            );
            assert_eq!(stream.major().to_string(), text("codec_type"), "{place}");
            assert_eq!(stream.time_base.to_string(), text("time_base"), "{place}");
            let size = number("width").zip(number("height"));
            assert_eq!(stream.media_type.frame_size(), size, "{place}");
            assert_eq!(stream.media_type.channels(), number("channels"), "{place}");
            if stream.major() == MajorType::Audio {
                let rate = stream.media_type.sample_rate().unwrap().to_string();
                assert_eq!(rate, text("sample_rate"), "{place}");
            }
            if let (Some(ours), Some(theirs)) = (
                stream.media_type.get(&keys::PROFILE),
                expected["profile"].as_str(),
            ) {
                assert_eq!(ours, theirs, "{place}");
            }
        }
    }
}

/// PCM frames that the packets of a stream stand for, after trimming.
fn kept_frames(source: &dyn MediaSource, samples: &[(StreamId, Sample)], id: u32) -> i64 {
    let rate = source.presentation().streams[id as usize]
        .media_type
        .sample_rate()
        .unwrap();
    let of_stream = samples.iter().filter(|(stream, _)| stream.0 == id);
    of_stream
        .map(|(_, sample)| {
            let ticks = i128::from(sample.duration.ticks()) * i128::from(rate);
            let frames = ((ticks + 5_000_000) / 10_000_000) as i64;
            let trim = |key| sample.attributes.get(key).unwrap_or(0) as i64;
            frames - trim(&sample_keys::TRIM_START) - trim(&sample_keys::TRIM_END)
        })
        .sum()
}

#[test]
fn delay_and_padding_are_trimmed() {
    if oracle::media().is_none() {
        return;
    }
    for (file, id, frames) in [
        ("mkv/av1_opus.webm", 1, 144_648),
        ("mkv/vp9_opus.webm", 1, 144_000),
        ("mkv/multi_audio_srt.mkv", 2, 145_105),
        ("third_party/exo/bear-opus.mka", 0, 131_200),
        ("third_party/exo/bear-flac-16bit.mka", 0, 131_520),
    ] {
        let mut source = open(&MatroskaHandler, oracle::read(file), true).unwrap();
        let (samples, _) = drain(&mut *source);
        assert_eq!(kept_frames(&*source, &samples, id), frames, "{file}");
    }
}

#[test]
fn encrypted_streams_are_listed_as_protected() {
    if oracle::media().is_none() {
        return;
    }
    for file in [
        "cenc/shaka_webm_enc_audio.webm",
        "third_party/nestegg/subsample_encrypted.webm",
    ] {
        let source = open(&MatroskaHandler, oracle::read(file), false).unwrap();
        let stream = &source.presentation().streams[0];
        assert!(stream.media_type.is_protected(), "{file}");
        let scheme = stream.attributes.named("protection_scheme");
        assert_eq!(scheme, Some(&portcullis_engine::Value::Text("cenc".into())));
    }
}

fn position_of(sample: &Sample) -> Option<u64> {
    sample.attributes.get(&sample_keys::BYTE_POSITION)
}

/// Removes the index, so that positions are found by walking.
pub(super) fn without_cues(mut bytes: Vec<u8>) -> Vec<u8> {
    for id in [ids::CUES, ids::SEEK_HEAD] {
        let id = id.to_be_bytes();
        while let Some(at) = bytes.windows(4).position(|four| four == id) {
            // The id of nothing.
            bytes[at..at + 4].copy_from_slice(&[0x1f, 0xff, 0xff, 0xf0]);
        }
    }
    bytes
}

#[test]
fn every_position_is_found() {
    if oracle::media().is_none() {
        return;
    }
    for file in [
        "mkv/h264_aac.mkv",
        "mkv/vp9_opus.webm",
        "mkv/vp8_vorbis.webm",
        "mkv/multi_audio_srt.mkv",
        "mkv/h264_aac_live_unknownsize.mkv",
        "third_party/exo/bear-flac-16bit.mka",
        "third_party/exo/sample.mkv",
    ] {
        let whole = oracle::read(file);
        for bytes in [without_cues(whole.clone()), whole] {
            let mut source = open(&MatroskaHandler, bytes, true).unwrap();
            let all_ids: Vec<_> = source.presentation().streams.iter().map(|s| s.id).collect();
            let (all, _) = drain(&mut *source);
            let end = all.iter().map(|(_, sample)| sample.time).max().unwrap();
            for step in (0..25).rev() {
                let position = MediaTime::from_ticks(end.ticks() * step / 25);
                source.start(&all_ids, Some(position)).unwrap();
                let (samples, error) = drain(&mut *source);
                assert_eq!(error, None, "{file} from {position}");
                for &id in &all_ids {
                    let place = format!("{file} stream {id} from {position}");
                    let of = |samples: &[(StreamId, Sample)]| -> Vec<Sample> {
                        samples
                            .iter()
                            .filter(|(i, _)| *i == id)
                            .map(|(_, s)| s.clone())
                            .collect()
                    };
                    let (all, samples) = (of(&all), of(&samples));
                    let skipped = all.len() - samples.len();
                    let is_video =
                        source.presentation().stream(id).unwrap().major() == MajorType::Video;
                    for (a, b) in all[skipped..].iter().zip(&samples) {
                        assert_eq!(
                            (a.time, position_of(a)),
                            (b.time, position_of(b)),
                            "{place}"
                        );
                        assert_eq!(
                            b.flags.preroll,
                            step > 0 && b.is_before(position),
                            "{place}"
                        );
                        assert_eq!(a.attributes, b.attributes, "{place}");
                    }
                    let is_last_key = |s: &Sample| s.flags.key && s.time <= position;
                    if step > 0 && is_video && skipped > 0 {
                        let last = all.iter().rposition(is_last_key).unwrap();
                        assert_eq!(skipped, last, "{place}");
                    }
                    assert!(skipped == 0 || samples[0].time <= position, "{place}");
                    let late = position - samples[0].time;
                    assert!(
                        is_video || late < MediaTime::from_millis(300),
                        "{place}: {late}"
                    );
                }
            }
        }
    }
}

#[test]
fn one_stream_of_many_is_delivered() {
    if oracle::media().is_none() {
        return;
    }
    for seekable in [true, false] {
        let bytes = oracle::read("mkv/multi_audio_srt.mkv");
        let mut source = open(&MatroskaHandler, bytes, seekable).unwrap();
        source.start(&[StreamId(2)], Some(MediaTime::ZERO)).unwrap();
        let (samples, error) = drain(&mut *source);
        assert_eq!(error, None);
        assert!(samples.iter().all(|(id, _)| *id == StreamId(2)));
        assert_eq!(samples.len(), 126);
        let again = source.start(&[StreamId(2)], Some(MediaTime::from_secs(1)));
        assert_eq!(again.is_ok(), seekable);
        if let Err(error) = again {
            assert!(
                matches!(error.kind(), ErrorKind::NotSeekable { .. }),
                "{error}"
            );
        }
    }
}

#[test]
fn damaged_files_end_as_expected() {
    for (file, row) in oracle::rows("bad/BAD.json", EXTENSIONS) {
        for seekable in [true, false] {
            let (delivered, error) = match open(&MatroskaHandler, oracle::read(&file), seekable) {
                Ok(mut source) => {
                    let (samples, error) = drain(&mut *source);
                    (samples.len(), error)
                }
                Err(error) => (0, Some(error)),
            };
            let shown = error.as_ref().map(ToString::to_string);
            println!("{file}: {delivered} samples, {shown:?}");
            match row["expect"].as_str().unwrap() {
                "error" => assert!(delivered == 0 && error.is_some(), "{file}"),
                "partial" => assert!(error.is_some(), "{file}"),
                _ => {}
            }
        }
    }
}

#[test]
fn no_mutant_panics_or_grows() {
    if oracle::media().is_none() {
        return;
    }
    let count = std::env::var("PORTCULLIS_MUTANTS").map_or(500, |n| n.parse().unwrap());
    let originals = [
        "mkv/tiny.mkv",
        "cenc/shaka_webm_enc_audio.webm",
        "third_party/exo/full_blocks.mkv",
        "mkv/vp8_vorbis.webm",
        "mkv/multi_audio_srt.mkv",
    ]
    .map(|file| {
        let mut bytes = oracle::read(file);
        bytes.truncate(20_000);
        bytes
    });
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for round in 0..count {
        let mut bytes = originals[round % originals.len()].clone();
        for _ in 0..=random.below(8) {
            let limit = if random.below(2) == 0 {
                900
            } else {
                bytes.len()
            };
            if bytes.is_empty() {
                break;
            }
            let at = random.below(limit.min(bytes.len()));
            match random.below(6) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.below(256) as u8,
                2 => bytes[at] = 255,
                3 => bytes.truncate(at.max(1)),
                4 => bytes.insert(at, random.below(256) as u8),
                _ => drop(bytes.remove(at)),
            }
        }
        let size = bytes.len();
        let Ok(mut source) = open(&MatroskaHandler, bytes, random.below(2) == 0) else {
            continue;
        };
        let payload =
            |samples: &[(StreamId, Sample)]| samples.iter().map(|(_, s)| s.len()).sum::<usize>();
        assert!(payload(&drain(&mut *source).0) <= size);
        let position = MediaTime::from_millis(random.below(3000) as i64);
        if source.start(&[StreamId(0)], Some(position)).is_ok() {
            assert!(payload(&drain(&mut *source).0) <= size);
        }
    }
}
