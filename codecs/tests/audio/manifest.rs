//! The rows of the manifest.

use std::path::Path;

use md5::{Digest, Md5};
use portcullis_engine::{Error, MajorType, Registry, Subtype, TimeBase};
use serde_json::Value;

use crate::clip::{Decoded, decode, media, open, registry};

/// Where the oracle, or a library, is wrong, and why we know.
const DIFFERS: [(&str, &str); 4] = [
    (
        "audio/vorbis_chained.ogg",
        "both links have 44,100 frames by their granule positions; FFmpeg drops 128 of the second",
    ),
    (
        "third_party/exo/bear-id3.mp3",
        "a header frame behind the tag states delay and padding; FFmpeg does not find it",
    ),
    (
        "third_party/minimp3/M2L3_compl24.bit",
        "within 1e-3 of the vector's own PCM everywhere; FFmpeg is not",
    ),
    (
        "third_party/minimp3/l3-nonstandard-id3v2.bit",
        "there is one frame behind the tag; FFmpeg takes the file for G.729",
    ),
];

fn md5(bytes: &[u8]) -> String {
    Md5::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Largest difference and its root mean square. Where the lengths differ, the best of aligning the starts, the ends, and
/// the starts without an AAC encoder's delay counts.
fn difference(ours: &[f32], theirs: &[f32], channels: usize) -> (f32, f64) {
    let between = |a: &[f32], b: &[f32]| {
        let (mut max, mut sum) = (0_f32, 0_f64);
        for (a, b) in a.iter().zip(b) {
            max = max.max((a - b).abs());
            sum += f64::from(a - b).powi(2);
        }
        (max, (sum / a.len().min(b.len()).max(1) as f64).sqrt())
    };
    let starts = between(ours, theirs);
    if ours.len() == theirs.len() {
        return starts;
    }
    let len = ours.len().min(theirs.len());
    let ends = between(&ours[ours.len() - len..], &theirs[theirs.len() - len..]);
    let delayed = between(ours.get(1024 * channels..).unwrap_or_default(), theirs);
    [ends, delayed].into_iter().fold(
        starts,
        |best, other| if other.1 < best.1 { other } else { best },
    )
}

/// What the manifest says of a stream, compared with what was decoded; `Err` says what differs.
fn compare(
    registry: &Registry,
    media: &Path,
    subtype: Subtype,
    row: &Value,
    ours: &Decoded,
    stated: Option<u64>,
    noisy: bool,
) -> Result<String, String> {
    let frames = row["frames"].as_u64().unwrap();
    let untrimmed = row["frames_untrimmed"].as_u64().unwrap();
    let channels = row["channels"].as_u64().unwrap();
    let ours_type = ours.media_type.as_ref().unwrap();
    if frames > 0
        && (
            ours_type.channels().map(u64::from),
            ours_type.sample_rate().map(u64::from),
        ) != (Some(channels), row["rate"].as_u64())
    {
        return Err(format!(
            "type {ours_type}, oracle {channels} ch {} Hz",
            row["rate"]
        ));
    }
    if row["exact"].as_bool().unwrap() {
        let got = md5(&ours.as_format(row["format"].as_str().unwrap()));
        return if row["md5"].as_str() == Some(&got) || row["md5_untrimmed"].as_str() == Some(&got) {
            Ok("exact".into())
        } else {
            Err(format!("md5 differs, {} frames of {frames}", ours.frames()))
        };
    }
    let got = ours.frames();
    let count = if got == frames || got == untrimmed {
        String::new()
    } else if Some(got) == stated {
        format!(" ({frames} frames by FFmpeg, {got} by the container)")
    } else if got < frames && got + 2048 > frames {
        format!(" ({} frames shorter)", frames - got)
    } else {
        return Err(format!(
            "{got} frames, oracle {frames} ({untrimmed} untrimmed)"
        ));
    };
    let mine = ours.floats();
    let mut text = String::new();
    if let Some(reference) = row["ref16"].as_str() {
        let bytes = std::fs::read(media.join(reference)).unwrap();
        let mut source = open(registry, reference, bytes, true).unwrap();
        let theirs = decode(registry, source.as_mut(), 0).unwrap().floats();
        let (max, rms) = difference(&mine, &theirs, channels as usize);
        let limit = if subtype == Subtype::OPUS {
            (1.0, 1e-3)
        } else {
            (2.0 / 32768.0, 1e-4)
        };
        text = format!("max {:.2}/32768 rms {rms:.1e}{count}", max * 32768.0);
        if max <= limit.0 && rms <= limit.1 {
            return Ok(text);
        }
        // Noise substitution is another noise in each decoder: only its strength can be compared.
        if subtype != Subtype::AAC || !noisy {
            return Err(text);
        }
        text += ", ";
    }
    // What is missing may be missing in front.
    let worst = [0, frames.saturating_sub(got) as usize]
        .map(|missing| worst_block(row, &mine, channels as usize, missing))
        .into_iter()
        .fold(f64::INFINITY, f64::min);
    text += &format!("block rms off by {worst:.2} of what is allowed{count}");
    if worst <= 1.0 { Ok(text) } else { Err(text) }
}

/// The largest difference of the strength of a block, as a part of what is allowed.
fn worst_block(row: &Value, mine: &[f32], channels: usize, missing: usize) -> f64 {
    let block = row["block"].as_u64().unwrap() as usize;
    let got = mine.len() / channels;
    let all = row["frames"].as_u64().unwrap() as usize;
    let mut worst = 0.0_f64;
    for (at, theirs) in row["rms"].as_array().unwrap().iter().enumerate() {
        let (from, to) = (at * block, (at * block + block).min(all));
        if from < missing || to - missing > got {
            continue;
        }
        let part = &mine[(from - missing) * channels..(to - missing) * channels];
        for (channel, value) in theirs.as_array().unwrap().iter().enumerate() {
            let values = part.iter().skip(channel).step_by(channels);
            let sum: f64 = values.map(|value| f64::from(*value).powi(2)).sum();
            let rms = (sum / (to - from).max(1) as f64).sqrt();
            let theirs = value.as_f64().unwrap();
            worst = worst.max((rms - theirs).abs() / (theirs * 0.01).max(1e-4));
        }
    }
    worst
}

/// What became of one stream of a file; `Err` where it is not what the oracle says.
fn one_stream(
    registry: &Registry,
    media: &Path,
    file: &str,
    bytes: Vec<u8>,
    seekable: bool,
    nth: usize,
    oracle: &Value,
) -> Result<String, String> {
    let refused = |error: Error| format!("refused: {error}");
    let mut source = match open(registry, file, bytes, seekable) {
        Ok(source) => source,
        Err(error) => return Ok(refused(error)),
    };
    let Some(stream) = source.presentation().nth_of(MajorType::Audio, nth) else {
        return Ok("the stream is not listed".into());
    };
    let subtype = stream.media_type.subtype;
    let rate = stream.media_type.sample_rate().unwrap_or(1);
    let stated = stream
        .duration
        .map(|duration| TimeBase::per_second(rate).unwrap().to_units(duration) as u64);
    let decoded = match decode(registry, source.as_mut(), nth) {
        Ok(decoded) => decoded,
        Err(error) => return Ok(refused(error)),
    };
    let errors = decoded.errors.first().map_or(String::new(), |first| {
        format!("; {} errors, first {first}", decoded.errors.len())
    });
    let first = decoded.first.unwrap_or_default();
    let noisy = file.starts_with("third_party");
    match compare(registry, media, subtype, oracle, &decoded, stated, noisy) {
        Ok(text) => Ok(format!("{subtype} {text}; from {first}{errors}")),
        Err(text) => Err(format!("DIFFERS: {subtype} {text}; from {first}{errors}")),
    }
}

#[test]
fn manifest() {
    let Some(media) = media() else { return };
    let registry = registry();
    let text = std::fs::read_to_string(media.join("MANIFEST.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let mut failures = Vec::new();
    let only = std::env::var("ONLY").unwrap_or_default();
    for row in manifest["files"].as_array().unwrap() {
        let file = row["file"].as_str().unwrap();
        let Some(streams) = row["audio"].as_array() else {
            continue;
        };
        if !file.contains(&only) {
            continue;
        }
        for (nth, oracle) in streams.iter().enumerate() {
            for seekable in [true, false] {
                let way = if seekable { "seekable" } else { "forward" };
                let bytes = std::fs::read(media.join(file)).unwrap();
                let outcome = one_stream(&registry, &media, file, bytes, seekable, nth, oracle);
                println!(
                    "{file} a:{nth} {way} {}",
                    outcome.as_ref().unwrap_or_else(|e| e)
                );
                if let Err(text) = outcome {
                    match DIFFERS.iter().find(|(known, _)| *known == file) {
                        Some((_, why)) => println!("  known: {why}"),
                        None => failures.push(format!("{file}:{nth} {text}")),
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn packets() {
    use std::io::Read;
    let Some(media) = media() else { return };
    let registry = registry();
    let text = std::fs::read_to_string(media.join("MANIFEST.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut failures = Vec::new();
    for row in manifest["files"].as_array().unwrap() {
        let file = row["file"].as_str().unwrap();
        let extension = file.rsplit('.').next().unwrap();
        if !["wav", "flac", "mp3", "adts", "aac", "bit"].contains(&extension)
            || !file.contains(&only)
        {
            continue;
        }
        let Some(index) = row["oracle"]["packets"].as_str() else {
            continue;
        };
        let mut lines = String::new();
        flate2::read::GzDecoder::new(&std::fs::read(media.join(index)).unwrap()[..])
            .read_to_string(&mut lines)
            .unwrap();
        let theirs: Vec<Vec<&str>> = lines
            .lines()
            .map(|l| l.split(',').collect())
            .filter(|l: &Vec<&str>| l[0] == "0")
            .collect();
        let mut source = match open(
            &registry,
            file,
            std::fs::read(media.join(file)).unwrap(),
            true,
        ) {
            Ok(source) => source,
            Err(error) => {
                println!("{file}: {error}");
                continue;
            }
        };
        // Covers are streams of one packet.
        for stream in source.presentation().streams.clone().into_iter().skip(1) {
            let line = lines
                .lines()
                .find(|line| line.starts_with(&format!("{},", stream.id)));
            let fields: Vec<&str> = line.unwrap_or_default().split(',').collect();
            source.start(&[stream.id], None).unwrap();
            let (_, sample) = source.read().unwrap().unwrap();
            assert_eq!(
                fields[7],
                md5(&sample.payload.to_bytes()),
                "{file} {}",
                stream.id
            );
            assert!(!stream.selected && stream.media_type.frame_size().is_some());
        }
        let base = source.presentation().streams[0].time_base;
        let id = source.presentation().streams[0].id;
        println!(
            "{file}: {:?} {:?}",
            source.presentation().duration,
            source.presentation().streams[0].media_type
        );
        source.start(&[id], None).unwrap();
        let mut at = 0;
        let mut wrong = None;
        // FFmpeg counts from the first frame decoded, we from the first one kept.
        let lead: u64 = source.presentation().streams[0]
            .media_type
            .get(&portcullis_engine::keys::LEADING_FRAMES)
            .unwrap_or(0);
        let rate = source.presentation().streams[0]
            .media_type
            .sample_rate()
            .unwrap();
        let shift = i64::try_from(lead).unwrap() * i64::from(base.denominator() / rate);
        while let Ok(Some((_, sample))) = source.read() {
            // The units of MP3 and ADTS are shorter than a tick: what is within three of them is equal.
            let near = |ours: i64, theirs: &str| {
                theirs.parse().is_ok_and(|t: i64| {
                    (ours - t).abs() <= i64::from(base.denominator() > 10_000_000) * 3
                })
            };
            let ours = [
                sample.len().to_string(),
                sample
                    .attributes
                    .get(&portcullis_engine::sample_keys::BYTE_POSITION)
                    .unwrap()
                    .to_string(),
                md5(&sample.payload.to_bytes()),
            ];
            let want = theirs.get(at);
            let equal = want.is_some_and(|t| {
                near(base.to_units(sample.time) + shift, t[1])
                    && near(base.to_units(sample.duration), t[3])
                    && ours == [t[4], t[5], t[7]]
            });
            if wrong.is_none() && !equal {
                wrong = Some(format!(
                    "packet {at}: {} {} {ours:?}, oracle {want:?}",
                    sample.time, sample.duration
                ));
            }
            at += 1;
        }
        let known = DIFFERS.iter().any(|(known, _)| *known == file);
        if !known && (at != theirs.len() || wrong.is_some()) {
            failures.push(format!(
                "{file}: {at} packets, oracle {}; {wrong:?}",
                theirs.len()
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
