//! A presentation as ffprobe writes it: `-show_format -show_streams -of json`.
//!
//! Numbers that ffprobe writes as text are text here too. What is not known has no key, but for rates, which ffprobe writes
//! as `0/0`.

use portcullis_engine::media::Attributes;
use portcullis_engine::presentation::stream_keys;
use portcullis_engine::{
    Key, MajorType, MediaTime, MediaType, PresentationDescriptor, StreamDescriptor, Subtype,
    TimeBase, Value, keys,
};
use serde_json::{Map, json};

use super::File;

type Json = serde_json::Value;

/// Attributes that have a key of their own and are not tags.
const NOT_TAGS: &[&str] = &[
    "attached_picture",
    "damage",
    "pix_fmt",
    "default",
    "forced",
    "track_id",
    "track_number",
    "protection_scheme",
    "default_kid",
    "language",
];

/// What ffprobe writes for a codec that has no level.
const NO_LEVEL: i32 = -99;

/// The whole document.
pub(super) fn document(file: &File, presentation: &PresentationDescriptor) -> Json {
    let streams: Vec<_> = presentation.streams.iter().map(stream).collect();
    json!({ "streams": streams, "format": format(file, presentation) })
}

fn format(file: &File, presentation: &PresentationDescriptor) -> Json {
    let mut object = Object::default();
    object.put("filename", json!(file.name));
    object.put("nb_streams", json!(presentation.streams.len()));
    object.put("format_name", json!(presentation.format));
    let starts = presentation.streams.iter().filter_map(|s| s.start_time);
    object.put_some("start_time", starts.min().map(seconds));
    object.put_some("duration", presentation.duration.map(seconds));
    object.put_some("size", file.size.map(|size| size.to_string()));
    let rate = file
        .size
        .zip(presentation.duration)
        .and_then(|(size, duration)| bit_rate(size, duration));
    object.put_some("bit_rate", rate.map(|rate| rate.to_string()));
    object.put_tags(&presentation.attributes, None);
    Json::Object(object.0)
}

fn stream(stream: &StreamDescriptor) -> Json {
    let media_type = &stream.media_type;
    let mut object = Object::default();
    object.put("index", json!(stream.id.0));
    object.put("codec_name", json!(media_type.subtype.name()));
    object.put_some("profile", media_type.get(&keys::PROFILE));
    object.put("codec_type", json!(stream.major().to_string()));
    let tag = codec_tag(media_type);
    object.put("codec_tag_string", json!(tag_text(tag)));
    object.put(
        "codec_tag",
        json!(format!("0x{:04x}", u32::from_le_bytes(tag))),
    );
    match stream.major() {
        MajorType::Video => picture(&mut object, stream),
        MajorType::Audio => sound(&mut object, media_type),
        _ => {}
    }
    object.put_some("id", id(stream));
    let rate = media_type.get(&keys::FRAME_RATE).unwrap_or((0, 0));
    let base = stream.attributes.get(&stream_keys::BASE_FRAME_RATE);
    let base = base.unwrap_or(rate);
    object.put("r_frame_rate", json!(format!("{}/{}", base.0, base.1)));
    object.put("avg_frame_rate", json!(format!("{}/{}", rate.0, rate.1)));
    object.put("time_base", json!(stream.time_base.to_string()));
    let start = stream.start_time;
    let units = start.map(|start| stream.time_base.to_units(start));
    object.put_some("start_pts", units);
    object.put_some("start_time", start.map(seconds));
    object.put_some(
        "duration_ts",
        stream
            .duration
            .map(|duration| stream.time_base.to_units(duration)),
    );
    object.put_some("duration", stream.duration.map(seconds));
    object.put_some(
        "bit_rate",
        media_type
            .get(&keys::BIT_RATE)
            .filter(|rate| *rate > 0)
            .map(|rate| rate.to_string()),
    );
    let private = media_type.private_data().map(|data| data.len());
    object.put_some("extradata_size", private.filter(|len| *len > 0));
    object.put_some(
        "nb_frames",
        stream.sample_count.map(|count| count.to_string()),
    );
    object.put_some("disposition", disposition(&stream.attributes));
    object.put_some(
        "protection_scheme",
        text(&stream.attributes, "protection_scheme"),
    );
    object.put_some("damage", stream.attributes.get(&stream_keys::DAMAGE));
    object.put_tags(&stream.attributes, stream.language.as_deref());
    Json::Object(object.0)
}

fn picture(object: &mut Object, stream: &StreamDescriptor) {
    let (media_type, coded) = (&stream.media_type, &stream.attributes);
    if let Some((width, height)) = media_type.frame_size() {
        object.put("width", json!(width));
        object.put("height", json!(height));
        object.put("coded_width", json!(width));
        object.put("coded_height", json!(height));
        if let Some((x, y)) = media_type
            .get(&keys::PIXEL_ASPECT)
            .or_else(|| coded.get(&stream_keys::CODED_PIXEL_ASPECT))
            .filter(|(x, y)| *x > 0 && *y > 0)
        {
            object.put("sample_aspect_ratio", json!(format!("{x}:{y}")));
            let (x, y) = reduced(
                u64::from(width) * u64::from(x),
                u64::from(height) * u64::from(y),
            );
            object.put("display_aspect_ratio", json!(format!("{x}:{y}")));
        }
    }
    object.put_some(
        "pix_fmt",
        match media_type.pixel_format() {
            Some(format) => Some(format.name().to_owned()),
            None => coded.get(&stream_keys::PIX_FMT),
        },
    );
    let level = coded.get(&stream_keys::LEVEL);
    object.put("level", level.map_or(json!(NO_LEVEL), Json::from));
    object.put_some("has_b_frames", coded.get(&stream_keys::HAS_B_FRAMES));
    let full = media_type
        .get(&keys::FULL_RANGE)
        .or_else(|| coded.get(&stream_keys::CODED_FULL_RANGE));
    object.put_some(
        "color_range",
        full.map(|full| if full { "pc" } else { "tv" }),
    );
    // The decoder configuration record of MP4 and Matroska, not start codes.
    let record = media_type.private_data();
    let record = record.filter(|record| record.first() == Some(&1));
    if let (Subtype::H264, Some(head)) =
        (media_type.subtype, record.as_ref().and_then(|r| r.get(4)))
    {
        object.put("is_avc", json!("true"));
        object.put("nal_length_size", json!(((head & 3) + 1).to_string()));
    }
    if let Some(bits) = coded.get(&stream_keys::CODED_BITS) {
        object.put("bits_per_raw_sample", json!(bits.to_string()));
    }
    if let Some(rotation) = media_type
        .get(&keys::ROTATION)
        .filter(|rotation| *rotation != 0)
    {
        // FFmpeg's display matrix turns the other way round.
        let turned = if rotation <= 180 {
            -i64::from(rotation)
        } else {
            360 - i64::from(rotation)
        };
        object.put(
            "side_data_list",
            json!([{ "side_data_type": "Display Matrix", "rotation": turned }]),
        );
    }
}

fn sound(object: &mut Object, media_type: &MediaType) {
    object.put_some(
        "sample_rate",
        media_type.sample_rate().map(|rate| rate.to_string()),
    );
    object.put_some("channels", media_type.channels());
    object.put_some("sample_fmt", sample_format(media_type));
    // Where PCM does not say how its channels lie, ffprobe does not either.
    let layout = match media_type.channels() {
        _ if media_type.subtype.name().starts_with("pcm_") => None,
        Some(1) => Some("mono"),
        Some(2) => Some("stereo"),
        Some(channels) => many(media_type.subtype, channels),
        _ => None,
    };
    object.put_some("channel_layout", layout);
    let raw = pcm_bits(media_type);
    object.put("bits_per_sample", json!(raw.unwrap_or(0)));
    if raw.is_none() {
        object.put_some(
            "bits_per_raw_sample",
            media_type.get(&keys::BITS).map(|bits| bits.to_string()),
        );
    }
}

/// How the channels lie that these codecs order by their number.
fn many(subtype: Subtype, channels: u32) -> Option<&'static str> {
    match (subtype, channels) {
        (Subtype::AAC | Subtype::VORBIS | Subtype::OPUS | Subtype::FLAC | Subtype::ALAC, 3) => {
            Some("3.0")
        }
        (Subtype::AAC | Subtype::ALAC, 4) => Some("4.0"),
        (Subtype::VORBIS | Subtype::OPUS | Subtype::FLAC, 4) => Some("quad"),
        (Subtype::AAC | Subtype::ALAC | Subtype::VORBIS | Subtype::OPUS, 5) => Some("5.0"),
        (Subtype::AAC | Subtype::ALAC | Subtype::VORBIS | Subtype::OPUS, 6) => Some("5.1"),
        (Subtype::VORBIS | Subtype::OPUS | Subtype::FLAC, 7) => Some("6.1"),
        (Subtype::AAC | Subtype::VORBIS | Subtype::OPUS | Subtype::FLAC, 8) => Some("7.1"),
        _ => None,
    }
}

/// What FFmpeg's decoder of the stream puts out.
fn sample_format(media_type: &MediaType) -> Option<&'static str> {
    let wide = media_type.get(&keys::BITS).is_some_and(|bits| bits > 16);
    Some(match media_type.subtype {
        Subtype::AAC | Subtype::MP3 | Subtype::OPUS | Subtype::VORBIS => "fltp",
        Subtype::AC3 | Subtype::EAC3 => "fltp",
        Subtype::FLAC if wide => "s32",
        Subtype::FLAC => "s16",
        Subtype::ALAC if wide => "s32p",
        Subtype::ALAC => "s16p",
        other => match other.name().strip_prefix("pcm_")? {
            "alaw" | "mulaw" => "s16",
            name if name.starts_with("f32") => "flt",
            name if name.starts_with("f64") => "dbl",
            _ => match pcm_bits(media_type)? {
                8 => "u8",
                16 => "s16",
                _ => "s32",
            },
        },
    })
}

/// Bits of one value of PCM, which its name says.
fn pcm_bits(media_type: &MediaType) -> Option<u32> {
    match media_type.subtype.name().strip_prefix("pcm_")? {
        "alaw" | "mulaw" => Some(8),
        name => {
            let digits: String = name.chars().filter(char::is_ascii_digit).collect();
            digits.parse().ok()
        }
    }
}

/// The flags that the container has told.
fn disposition(attributes: &Attributes) -> Option<Json> {
    let flags = ["default", "forced"]
        .into_iter()
        .filter_map(|name| match attributes.named(name) {
            Some(Value::Unsigned(set)) => Some((name.to_owned(), json!(i32::from(*set > 0)))),
            _ => None,
        });
    let mut flags: Map<_, _> = flags.collect();
    if let Some(attached) = attributes.get(&stream_keys::ATTACHED_PICTURE) {
        flags.insert("attached_pic".into(), json!(i32::from(attached)));
    }
    (!flags.is_empty()).then_some(Json::Object(flags))
}

/// The container's own number of the stream, in hexadecimal.
fn id(stream: &StreamDescriptor) -> Option<String> {
    stream
        .attributes
        .get(&Key::<u64>::new("track_id"))
        .map(|id| format!("0x{id:x}"))
}

/// The four bytes of a tag; zeros where the container names its codecs in another way.
fn codec_tag(media_type: &MediaType) -> [u8; 4] {
    let tag = media_type.get(&keys::CODEC_TAG).unwrap_or_default();
    if let Some(number) = tag.strip_prefix("0x") {
        return u32::from_str_radix(number, 16).unwrap_or(0).to_le_bytes();
    }
    tag.as_bytes().try_into().unwrap_or_default()
}

fn tag_text(tag: [u8; 4]) -> String {
    let mut text = String::new();
    for byte in tag {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.' | b' ' | b'-' | b'_' => {
                text.push(char::from(byte))
            }
            byte => text.push_str(&format!("[{byte}]")),
        }
    }
    text
}

fn text(attributes: &Attributes, name: &str) -> Option<String> {
    match attributes.named(name) {
        Some(Value::Text(text)) => Some(text.to_string()),
        _ => None,
    }
}

/// Seconds with six places.
pub(super) fn seconds(time: MediaTime) -> String {
    let micros = TimeBase::per_second(1_000_000).map_or(0, |base| base.to_units(time));
    let sign = if micros < 0 { "-" } else { "" };
    let micros = micros.unsigned_abs();
    format!("{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// Bits per second of a file of this size and length.
pub(super) fn bit_rate(size: u64, duration: MediaTime) -> Option<u64> {
    let ticks = u128::try_from(duration.ticks())
        .ok()
        .filter(|ticks| *ticks > 0)?;
    u64::try_from(u128::from(size) * 8 * 10_000_000 / ticks).ok()
}

fn reduced(x: u64, y: u64) -> (u64, u64) {
    let (mut a, mut b) = (x, y);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    let by = a.max(1);
    (x / by, y / by)
}

/// A JSON object that leaves out what is not known.
#[derive(Default)]
struct Object(Map<String, Json>);

impl Object {
    fn put(&mut self, key: &str, value: Json) {
        self.0.insert(key.to_owned(), value);
    }

    fn put_some<T: Into<Json>>(&mut self, key: &str, value: Option<T>) {
        if let Some(value) = value {
            self.put(key, value.into());
        }
    }

    /// The texts among attributes, and the language, as `tags`.
    fn put_tags(&mut self, attributes: &Attributes, language: Option<&str>) {
        let mut tags = Map::new();
        if let Some(language) = language {
            tags.insert("language".into(), json!(language));
        }
        for (name, value) in attributes.iter() {
            if let Value::Text(text) = value
                && !NOT_TAGS.contains(&name)
            {
                tags.insert(name.to_owned(), json!(text));
            }
        }
        if !tags.is_empty() {
            self.put("tags", Json::Object(tags));
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_engine::StreamId;

    use super::*;

    #[test]
    fn values_have_ffprobes_forms() {
        let media_type = MediaType::video(Subtype::H264, 320, 180)
            .with(&keys::CODEC_TAG, "avc1".to_owned())
            .with(&keys::PIXEL_ASPECT, (423, 320))
            .with(&keys::PRIVATE_DATA, vec![1, 66, 0, 30, 0xff].into())
            .with(&keys::FRAME_RATE, (30, 1));
        let base = TimeBase::per_second(15_360).expect("not zero");
        let mut video = StreamDescriptor::new(StreamId(0), media_type, base);
        video.duration = Some(MediaTime::from_secs(3));
        video.start_time = Some(MediaTime::from_secs(1));
        video
            .attributes
            .set(&stream_keys::PIX_FMT, "yuv420p".into());
        video.attributes.set(&stream_keys::BASE_FRAME_RATE, (60, 1));
        video.attributes.set(&stream_keys::ATTACHED_PICTURE, true);
        let json = stream(&video);
        for (key, value) in [
            ("codec_tag_string", json!("avc1")),
            ("codec_tag", json!("0x31637661")),
            ("display_aspect_ratio", json!("47:20")),
            ("duration", json!("3.000000")),
            ("duration_ts", json!(46_080)),
            ("time_base", json!("1/15360")),
            ("avg_frame_rate", json!("30/1")),
            ("r_frame_rate", json!("60/1")),
            ("start_pts", json!(15_360)),
            ("start_time", json!("1.000000")),
            ("pix_fmt", json!("yuv420p")),
            ("level", json!(-99)),
            ("is_avc", json!("true")),
            ("nal_length_size", json!("4")),
            ("extradata_size", json!(5)),
            ("disposition", json!({ "attached_pic": 1 })),
        ] {
            assert_eq!(json[key], value, "{key}");
        }
        let wave = MediaType::audio(Subtype::PCM_S16, 48_000, 2)
            .with(&keys::CODEC_TAG, "0x0001".to_owned());
        let json = stream(&StreamDescriptor::new(StreamId(0), wave, base));
        for (key, value) in [
            ("codec_tag_string", json!("[1][0][0][0]")),
            ("codec_tag", json!("0x0001")),
            ("sample_rate", json!("48000")),
            ("channels", json!(2)),
            ("sample_fmt", json!("s16")),
            ("bits_per_sample", json!(16)),
            ("r_frame_rate", json!("0/0")),
        ] {
            assert_eq!(json[key], value, "{key}");
        }
    }

    #[test]
    fn a_rate_of_a_file_without_length_is_not_known() {
        assert_eq!(
            bit_rate(81_643, MediaTime::from_ticks(30_333_330)),
            Some(215_322)
        );
        assert_eq!(bit_rate(1, MediaTime::ZERO), None);
        assert_eq!(bit_rate(1, MediaTime::from_secs(-1)), None);
    }
}
