//! What the manifest makes us expect of a stream.

use std::path::Path;

use portcullis::{Error, ErrorKind, StreamSelector, TimeBase};
use serde_json::Value;

use super::sound;
use crate::support::media::{FrameHashes, framemd5};
use crate::support::outcome::Outcome;

/// FFmpeg's names of the containers that must be read.
const CONTAINERS: [&str; 7] = [
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "wav",
    "flac",
    "mp3",
    "ogg",
    "aac",
];
/// FFmpeg's names of the codecs that must be decoded.
const CODECS: [&str; 7] = ["h264", "vp9", "av1", "aac", "mp3", "flac", "vorbis"];

/// Rows where the oracle is wrong, and why we know; or where a gap of ours is known, and which. Their outcome stands in the
/// table; that they are the same in every placement is a must, and that they still differ.
const DIFFERS: [(&str, &str); 4] = [
    (
        "audio/vorbis_chained.ogg",
        "both links have 44,100 frames by their granule positions; FFmpeg drops 128 of the second",
    ),
    (
        "third_party/minimp3/M2L3_compl24.bit",
        "within 1e-3 of the vector's own PCM everywhere; FFmpeg is not",
    ),
    (
        "third_party/minimp3/l3-nonstandard-id3v2.bit",
        "there is one frame behind the tag; FFmpeg takes the file for G.729",
    ),
    (
        "audio/aac_51.m4a",
        "gap: Symphonia 0.6.1 decodes AAC of one and two channels only, and the refusal says so",
    ),
];

/// Why a row may differ from its oracle.
pub(super) fn differs(file: &str) -> Option<&'static str> {
    DIFFERS
        .iter()
        .find(|(known, _)| *known == file)
        .map(|(_, why)| *why)
}

/// What is expected of a stream.
#[derive(Debug)]
pub(super) enum Expect {
    /// Exactly these pictures.
    Pictures(FrameHashes),
    /// This sound, exactly or within the tolerance.
    Sound(Value),
    /// The same, or a refusal by name: the manifest leaves it open.
    Optional(Box<Expect>, String),
    /// No handler takes the container.
    NoContainer,
    /// No component takes the codec, which the error names.
    NoCodec(String),
    /// The same, or a stream that is not listed: a picture that belongs to the tags.
    NotListed(String),
    /// Encrypted.
    Protected,
    /// FFmpeg fails on it too: whatever comes, without a panic or an end of the host.
    Anything(&'static str),
}

pub(super) fn expectation(media: &Path, row: &Value, selector: StreamSelector) -> Expect {
    let probe = row["oracle"]["probe"].as_str().map(|path| {
        let text =
            std::fs::read(media.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        serde_json::from_slice::<Value>(&text).unwrap()
    });
    let Some(format) = probe
        .as_ref()
        .and_then(|probe| probe["format"]["format_name"].as_str())
    else {
        return Expect::Anything("FFmpeg does not open it");
    };
    if !CONTAINERS.contains(&format) {
        return Expect::NoContainer;
    }
    let (kind, nth) = match selector {
        StreamSelector::Audio(nth) => ("audio", nth),
        StreamSelector::Video(nth) => ("video", nth),
        StreamSelector::Id(_) => unreachable!("the test asks by kind"),
    };
    let of_kind = |list: &Value| {
        list.as_array()
            .into_iter()
            .flatten()
            .filter(|s| s["codec_type"] == kind)
            .nth(nth)
            .cloned()
    };
    let Some(stream) = of_kind(&row["streams"]) else {
        return Expect::Anything("FFmpeg finds no stream");
    };
    let codec = stream["codec_name"]
        .as_str()
        .unwrap_or("unknown")
        .to_owned();
    let attached = probe
        .as_ref()
        .and_then(|probe| of_kind(&probe["streams"]))
        .is_some_and(|s| s["disposition"]["attached_pic"] == 1);
    if attached {
        return Expect::NotListed(codec);
    }
    if is_protected(media, row, kind) {
        return Expect::Protected;
    }
    if !(CODECS.contains(&codec.as_str()) || codec == "opus" || codec.starts_with("pcm_")) {
        return Expect::NoCodec(codec);
    }
    let oracle = &row[kind][nth];
    if oracle["rc"] != 0 || oracle["decode_errors"] != 0 {
        return Expect::Anything("FFmpeg fails on it too");
    }
    let expect = match kind {
        "audio" => Expect::Sound(oracle.clone()),
        _ => match row["oracle"]["video_framemd5"][nth].as_str() {
            Some(path) => Expect::Pictures(framemd5(&media.join(path))),
            None => return Expect::Anything("there is no oracle"),
        },
    };
    let optional = row["tags"]
        .as_array()
        .is_some_and(|tags| tags.iter().any(|tag| tag == "optional_support"));
    match optional {
        true => Expect::Optional(Box::new(expect), codec),
        false => expect,
    }
}

/// Whether a stream is encrypted: by the manifest, or by the sample entry in the file where the manifest has no word on it.
fn is_protected(media: &Path, row: &Value, kind: &str) -> bool {
    if row["scheme"].is_string() {
        return true;
    }
    let entry: &[u8; 4] = if kind == "audio" { b"enca" } else { b"encv" };
    let file = row["file"].as_str().unwrap();
    let bytes = std::fs::read(media.join(file)).unwrap();
    bytes.windows(4).any(|window| window == entry) || file.ends_with("subsample_encrypted.webm")
}

impl Expect {
    /// What the outcome is in a few words, or what is wrong with it.
    pub(super) async fn check(
        &self,
        media: &Path,
        row: &Value,
        outcome: &Outcome,
    ) -> Result<String, String> {
        match self {
            Self::Pictures(expected) => pictures(expected, outcome),
            Self::Sound(oracle) => sound::check(media, row, oracle, outcome).await,
            Self::Optional(expect, codec) => match refusal(outcome, Some(codec), is_codec) {
                Ok(text) => Ok(text),
                Err(_) => Box::pin(expect.check(media, row, outcome)).await,
            },
            Self::NoContainer => refusal(outcome, None, |kind| {
                matches!(kind, ErrorKind::UnsupportedByteStream { .. })
            }),
            Self::NoCodec(codec) => refusal(outcome, Some(codec), is_codec),
            Self::NotListed(_) if !outcome.listed => Ok("part of the tags, not a stream".into()),
            Self::NotListed(codec) => refusal(outcome, Some(codec), is_codec),
            Self::Protected => refusal(outcome, None, |kind| {
                matches!(kind, ErrorKind::Protected { .. })
            }),
            Self::Anything(why) => Ok(anything(why, outcome)),
        }
    }
}

fn is_codec(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnsupportedCodec { .. } | ErrorKind::NoComponent(_)
    )
}

fn refusal(
    outcome: &Outcome,
    named: Option<&str>,
    right: impl Fn(&ErrorKind) -> bool,
) -> Result<String, String> {
    let got = || match outcome.errors.first() {
        Some(error) => format!("{} samples, {error}", outcome.samples.len()),
        None => format!("{} samples and no error", outcome.samples.len()),
    };
    let Some(error) = outcome.errors.first() else {
        return Err(format!("should be refused: {}", got()));
    };
    if !right(error.kind()) || !outcome.samples.is_empty() {
        return Err(format!("should be refused otherwise: {}", got()));
    }
    if let Some(name) = named.filter(|name| !error.kind().to_string().contains(*name)) {
        return Err(format!("the refusal does not name {name}: {error}"));
    }
    Ok(format!("refused: {} ({})", name_of(error), error.kind()))
}

/// The kind's name alone.
fn name_of(error: &Error) -> String {
    let text = format!("{:?}", error.kind());
    text.split([' ', '(', '{'])
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn anything(why: &str, outcome: &Outcome) -> String {
    let errors = match outcome.errors.first() {
        Some(first) => format!(
            "{} errors, first {} ({})",
            outcome.errors.len(),
            name_of(first),
            first.kind()
        ),
        None => "no error".into(),
    };
    let listed = if outcome.listed {
        ""
    } else {
        "no such stream, "
    };
    format!(
        "not judged, {why}: {listed}{} samples, {errors}",
        outcome.samples.len()
    )
}

fn pictures(expected: &FrameHashes, outcome: &Outcome) -> Result<String, String> {
    if let Some(error) = outcome.errors.first() {
        return Err(format!(
            "{} errors, first {error}; {} pictures",
            outcome.errors.len(),
            outcome.samples.len()
        ));
    }
    let base = TimeBase::new(expected.base.0, expected.base.1).ok_or("a time base of zero")?;
    let same = outcome
        .samples
        .iter()
        .zip(&expected.frames)
        .take_while(|((_, hash), frame)| *hash == frame.md5)
        .count();
    if same != expected.frames.len() || same != outcome.samples.len() {
        return Err(format!(
            "the first {same} of {} pictures are equal, {} came",
            expected.frames.len(),
            outcome.samples.len()
        ));
    }
    for (at, ((time, _), frame)) in outcome.samples.iter().zip(&expected.frames).enumerate() {
        let units = base.to_units(*time);
        if units != frame.pts {
            return Err(format!("picture {at} is at {units}, not {}", frame.pts));
        }
    }
    Ok(format!("exact: {same} pictures, hashes and times"))
}
