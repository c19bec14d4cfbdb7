//! What a source offers: its streams and what is known of them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::media::{Attributes, MajorType, MediaTime, MediaType, TimeBase, Value};

/// A stream within its presentation. Values are dense: the position in the list of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(pub u32);

impl std::fmt::Display for StreamId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// One stream of a presentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamDescriptor {
    /// The stream's id in its presentation.
    pub id: StreamId,
    /// The type that the stream delivers.
    pub media_type: MediaType,
    /// Other types that the source could deliver instead.
    pub alternatives: Vec<MediaType>,
    /// Whether the stream is delivered when the source starts.
    pub selected: bool,
    /// The unit of the container's own timestamps for this stream.
    pub time_base: TimeBase,
    /// Presentation time of its first sample, where that is known.
    pub start_time: Option<MediaTime>,
    /// Length of this stream, where the container says.
    pub duration: Option<MediaTime>,
    /// Number of samples, where the container says.
    pub sample_count: Option<u64>,
    /// ISO 639-2 language, where the container says.
    pub language: Option<String>,
    /// Everything else: the container's own track id, title, disposition.
    pub attributes: Attributes,
}

/// The attribute keys of streams that more than one component uses.
pub mod stream_keys {
    use crate::media::Key;

    /// Marks a stream that is one picture: a cover.
    pub const ATTACHED_PICTURE: Key<bool> = Key::new("attached_picture");
    /// Layout of the pictures that a decoder makes of the stream, in FFmpeg's words.
    pub const PIX_FMT: Key<String> = Key::new("pix_fmt");
    /// The codec's level, as its set-up data number it.
    pub const LEVEL: Key<u64> = Key::new("level");
    /// Pictures that precede one in decoding order and are shown after it, at most.
    pub const HAS_B_FRAMES: Key<u64> = Key::new("has_b_frames");
    /// Shape of a pixel by the codec's own headers, where the container says none.
    pub const CODED_PIXEL_ASPECT: Key<(u32, u32)> = Key::new("coded_pixel_aspect");
    /// Whether luma spans 0-255, where the codec's own headers say so or not.
    pub const CODED_FULL_RANGE: Key<bool> = Key::new("coded_full_range");
    /// Bits of a value that the codec keeps.
    pub const CODED_BITS: Key<u64> = Key::new("coded_bits");
    /// The lowest frame rate in which every picture's time can be said, where it is not the average.
    pub const BASE_FRAME_RATE: Key<(u32, u32)> = Key::new("base_frame_rate");
    /// Why the stream cannot be read.
    pub const DAMAGE: Key<String> = Key::new("damage");
}

impl StreamDescriptor {
    /// A selected stream of one type.
    pub fn new(id: StreamId, media_type: MediaType, time_base: TimeBase) -> Self {
        Self {
            id,
            media_type,
            alternatives: Vec::new(),
            selected: true,
            time_base,
            start_time: None,
            duration: None,
            sample_count: None,
            language: None,
            attributes: Attributes::new(),
        }
    }

    /// The scheme by which a protected stream is encrypted, such as `cenc`; `unknown scheme` where the container does not say.
    pub fn protection_scheme(&self) -> Cow<'static, str> {
        match self.attributes.named("protection_scheme") {
            Some(Value::Text(scheme)) => scheme.clone(),
            _ => "unknown scheme".into(),
        }
    }

    /// The kind of stream.
    pub fn major(&self) -> MajorType {
        self.media_type.major
    }
}

/// What a source can do. Bit positions follow the original (reference 1.6 M1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Characteristics {
    /// Delivers in real time and cannot be asked again.
    pub live: bool,
    /// Can start at any position.
    pub can_seek: bool,
    /// Can pause.
    pub can_pause: bool,
}

/// The streams of one presentation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PresentationDescriptor {
    /// FFmpeg's short name of the container, such as `mov,mp4,m4a,3gp,3g2,mj2`; empty for a synthetic source.
    pub format: String,
    /// The streams; `streams[i].id` is `i`.
    pub streams: Vec<StreamDescriptor>,
    /// Length of the presentation, where it is known.
    pub duration: Option<MediaTime>,
    /// What the source can do.
    pub characteristics: Characteristics,
    /// Tags and everything else.
    pub attributes: Attributes,
}

impl PresentationDescriptor {
    /// The stream with this id.
    pub fn stream(&self, id: StreamId) -> Option<&StreamDescriptor> {
        self.streams.get(id.0 as usize)
    }

    /// The stream with this id, to select or deselect it.
    pub fn stream_mut(&mut self, id: StreamId) -> Option<&mut StreamDescriptor> {
        self.streams.get_mut(id.0 as usize)
    }

    /// The `nth` stream of a kind, in order: `v:0`, `a:1`.
    pub fn nth_of(&self, major: MajorType, nth: usize) -> Option<&StreamDescriptor> {
        self.streams.iter().filter(|s| s.major() == major).nth(nth)
    }

    /// The first stream of this kind that is meant to be played: a cover picture is not.
    pub fn first_played(&self, major: MajorType) -> Option<&StreamDescriptor> {
        self.streams.iter().find(|stream| {
            let attached = stream.attributes.get(&stream_keys::ATTACHED_PICTURE);
            stream.major() == major && attached != Some(true)
        })
    }

    /// Selects exactly these streams.
    pub fn select_only(&mut self, ids: &[StreamId]) {
        for stream in &mut self.streams {
            stream.selected = ids.contains(&stream.id);
        }
    }

    /// Whether any stream is protected, also a deselected one (reference 1.2 T25).
    pub fn requires_protected_host(&self) -> bool {
        self.streams.iter().any(|s| s.media_type.is_protected())
    }
}
