//! Tests of the decoders against ffmpeg's hashes of every picture.
//!
//! The packets come from the index that belongs to a clip (position, size, times), so that no container code takes part.

mod contract;
mod damaged;
mod files;
mod mutants;

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use md5::{Digest, Md5};
use portcullis_engine::component::OutputItem;
use portcullis_engine::{
    Component, Error, MediaTime, MediaType, Output, PixelFormat, Sample, Subtype, TimeBase,
    Transform, keys,
};

use super::{Av1, H264, Vp9};

/// One line of a framemd5 file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) pts: i64,
    pub(super) md5: String,
}

/// What ffmpeg decodes of a clip.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) base: TimeBase,
    pub(super) frames: Vec<Frame>,
}

/// A clip's packets as samples, and its input type.
pub(super) struct Clip {
    pub(super) media_type: MediaType,
    pub(super) samples: Vec<Sample>,
}

pub(super) fn media() -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/media"));
    if path.join("MANIFEST.json").is_file() {
        return Some(path.to_owned());
    }
    eprintln!("skipped: no media at {}", path.display());
    None
}

fn oracle(media: &Path, clip: &str, suffix: &str) -> PathBuf {
    let name = clip.replace('/', "__");
    media.join("oracle").join(format!("{name}.{suffix}"))
}

pub(super) fn expected(media: &Path, clip: &str) -> Expected {
    let text = fs::read_to_string(oracle(media, clip, "v0.framemd5")).expect("framemd5");
    let mut base = None;
    let mut frames = Vec::new();
    for line in text.lines() {
        if let Some(ratio) = line.strip_prefix("#tb 0: ") {
            let (numerator, denominator) = ratio.split_once('/').expect("a ratio");
            base = TimeBase::new(
                numerator.parse().expect("number"),
                denominator.parse().expect("number"),
            );
        } else if !line.starts_with('#') {
            let fields: Vec<_> = line.split(',').map(str::trim).collect();
            frames.push(Frame {
                pts: fields[2].parse().expect("pts"),
                md5: fields[5].to_owned(),
            });
        }
    }
    Expected {
        base: base.expect("a time base"),
        frames,
    }
}

fn unzip(path: &Path) -> String {
    let file = fs::File::open(path).expect("packets");
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .expect("gzip");
    text
}

pub(super) fn md5(bytes: &[u8]) -> String {
    Md5::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The packets of stream 0 of a clip whose packets lie in one piece in the file.
pub(super) fn clip(media: &Path, name: &str, subtype: Subtype) -> Clip {
    let file = Bytes::from(fs::read(media.join(name)).expect("the clip"));
    let text = unzip(&oracle(media, name, "packets.csv.gz"));
    let base = expected_base(media, name);
    let mut samples = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let fields: Vec<_> = line.split(',').collect();
        if fields[0] != "0" {
            continue;
        }
        let size: usize = fields[4].parse().expect("size");
        let Ok(at) = fields[5].parse::<usize>() else {
            continue;
        };
        // Positions in Matroska and IVF are those of the block's head.
        let payload = (0..32)
            .map(|skip| file.slice((at + skip).min(file.len())..(at + skip + size).min(file.len())))
            .find(|bytes| md5(bytes) == fields[7])
            .unwrap_or_else(|| panic!("{name}: packet {index} is not at {at}"));
        let pts: i64 = fields[1].parse().unwrap_or(samples.len() as i64);
        let mut sample = Sample::new(
            base.to_time(pts),
            base.to_time(fields[3].parse().unwrap_or(0)),
            payload,
        );
        sample.flags.key = fields[6].starts_with('K');
        samples.push(sample);
    }
    let mut media_type = MediaType::video(subtype, 320, 180).with(&keys::FRAME_RATE, (30, 1));
    let boxes = match subtype {
        Subtype::H264 => b"avcC",
        Subtype::AV1 => b"av1C",
        _ => b"vpcC",
    };
    if let Some(private) = box_payload(&file, boxes) {
        media_type = media_type.with(&keys::PRIVATE_DATA, private);
    }
    Clip {
        media_type,
        samples,
    }
}

fn expected_base(media: &Path, name: &str) -> TimeBase {
    let text = fs::read_to_string(oracle(media, name, "probe.json")).expect("probe");
    let at = text.find("\"time_base\": \"").expect("time base") + 14;
    let ratio = &text[at..at + text[at..].find('"').expect("end")];
    let (numerator, denominator) = ratio.split_once('/').expect("ratio");
    TimeBase::new(
        numerator.parse().expect("number"),
        denominator.parse().expect("number"),
    )
    .expect("not zero")
}

fn box_payload(file: &Bytes, name: &[u8; 4]) -> Option<Bytes> {
    let at = file.windows(4).position(|window| window == name)?;
    let size = u32::from_be_bytes(file.get(at.checked_sub(4)?..at)?.try_into().ok()?) as usize;
    // A full box of VP9 has version and flags first.
    let skip = if name == b"vpcC" { 8 } else { 4 };
    (at + size - 4 <= file.len() && size > skip + 4).then(|| file.slice(at + skip..at + size - 4))
}

/// The access units of an Annex B stream: each ends before the next delimiter, parameter set or first slice.
pub(super) fn annex_b(media: &Path, name: &str) -> Clip {
    let file = fs::read(media.join(name)).expect("the clip");
    let mut starts = Vec::new();
    let mut at = 0;
    while at + 3 < file.len() {
        if file[at..at + 3] == [0, 0, 1] {
            let kind = file[at + 3] & 0x1f;
            let first = matches!(kind, 1 | 5) && file.get(at + 4).is_some_and(|b| b & 0x80 != 0);
            starts.push((at, kind, first));
            at += 3;
        } else {
            at += 1;
        }
    }
    let mut units = Vec::new();
    let (mut from, mut pictures) = (0, 0);
    for (at, kind, first) in starts {
        let begins = matches!(kind, 6..=9) || first;
        if begins && pictures > 0 {
            units.push(Bytes::copy_from_slice(&file[from..at]));
            (from, pictures) = (at, 0);
        }
        pictures += usize::from(matches!(kind, 1 | 5));
    }
    units.push(Bytes::copy_from_slice(&file[from..]));
    let samples = units
        .into_iter()
        .enumerate()
        .map(|(index, unit)| {
            Sample::new(
                MediaTime::from_millis(40 * index as i64),
                MediaTime::from_millis(40),
                unit,
            )
        })
        .collect();
    Clip {
        media_type: MediaType::video(Subtype::H264, 176, 144),
        samples,
    }
}

pub(super) fn decoder(subtype: Subtype) -> Box<dyn Transform> {
    match subtype {
        Subtype::H264 => Box::new(H264::new(Default::default()).expect("new")),
        Subtype::VP9 => Box::new(Vp9::new(Default::default()).expect("new")),
        _ => Box::new(Av1::new(Default::default()).expect("new")),
    }
}

/// What came out of a decoder.
#[derive(Default)]
pub(super) struct Decoded {
    pub(super) samples: Vec<(MediaTime, String)>,
    pub(super) formats: Vec<MediaType>,
    pub(super) errors: Vec<Error>,
    pub(super) ended: bool,
}

pub(super) fn decode(clip: &Clip) -> Decoded {
    let mut decoded = Decoded::default();
    let mut decoder = decoder(clip.media_type.subtype);
    let types = match decoder.set_input(&clip.media_type) {
        Ok(types) => types,
        Err(error) => {
            decoded.errors.push(error);
            return decoded;
        }
    };
    decoder.set_output(&types[0]).expect("its own type");
    let mut current = types[0].clone();
    let mut output = Output::default();
    for index in 0..=clip.samples.len() {
        let result = match clip.samples.get(index) {
            Some(sample) => decoder.process(sample.clone(), &mut output),
            None => decoder.drain(&mut output),
        };
        decoded.errors.extend(result.err());
        while let Some(item) = output.take() {
            match item {
                OutputItem::Format(media_type) => {
                    current = media_type.clone();
                    decoded.formats.push(media_type);
                }
                OutputItem::Sample(sample) => {
                    let (width, height) = current.frame_size().expect("a size");
                    let format: PixelFormat = current.pixel_format().expect("a layout");
                    assert_eq!(Some(sample.len()), format.picture_bytes(width, height));
                    decoded
                        .samples
                        .push((sample.time, md5(&sample.payload.to_bytes())));
                }
                _ => {}
            }
        }
    }
    decoded
}

/// Compares every picture; `times` where the clip has its own.
fn compare(name: &str, decoded: &Decoded, expected: &Expected, times: bool) -> Result<(), String> {
    if let Some(error) = decoded.errors.first() {
        return Err(format!(
            "{name}: {} errors, first {error}",
            decoded.errors.len()
        ));
    }
    let same = decoded
        .samples
        .iter()
        .zip(&expected.frames)
        .filter(|((_, md5), frame)| *md5 == frame.md5)
        .count();
    if same != expected.frames.len() || decoded.samples.len() != same {
        return Err(format!(
            "{name}: {same} of {} pictures are equal, {} came",
            expected.frames.len(),
            decoded.samples.len()
        ));
    }
    if times {
        for ((time, _), frame) in decoded.samples.iter().zip(&expected.frames) {
            let units = expected.base.to_units(*time);
            if units != frame.pts {
                return Err(format!(
                    "{name}: a picture at {units}, expected {}",
                    frame.pts
                ));
            }
        }
    }
    Ok(())
}

fn check_all(failures: Vec<String>) {
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn pictures_of_indexed_clips_are_bit_exact() {
    let Some(media) = media() else { return };
    let clips = [
        ("mp4/h264main_aac_prog_faststart.mp4", Subtype::H264),
        ("mp4/h264main_aac_moov_last.mp4", Subtype::H264),
        ("mp4/h264cbp_noaudio.mp4", Subtype::H264),
        ("mp4/h264high_cabac_bpyr_8x8_slices.mp4", Subtype::H264),
        ("mp4/h264high_cavlc_lossyscaling.mp4", Subtype::H264),
        ("mp4/h264_hd.mp4", Subtype::H264),
        ("mp4/h264_aac_cmaf_negcts.mp4", Subtype::H264),
        ("mp4/vfr.mp4", Subtype::H264),
        ("mp4/video_faster_timescale_1e7.mp4", Subtype::H264),
        ("third_party/exo/sample.mp4", Subtype::H264),
        ("third_party/exo/testvid_1022ms.mp4", Subtype::H264),
        ("third_party/mp4ff/testdata_cbcsdec.mp4", Subtype::H264),
        ("mp4/av1_opus.mp4", Subtype::AV1),
        ("mp4/av1_10bit.mp4", Subtype::AV1),
        ("mkv/av1_svt_720_filmgrain.mkv", Subtype::AV1),
        ("third_party/exo/sample_av1.mp4", Subtype::AV1),
        ("mp4/vp9.mp4", Subtype::VP9),
        ("mkv/vp9_profile2_10bit.webm", Subtype::VP9),
        ("raw/vp9.ivf", Subtype::VP9),
        ("raw/av1.ivf", Subtype::AV1),
        ("third_party/exo/bear-vp9.webm", Subtype::VP9),
        ("third_party/mp4ff/testdata_vp9.ivf", Subtype::VP9),
    ];
    let mut failures = Vec::new();
    for (name, subtype) in clips {
        let decoded = decode(&clip(&media, name, subtype));
        failures.extend(compare(name, &decoded, &expected(&media, name), true).err());
    }
    check_all(failures);
}

#[test]
fn pictures_of_annex_b_streams_are_bit_exact() {
    let Some(media) = media() else { return };
    let clips = [
        "raw/h264_annexb.h264",
        "third_party/jvt_h264/BA_MW_D.264",
        "third_party/jvt_h264/CI_MW_D.264",
        "third_party/jvt_h264/MIDR_MW_D.264",
        "third_party/jvt_h264/NL1_Sony_D.jsv",
        "third_party/jvt_h264/SVA_BA1_B.264",
        "third_party/jvt_h264/SVA_CL1_E.264",
        "third_party/jvt_h264/MR1_MW_A.264",
        "third_party/jvt_h264/test_qcif_cabac.264",
        "third_party/jvt_h264/SVA_FM1_E.264",
        "third_party/jvt_h264/test_scalinglist_jm.264",
        "third_party/jvt_h264/Cisco_Men_whisper_640x320_CABAC_Bframe_9.264",
    ];
    let mut failures = Vec::new();
    for name in clips {
        let decoded = decode(&annex_b(&media, name));
        failures.extend(compare(name, &decoded, &expected(&media, name), false).err());
    }
    check_all(failures);
}

#[test]
fn what_comes_before_the_first_start_is_reported_sample_by_sample() {
    let Some(media) = media() else { return };
    let name = "third_party/jvt_h264/BA_MW_D_IDR_LOST.264";
    let mut decoded = decode(&annex_b(&media, name));
    assert_eq!(decoded.errors.len(), 27, "pictures without their IDR");
    decoded.errors.clear();
    compare(name, &decoded, &expected(&media, name), false).expect("the rest is whole");
}

#[test]
fn the_known_flaw_of_the_h264_library_is_still_there() {
    let Some(media) = media() else { return };
    // Pictures of nothing but uncompressed macroblocks come out wrong, without an error.
    let name = "third_party/jvt_h264/QCIF_2P_I_allIPCM.264";
    let decoded = decode(&annex_b(&media, name));
    assert_eq!((decoded.samples.len(), decoded.errors.len()), (2, 0));
    assert!(
        compare(name, &decoded, &expected(&media, name), false).is_err(),
        "it decodes now: move it to the list of exact streams and take the remark out of `H264`"
    );
}
