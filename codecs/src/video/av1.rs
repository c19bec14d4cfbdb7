//! AV1: `re_rav1d`, temporal unit by temporal unit, with film grain.

mod obu;

use std::collections::BTreeMap;

use bytes::Bytes;
use portcullis_engine::{
    Component, ComponentInfo, ContentLimits, Error, MediaTime, MediaType, Output, Payload,
    PixelFormat, Registry, Result, Sample, Subtype, Transform,
};
use re_rav1d::dav1d::{self, Decoder, Picture, PixelLayout, PlanarImageComponent};
use serde::{Deserialize, Serialize};

use self::obu::{Sequence, frame_count, sequence};
use super::guard::guarded;
use super::picture::{Extra, PictureWriter, Plane, Shape, accept};

const CODEC: &str = "av1";

/// Frames that one temporal unit may hold: one is shown for each layer, the others are hidden references.
const MAX_FRAMES: usize = 64;

/// Samples whose pictures may still come: more than the library holds back with its most threads.
const MAX_PENDING: usize = 1024;

pub(crate) fn register(registry: &mut Registry) {
    registry.transform::<Av1>();
}

/// How AV1 is decoded.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Av1Settings {
    /// Threads of the decoder, at most 64. Default: 1, which starts none and holds no picture back.
    pub threads: u32,
    /// Whether film grain is applied. Default: yes.
    pub film_grain: bool,
}

impl Default for Av1Settings {
    fn default() -> Self {
        Self {
            threads: 1,
            film_grain: true,
        }
    }
}

/// Decodes AV1 of every profile, 8, 10 and 12 bit.
pub struct Av1 {
    settings: Av1Settings,
    /// Made at the first sample: only then the limits are known.
    decoder: Option<Decoder>,
    /// The `configOBUs` of the container.
    configuration: Bytes,
    /// What the samples say whose pictures have not come yet, by number.
    pending: BTreeMap<i64, Sample>,
    number: i64,
    sequence: Option<Sequence>,
    writer: PictureWriter,
}

impl Component for Av1 {
    type Settings = Av1Settings;
    const INFO: ComponentInfo = ComponentInfo::decoder("video.av1", "Decodes AV1")
        .accepts(&[Subtype::AV1])
        .produces(&[Subtype::RAW_VIDEO]);

    fn new(settings: Av1Settings) -> Result<Self> {
        if settings.threads == 0 || settings.threads > 64 {
            return Err(Error::invalid_argument("video.av1: threads is 1 to 64"));
        }
        Ok(Self {
            settings,
            decoder: None,
            configuration: Bytes::new(),
            pending: BTreeMap::new(),
            number: 0,
            sequence: None,
            writer: PictureWriter::new(CODEC),
        })
    }
}

impl std::fmt::Debug for Av1 {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Av1")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Transform for Av1 {
    fn set_input(&mut self, input: &MediaType) -> Result<Vec<MediaType>> {
        accept(input, Subtype::AV1)?;
        self.decoder = None;
        self.pending.clear();
        let record = input.private_data().unwrap_or_default();
        let stated = stated_format(&record);
        self.configuration = match record.first() {
            Some(0x81) if record.len() >= 4 => record.slice(4..),
            None => Bytes::new(),
            // Matroska of old: the bare sequence header.
            Some(_) => record,
        };
        self.sequence = sequence(&self.configuration);
        let (width, height) = input.frame_size().unwrap_or_default();
        let shape = Shape {
            format: stated.unwrap_or(PixelFormat::I420),
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
        if bytes.is_empty() {
            return Ok(());
        }
        let time = header.time;
        if frame_count(&bytes) > MAX_FRAMES {
            return Err(Error::undecodable(
                CODEC,
                time,
                "more frames than a temporal unit holds",
            ));
        }
        if let Some(found) = sequence(&bytes) {
            self.sequence = Some(found);
        }
        let mut decoder = match self.decoder.take() {
            Some(decoder) => decoder,
            None => self.open(output.limits())?,
        };
        self.number += 1;
        let number = self.number;
        self.pending.insert(number, header);
        while self.pending.len() > MAX_PENDING {
            self.pending.pop_first();
        }
        let mut pictures = Vec::new();
        let answer = guarded(|| feed(&mut decoder, bytes, number, &mut pictures));
        let fed = match answer {
            Ok(fed) => {
                self.decoder = Some(decoder);
                fed.map_err(|error| self.explain(error, time, output.limits()))
            }
            Err(panic) => {
                // Its state is torn: even closing it could go wrong.
                std::mem::forget(decoder);
                Err(Error::undecodable(CODEC, time, panic))
            }
        };
        for picture in pictures {
            self.put_out(&picture, output)?;
        }
        fed
    }

    fn drain(&mut self, output: &mut Output) -> Result<()> {
        let Some(mut decoder) = self.decoder.take() else {
            return Ok(());
        };
        let mut pictures = Vec::new();
        let drained = guarded(|| take_pictures(&mut decoder, &mut pictures));
        match drained {
            Ok(_) => self.decoder = Some(decoder),
            Err(_) => std::mem::forget(decoder),
        }
        for picture in pictures {
            self.put_out(&picture, output)?;
        }
        self.pending.clear();
        Ok(())
    }

    fn flush(&mut self) {
        // A new one is cheap, and the configuration has to go in first again.
        self.decoder = None;
        self.pending.clear();
    }
}

impl Av1 {
    fn open(&self, limits: &ContentLimits) -> Result<Decoder> {
        let mut settings = dav1d::Settings::new();
        settings.set_n_threads(self.settings.threads);
        if self.settings.threads == 1 {
            settings.set_max_frame_delay(1);
        }
        settings.set_apply_grain(self.settings.film_grain);
        settings.set_all_layers(false);
        // 0 would be no limit.
        let pixels = u32::try_from(limits.max_pixels).unwrap_or(u32::MAX).max(1);
        settings.set_frame_size_limit(pixels);
        let mut decoder = Decoder::with_settings(&settings)
            .map_err(|error| Error::invalid_request(format!("av1 decoder: {error}")))?;
        if !self.configuration.is_empty() && frame_count(&self.configuration) == 0 {
            // A damaged configuration is no loss where the stream has its own sequence header.
            let _ = decoder.send_data(self.configuration.clone(), None, None, None);
            let _ = decoder.get_picture();
        }
        Ok(decoder)
    }

    fn explain(&self, error: dav1d::Error, time: MediaTime, limits: &ContentLimits) -> Error {
        match (error, self.sequence) {
            (dav1d::Error::UnsupportedBitstream, _) => {
                Error::unsupported_codec(CODEC, "a feature that the decoder does not know")
            }
            // What it answers for a picture beyond the limit.
            (dav1d::Error::UnknownError(_), Some(sequence))
                if sequence.pixels() > limits.max_pixels =>
            {
                Error::limit("pixels", limits.max_pixels, sequence.pixels())
            }
            (dav1d::Error::InvalidArgument, _) => Error::undecodable(
                CODEC,
                time,
                "the temporal unit is damaged, or refers to pictures that are missing",
            ),
            (error, _) => Error::undecodable(CODEC, time, error.to_string()),
        }
    }

    fn put_out(&mut self, picture: &Picture, output: &mut Output) -> Result<()> {
        let number = picture.timestamp().unwrap_or(self.number);
        // Pictures come in the order of their samples: what lies before this one has none.
        self.pending = self.pending.split_off(&number);
        let Some(header) = self.pending.get(&number).cloned() else {
            return Ok(());
        };
        let depth = picture.bit_depth();
        let format = layout(depth, picture.pixel_layout()).ok_or_else(|| {
            Error::unsupported_codec(CODEC, format!("{depth} bit {:?}", picture.pixel_layout()))
        })?;
        let shape = Shape {
            format,
            width: picture.width(),
            height: picture.height(),
        };
        let extra = Extra {
            pixel_aspect: None,
            full_range: Some(picture.color_range() == dav1d::pixel::YUVRange::Full),
        };
        let components: &[_] = match picture.pixel_layout() {
            PixelLayout::I400 => &[PlanarImageComponent::Y],
            _ => &[
                PlanarImageComponent::Y,
                PlanarImageComponent::U,
                PlanarImageComponent::V,
            ],
        };
        let held: Vec<_> = components
            .iter()
            .map(|component| {
                (
                    picture.plane(*component),
                    picture.stride(*component) as usize,
                )
            })
            .collect();
        let planes: Vec<_> = held
            .iter()
            .map(|(plane, stride)| Plane {
                bytes: plane,
                stride: *stride,
            })
            .collect();
        self.writer.push(header, shape, &extra, &planes, output)
    }
}

/// Gives the library one temporal unit and takes the pictures that are ready.
fn feed(
    decoder: &mut Decoder,
    bytes: Bytes,
    number: i64,
    pictures: &mut Vec<Picture>,
) -> Result<(), dav1d::Error> {
    let mut pending = match decoder.send_data(bytes, None, Some(number), None) {
        Ok(()) => false,
        Err(dav1d::Error::Again) => true,
        Err(error) => return Err(error),
    };
    let mut first = None;
    loop {
        let before = pictures.len();
        if let Err(error) = take_pictures(decoder, pictures) {
            first.get_or_insert(error);
        }
        if !pending {
            return first.map_or(Ok(()), Err);
        }
        match decoder.send_pending_data() {
            Ok(()) => pending = false,
            // Neither a picture nor room: it will not get better.
            Err(dav1d::Error::Again) if pictures.len() == before => {
                decoder.flush();
                return Err(first.unwrap_or(dav1d::Error::Again));
            }
            Err(dav1d::Error::Again) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Takes pictures until the library wants data; the first error ends nothing, since good frames may follow it.
fn take_pictures(decoder: &mut Decoder, pictures: &mut Vec<Picture>) -> Result<(), dav1d::Error> {
    let mut first = None;
    // Each turn consumes a frame or fails with one.
    for _ in 0..2 * MAX_FRAMES {
        match decoder.get_picture() {
            Ok(picture) => pictures.push(picture),
            Err(dav1d::Error::Again) => break,
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    first.map_or(Ok(()), Err)
}

fn layout(depth: usize, layout: PixelLayout) -> Option<PixelFormat> {
    use PixelFormat as F;
    Some(match (layout, depth) {
        (PixelLayout::I420, 8) => F::I420,
        (PixelLayout::I420, 10) => F::I420P10,
        (PixelLayout::I420, 12) => F::I420P12,
        (PixelLayout::I422, 8) => F::I422,
        (PixelLayout::I422, 10) => F::I422P10,
        (PixelLayout::I422, 12) => F::I422P12,
        (PixelLayout::I444, 8) => F::I444,
        (PixelLayout::I444, 10) => F::I444P10,
        (PixelLayout::I444, 12) => F::I444P12,
        (PixelLayout::I400, 8) => F::Gray8,
        (PixelLayout::I400, 10) => F::Gray10,
        _ => return None,
    })
}

/// The layout that an `av1C` record states.
fn stated_format(record: &[u8]) -> Option<PixelFormat> {
    let [0x81, _, flags, _, ..] = *record else {
        return None;
    };
    let depth = match flags >> 5 & 3 {
        0 | 1 => 8,
        2 => 10,
        _ => 12,
    };
    // monochrome, chroma_subsampling_x, chroma_subsampling_y
    let chroma = match flags >> 2 & 7 {
        0b011 => PixelLayout::I420,
        0b010 => PixelLayout::I422,
        0b000 => PixelLayout::I444,
        _ => PixelLayout::I400,
    };
    layout(depth, chroma)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_bounded() {
        let settings = Av1Settings {
            threads: 65,
            ..Av1Settings::default()
        };
        assert!(Av1::new(settings).is_err());
    }
}
