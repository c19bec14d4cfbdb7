//! Sound against its oracle: bit for bit, or within the tolerance that the manifest states.

use std::path::Path;

use portcullis::{ErrorKind, MediaType, SampleFormat, Subtype, TimeBase};
use serde_json::Value;

use super::reference;
use crate::support::outcome::{Outcome, hash};

/// Frames that may be missing at the end: what is left of the last block of an encoder.
const SHORTER: u64 = 2048;

pub(super) async fn check(
    media: &Path,
    row: &Value,
    oracle: &Value,
    outcome: &Outcome,
) -> Result<String, String> {
    let number = |key: &str| oracle[key].as_u64().unwrap_or(0);
    let (frames, untrimmed) = (number("frames"), number("frames_untrimmed"));
    let late = match &outcome.errors[..] {
        [] => "",
        // FFmpeg says nothing of damage as long as it has nothing to show for it.
        [only] if frames == 0 && outcome.samples.is_empty() && only.is_content() => {
            return Ok(format!("exact: no sound; {}", only.kind()));
        }
        [only] if matches!(only.kind(), ErrorKind::Truncated { .. }) => {
            ", and then that the input ends inside of a frame"
        }
        [first, ..] => {
            let count = outcome.errors.len();
            return Err(format!(
                "{count} errors, first {first}; {} frames of {frames}",
                outcome.frames()
            ));
        }
    };
    let Some(media_type) = &outcome.media_type else {
        return Err("nothing was read".into());
    };
    if frames == 0 {
        return match outcome.frames() {
            0 => Ok("exact: no sound".into()),
            got => Err(format!("{got} frames, none expected")),
        };
    }
    let format = (
        media_type.channels().map(u64::from),
        media_type.sample_rate().map(u64::from),
    );
    if format != (Some(number("channels")), Some(number("rate"))) {
        return Err(format!(
            "{media_type}, not {} channels of {} Hz",
            number("channels"),
            number("rate")
        ));
    }
    if oracle["exact"] == true {
        let got = hash(&as_format(
            outcome,
            oracle["format"].as_str().unwrap_or_default(),
        ));
        if oracle["md5"] == got.as_str() || oracle["md5_untrimmed"] == got.as_str() {
            return Ok(format!("exact: {} frames{late}", outcome.frames()));
        }
        return Err(format!(
            "another hash, {} frames of {frames}",
            outcome.frames()
        ));
    }
    let got = outcome.frames();
    let rate = media_type
        .sample_rate()
        .and_then(TimeBase::per_second)
        .ok_or("no rate")?;
    let stated = outcome
        .stated
        .map(|length| u64::try_from(rate.to_units(length)).unwrap_or(0));
    let length = if got == frames || got == untrimmed {
        format!("{got} frames")
    } else if Some(got) == stated || (got < frames && got + SHORTER > frames) {
        format!("{got} frames, FFmpeg {frames}")
    } else {
        return Err(format!(
            "{got} frames, not {frames} ({untrimmed} untrimmed)"
        ));
    };
    let floats = outcome
        .floats()
        .ok_or_else(|| format!("{media_type} is not comparable"))?;
    let channels = number("channels") as usize;
    if let Some(path) = oracle["ref16"].as_str() {
        let theirs = reference(&media.join(path))
            .await
            .map_err(|error| error.to_string())?;
        let (most, rms) = difference(&floats, &theirs, channels);
        let opus = input_subtype(row) == Subtype::OPUS;
        let (most_allowed, rms_allowed) = if opus {
            (1.0, 1e-3)
        } else {
            (2.0 / 32768.0, 1e-4)
        };
        let text = format!(
            "{length}, at most {:.2}/32768 off, RMS {rms:.1e}",
            most * 32768.0
        );
        if most <= most_allowed && rms <= rms_allowed {
            return Ok(format!("within tolerance: {text}{late}"));
        }
        // Noise substitution is another noise in each decoder: only its strength can be compared.
        let noisy = input_subtype(row) == Subtype::AAC
            && row["file"]
                .as_str()
                .is_some_and(|f| f.starts_with("third_party"));
        if !noisy {
            return Err(text);
        }
    }
    // What is missing may be missing in front.
    let missing = frames.saturating_sub(got) as usize;
    let worst = [0, missing]
        .map(|missing| worst_block(oracle, &floats, channels, missing))
        .into_iter()
        .fold(f64::INFINITY, f64::min);
    let text = format!("{length}, strength of each 0.1 s off by {worst:.2} of what is allowed");
    if worst <= 1.0 {
        Ok(format!("within tolerance: {text}{late}"))
    } else {
        Err(text)
    }
}

fn input_subtype(row: &Value) -> Subtype {
    let streams = row["streams"].as_array().into_iter().flatten();
    let name = streams
        .filter(|stream| stream["codec_type"] == "audio")
        .find_map(|stream| stream["codec_name"].as_str());
    Subtype::named(name.unwrap_or("unknown"))
}

/// The bytes in the oracle's format.
fn as_format(outcome: &Outcome, format: &str) -> Vec<u8> {
    match (
        outcome
            .media_type
            .as_ref()
            .and_then(MediaType::sample_format),
        format,
    ) {
        (Some(SampleFormat::S24), "s32le") => outcome
            .sound
            .as_chunks::<3>()
            .0
            .iter()
            .flat_map(|[low, middle, high]| [0, *low, *middle, *high])
            .collect(),
        _ => outcome.sound.clone(),
    }
}

/// Largest difference and its root mean square. Where the lengths differ, the best of aligning the starts, the ends, and
/// the starts without an AAC encoder's delay counts.
fn difference(ours: &[f32], theirs: &[f32], channels: usize) -> (f32, f64) {
    let between = |ours: &[f32], theirs: &[f32]| {
        let (mut most, mut sum) = (0_f32, 0_f64);
        for (ours, theirs) in ours.iter().zip(theirs) {
            most = most.max((ours - theirs).abs());
            sum += f64::from(ours - theirs).powi(2);
        }
        (
            most,
            (sum / ours.len().min(theirs.len()).max(1) as f64).sqrt(),
        )
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

/// The largest difference of the strength of a block, as a part of what is allowed.
fn worst_block(oracle: &Value, ours: &[f32], channels: usize, missing: usize) -> f64 {
    let block = oracle["block"].as_u64().unwrap_or(4800) as usize;
    let got = ours.len() / channels;
    let all = oracle["frames"].as_u64().unwrap_or(0) as usize;
    let mut worst = 0.0_f64;
    for (at, theirs) in oracle["rms"].as_array().into_iter().flatten().enumerate() {
        let (from, to) = (at * block, (at * block + block).min(all));
        if from < missing || to.saturating_sub(missing) > got {
            continue;
        }
        let part = &ours[(from - missing) * channels..(to - missing) * channels];
        for (channel, value) in theirs.as_array().into_iter().flatten().enumerate() {
            let sum: f64 = part
                .iter()
                .skip(channel)
                .step_by(channels)
                .map(|value| f64::from(*value).powi(2))
                .sum();
            let rms = (sum / (to - from).max(1) as f64).sqrt();
            let theirs = value.as_f64().unwrap_or(0.0);
            worst = worst.max((rms - theirs).abs() / (theirs * 0.01).max(1e-4));
        }
    }
    worst
}
