//! VP9: `rusty_vp9`, packet by packet.
//!
//! Heads are read here before the library sees a frame, because it allocates whatever size a frame claims; and after a
//! damaged reference frame pictures are refused until the next key frame, because the library goes on with old ones.

mod heads;

use portcullis_engine::{
    Component, ComponentInfo, Error, MediaType, Output, Payload, PixelFormat, Registry, Result,
    Sample, Subtype, Transform, keys,
};
use rusty_vp9::{DecodedFrame, Vp9Decoder};
use serde::{Deserialize, Serialize};

use self::heads::{Head, split_superframe};
use super::guard::guarded;
use super::picture::{Extra, PictureWriter, Plane, Shape, accept};

const CODEC: &str = "vp9";

pub(crate) fn register(registry: &mut Registry) {
    registry.transform::<Vp9>();
}

/// There is nothing to set.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vp9Settings {}

/// Decodes VP9 of every profile, 8, 10 and 12 bit, but for RGB and 4:4:0.
pub struct Vp9 {
    decoder: Vp9Decoder,
    /// Sizes in the eight reference slots, as the library will have them.
    slots: [(u32, u32); 8],
    synced: bool,
    writer: PictureWriter,
}

impl Component for Vp9 {
    type Settings = Vp9Settings;
    const INFO: ComponentInfo = ComponentInfo::decoder("video.vp9", "Decodes VP9")
        .accepts(&[Subtype::VP9])
        .produces(&[Subtype::RAW_VIDEO]);

    fn new(_: Vp9Settings) -> Result<Self> {
        Ok(Self {
            decoder: Vp9Decoder::new(),
            slots: [(0, 0); 8],
            synced: false,
            writer: PictureWriter::new(CODEC),
        })
    }
}

impl std::fmt::Debug for Vp9 {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Vp9")
            .field("synced", &self.synced)
            .finish_non_exhaustive()
    }
}

impl Transform for Vp9 {
    fn set_input(&mut self, input: &MediaType) -> Result<Vec<MediaType>> {
        accept(input, Subtype::VP9)?;
        self.flush();
        let (width, height) = input.frame_size().unwrap_or_default();
        let shape = Shape {
            format: stated_format(input),
            width,
            height,
        };
        Ok(vec![self.writer.set_input(input, shape, &Extra::default())])
    }

    fn set_output(&mut self, output: &MediaType) -> Result<()> {
        self.writer.set_output(output)
    }

    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        output.limits().check_sample(input.len() as u64)?;
        let bytes = input.payload.to_bytes();
        let header = Sample {
            payload: Payload::default(),
            ..input
        };
        let mut heads = Vec::new();
        for frame in split_superframe(&bytes) {
            heads.push(self.check(frame, &header, output)?);
        }
        if self.decoder.push(&bytes, None).is_err() {
            return Err(self.lose(&header, "the packet is damaged"));
        }
        let mut failed = None;
        // The library answers once for each frame of the packet.
        for head in heads {
            let decoder = &mut self.decoder;
            match guarded(|| decoder.next_frame()) {
                Ok(Ok(frame)) => self.put_out(frame, &header, output)?,
                Ok(Err(rusty_vp9::Error::Again)) => {}
                Ok(Err(rusty_vp9::Error::Unsupported(what))) => {
                    self.flush();
                    return Err(Error::unsupported_codec(CODEC, what));
                }
                Ok(Err(error)) if head.refreshes() => {
                    return Err(self.lose(&header, error.to_string()));
                }
                Ok(Err(error)) => {
                    failed = Some(Error::undecodable(CODEC, header.time, error.to_string()));
                }
                Err(panic) => return Err(self.lose(&header, panic)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn flush(&mut self) {
        self.decoder = Vp9Decoder::new();
        self.slots = [(0, 0); 8];
        self.synced = false;
    }
}

impl Vp9 {
    /// Reads a frame's head and refuses what the library must not see.
    fn check(&mut self, frame: &[u8], header: &Sample, output: &Output) -> Result<Head> {
        let undecodable = |what: String| Error::undecodable(CODEC, header.time, what);
        let head = match Head::parse(frame, &self.slots) {
            Ok(head) => head,
            Err(what) => return Err(self.lose(header, what)),
        };
        if head.key {
            self.synced = true;
        }
        if !self.synced && !head.shows_existing() {
            return Err(undecodable(
                "skipped: the picture refers to others that are missing".into(),
            ));
        }
        if let Some((width, height)) = head.size {
            output.limits().check_picture(width, height)?;
        }
        if let Some(what) = head.unsupported {
            self.flush();
            return Err(Error::unsupported_codec(CODEC, what));
        }
        // The next frame of the packet may take its size from this one. Where this one fails everything is forgotten.
        for (slot, known) in self.slots.iter_mut().enumerate() {
            if head.refresh >> slot & 1 == 1 {
                *known = head.size.unwrap_or(*known);
            }
        }
        Ok(head)
    }

    fn lose(&mut self, header: &Sample, what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        self.flush();
        Error::undecodable(CODEC, header.time, what)
    }

    fn put_out(&mut self, frame: DecodedFrame, header: &Sample, output: &mut Output) -> Result<()> {
        let format = layout(frame.bit_depth, frame.subsampling_x, frame.subsampling_y)
            .ok_or_else(|| Error::unsupported_codec(CODEC, "4:4:0 chroma"))?;
        let shape = Shape {
            format,
            width: frame.width,
            height: frame.height,
        };
        let planes: Vec<_> = frame
            .planes
            .iter()
            .zip(&frame.strides)
            .map(|(bytes, stride)| Plane {
                bytes,
                stride: *stride,
            })
            .collect();
        self.writer
            .push(header.clone(), shape, &Extra::default(), &planes, output)
    }
}

fn layout(depth: u32, ss_x: u32, ss_y: u32) -> Option<PixelFormat> {
    use PixelFormat as F;
    Some(match (ss_x, ss_y, depth) {
        (1, 1, 8) => F::I420,
        (1, 1, 10) => F::I420P10,
        (1, 1, 12) => F::I420P12,
        (1, 0, 8) => F::I422,
        (1, 0, 10) => F::I422P10,
        (1, 0, 12) => F::I422P12,
        (0, 0, 8) => F::I444,
        (0, 0, 10) => F::I444P10,
        (0, 0, 12) => F::I444P12,
        _ => return None,
    })
}

/// What the container says of the layout: the configuration record of MP4, or the profile's name.
fn stated_format(input: &MediaType) -> PixelFormat {
    if let Some(record) = input.private_data()
        && let [_profile, _level, packed, ..] = record[..]
        && record.len() >= 8
    {
        // bitDepth:4 chromaSubsampling:3 videoFullRangeFlag:1
        let (ss_x, ss_y) = match packed >> 1 & 7 {
            0 | 1 => (1, 1),
            2 => (1, 0),
            _ => (0, 0),
        };
        if let Some(format) = layout(u32::from(packed >> 4), ss_x, ss_y) {
            return format;
        }
    }
    match input.get(&keys::PROFILE).as_deref() {
        Some("Profile 2") => PixelFormat::I420P10,
        Some("Profile 1") => PixelFormat::I444,
        Some("Profile 3") => PixelFormat::I444P10,
        _ => PixelFormat::I420,
    }
}
