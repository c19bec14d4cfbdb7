//! Packet for packet against what ffprobe says of every MP4 and QuickTime file of the test media.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use md5::{Digest, Md5};
use portcullis_engine::{MajorType, Sample, StreamDescriptor, sample_keys};
use serde_json::Value;

use super::{is_ours, media, open, read_all};

/// One packet as ffprobe prints it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Packet {
    pub(super) pts: Option<i64>,
    pub(super) dts: Option<i64>,
    pub(super) duration: Option<i64>,
    pub(super) size: u64,
    pub(super) position: Option<u64>,
    pub(super) key: bool,
    pub(super) discard: bool,
    pub(super) md5: String,
}

/// The packets of each stream in an oracle.
pub(super) fn packets(path: &Path) -> BTreeMap<u32, Vec<Packet>> {
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    let mut streams: BTreeMap<u32, Vec<Packet>> = BTreeMap::new();
    for line in text.lines() {
        let field: Vec<&str> = line.split(',').collect();
        let packet = Packet {
            pts: field[1].parse().ok(),
            dts: field[2].parse().ok(),
            duration: field[3].parse().ok(),
            size: field[4].parse().unwrap(),
            position: field[5].parse().ok(),
            key: field[6].contains('K'),
            discard: field[6].contains('D'),
            md5: field[7].to_owned(),
        };
        streams
            .entry(field[0].parse().unwrap())
            .or_default()
            .push(packet);
    }
    streams
}

pub(super) fn packet(sample: &Sample, stream: &StreamDescriptor) -> Packet {
    let units = |time| stream.time_base.to_units(time);
    let payload = sample.payload.to_bytes();
    let duration = units(sample.duration);
    let trimmed = sample.attributes.get(&sample_keys::TRIM_START).unwrap_or(0);
    let rate = stream.media_type.sample_rate().unwrap_or(1);
    let frames = sample.duration.as_secs_f64() * f64::from(rate);
    Packet {
        pts: Some(units(sample.time)),
        dts: Some(units(sample.decode_time.unwrap_or(sample.time))),
        duration: Some(duration),
        size: payload.len() as u64,
        position: sample.attributes.get(&sample_keys::BYTE_POSITION),
        key: sample.flags.key,
        discard: sample.flags.preroll || (trimmed > 0 && trimmed as f64 >= frames.round()),
        md5: Md5::digest(&payload)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect(),
    }
}

/// What differs between two packet lists, each kind once with an example.
pub(super) fn differences(expected: &[Packet], found: &[Packet]) -> Vec<String> {
    let mut kinds = BTreeMap::new();
    if expected.len() != found.len() {
        kinds.insert("count", format!("{} not {}", found.len(), expected.len()));
    }
    for (index, (e, f)) in expected.iter().zip(found).enumerate() {
        let mut differ = |kind, same: bool, text: String| {
            if !same {
                kinds.entry(kind).or_insert(format!("[{index}] {text}"));
            }
        };
        let told = |e: Option<i64>, f: Option<i64>| e.is_none() || e == f;
        differ(
            "pts",
            told(e.pts, f.pts),
            format!("{:?} not {:?}", f.pts, e.pts),
        );
        differ(
            "dts",
            told(e.dts, f.dts),
            format!("{:?} not {:?}", f.dts, e.dts),
        );
        differ(
            "duration",
            told(e.duration, f.duration),
            format!("{:?} not {:?}", f.duration, e.duration),
        );
        differ(
            "size",
            e.size == f.size,
            format!("{} not {}", f.size, e.size),
        );
        differ(
            "position",
            e.position.is_none() || e.position == f.position,
            format!("{:?} not {:?}", f.position, e.position),
        );
        differ("key", e.key == f.key, format!("{} not {}", f.key, e.key));
        differ(
            "discard",
            e.discard == f.discard,
            format!("{} not {}", f.discard, e.discard),
        );
        differ("md5", e.md5 == f.md5, String::new());
    }
    kinds
        .into_iter()
        .map(|(kind, text)| format!("{kind} {text}"))
        .collect()
}

/// (file, what differs, why).
const EXPLAINED: [(&str, &str, &str); 10] = [
    ("mp4/vp9.mp4", "v duration", DURATION),
    ("cenc/shaka_vp9_cenc_video.mp4", "v duration", DURATION),
    ("cenc/shaka_cenc_audio.mp4", "a discard", TRIMMED),
    ("cenc/shaka_cbcs_audio.mp4", "a discard", TRIMMED),
    ("cenc/shaka_cens_audio.mp4", "a discard", TRIMMED),
    ("cenc/shaka_cbc1_audio.mp4", "a discard", TRIMMED),
    ("cenc/shaka_cenc_clearlead_audio.mp4", "a discard", TRIMMED),
    ("third_party/mp4parse/test_case_1185230.mp4", "", CUT),
    ("third_party/mp4ff/testdata_cbcs.mp4", "1v ", CAPTIONS),
    ("third_party/mp4ff/testdata_cbcsdec.mp4", "1v ", CAPTIONS),
];
const DURATION: &str =
    "ffprobe guesses the last packet's length from the frame rate, the file says it";
const TRIMMED: &str = "ffmpeg trims the edit list's priming in the decoder only, without the mark";
const CUT: &str = "the file is cut off";
const CAPTIONS: &str = "ffmpeg takes the caption bytes out of their box";

#[test]
fn every_clip_gives_the_packets_of_the_oracle() {
    let Some(root) = media() else { return };
    let manifest = std::fs::read(root.join("MANIFEST.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let (mut same, mut all) = (0, 0);
    let mut unlike = Vec::new();
    for row in manifest["files"].as_array().unwrap() {
        let file = row["file"].as_str().unwrap();
        let Some(packets) = row["oracle"]["packets"].as_str().filter(|_| is_ours(file)) else {
            continue;
        };
        all += 1;
        let bytes = std::fs::read(root.join(file)).unwrap();
        let mut source = match open(bytes, true) {
            Ok(source) => source,
            Err(error) => {
                unlike.push(format!("{file}: {error}"));
                continue;
            }
        };
        let (samples, errors) = read_all(source.as_mut(), None);
        let mut found: BTreeMap<u32, Vec<Packet>> = BTreeMap::new();
        for (id, sample) in &samples {
            let stream = source.presentation().stream(*id).unwrap();
            found.entry(id.0).or_default().push(packet(sample, stream));
        }
        let expected = self::packets(&root.join(packets));
        let mut lines: Vec<String> = errors
            .iter()
            .map(|error| format!("error {error}"))
            .collect();
        let streams = row["streams"].as_array().unwrap().len();
        if streams > 0 && streams != source.presentation().streams.len() {
            lines.push(format!(
                "{} streams not {streams}",
                source.presentation().streams.len()
            ));
        }
        for index in 0..source.presentation().streams.len() as u32 {
            let empty = Vec::new();
            let expected = expected.get(&index).unwrap_or(&empty);
            let found = found.get(&index).unwrap_or(&empty);
            let kind = source.presentation().streams[index as usize].major();
            let kind = if kind == MajorType::Audio { "a" } else { "v" };
            lines.extend(
                differences(expected, found)
                    .into_iter()
                    .map(|line| format!("{index}{kind} {line}")),
            );
        }
        lines.retain(|line| {
            !EXPLAINED
                .iter()
                .any(|(name, kind, _)| *name == file && line.contains(kind))
        });
        if lines.is_empty() {
            same += 1;
        } else {
            unlike.push(format!("{file}:\n    {}", lines.join("\n    ")));
        }
    }
    println!("{same} of {all} files give the packets of the oracle, but for what is explained");
    assert!(unlike.is_empty(), "{}", unlike.join("\n"));
}
