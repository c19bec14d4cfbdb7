//! A presentation for people.

use portcullis_engine::media::Attributes;
use portcullis_engine::presentation::stream_keys;
use portcullis_engine::{PresentationDescriptor, StreamDescriptor, Value, keys};

use super::{File, form};
use crate::cli::failure::one_line;

/// Some lines of text without a last line break.
pub(super) fn text(file: &File, presentation: &PresentationDescriptor) -> String {
    let mut lines = vec![file.name.clone()];
    let mut facts = vec![presentation.format.clone()];
    if let Some(duration) = presentation.duration {
        facts.push(format!("{} s", form::seconds(duration)));
    }
    if let Some(size) = file.size {
        facts.push(format!("{size} bytes"));
        let rate = presentation
            .duration
            .and_then(|duration| form::bit_rate(size, duration));
        facts.extend(rate.map(|rate| format!("{} kbit/s", rate / 1000)));
    }
    if !presentation.characteristics.can_seek {
        facts.push("not seekable".into());
    }
    lines.push(format!("  {}", facts.join(", ")));
    lines.extend(tags(&presentation.attributes).map(|tag| format!("    {tag}")));
    for stream in &presentation.streams {
        lines.push(format!(
            "  stream {}: {}",
            stream.id,
            facts_of(stream).join(", ")
        ));
        lines.extend(tags(&stream.attributes).map(|tag| format!("    {tag}")));
    }
    let lines: Vec<_> = lines.iter().map(|line| one_line(line)).collect();
    lines.join("\n")
}

fn facts_of(stream: &StreamDescriptor) -> Vec<String> {
    let media_type = &stream.media_type;
    let mut facts = vec![format!("{} {}", stream.major(), media_type.subtype)];
    if let Some(profile) = media_type.get(&keys::PROFILE)
        && let Some(fact) = facts.last_mut()
    {
        fact.push_str(&format!(" ({profile})"));
    }
    facts.extend(
        media_type
            .frame_size()
            .map(|(width, height)| format!("{width}x{height}")),
    );
    let format = media_type.pixel_format().map(|format| format.to_string());
    facts.extend(format.or_else(|| stream.attributes.get(&stream_keys::PIX_FMT)));
    let rate = media_type
        .get(&keys::FRAME_RATE)
        .filter(|(_, per)| *per > 0);
    facts.extend(rate.map(|(count, per)| {
        format!("{:.5} fps", f64::from(count) / f64::from(per)).replace(".00000", "")
    }));
    facts.extend(media_type.sample_rate().map(|rate| format!("{rate} Hz")));
    facts.extend(media_type.channels().map(|channels| match channels {
        1 => "mono".to_owned(),
        2 => "stereo".to_owned(),
        many => format!("{many} channels"),
    }));
    let bits = media_type.get(&keys::BIT_RATE).filter(|rate| *rate > 0);
    facts.extend(bits.map(|rate| format!("{} kbit/s", rate / 1000)));
    facts.extend(
        stream
            .duration
            .map(|duration| format!("{} s", form::seconds(duration))),
    );
    facts.extend(stream.language.clone().filter(|language| language != "und"));
    if media_type.is_protected() {
        facts.push("protected".into());
    }
    facts
}

fn tags(attributes: &Attributes) -> impl Iterator<Item = String> {
    attributes.iter().filter_map(|(name, value)| match value {
        Value::Text(text) if name != stream_keys::PIX_FMT.name() => Some(format!("{name}: {text}")),
        _ => None,
    })
}
