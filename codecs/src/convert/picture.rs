//! Pictures of any raw layout into 8-bit I420, NV12, RGB or RGBA of any size.
//!
//! The way is always the same: to 8 bits, plane by plane to the target's size (which also resamples chroma), then into
//! the target's layout. A step that changes nothing is left out, and the last one writes into the output sample.
//!
//! The stream may change in the middle. What the output differed in from the input was asked for, and stays; the rest
//! follows the input.

mod layout;
mod scale;

use portcullis_engine::{
    Component, ComponentInfo, Error, MediaType, Output, PixelFormat, Registry, Result, Sample,
    Subtype, Transform, keys,
};
use serde::{Deserialize, Serialize};

use self::layout::{Colour, copy_rgb, rgb_to_yuv, to_planar, write_yuv, yuv_to_rgb};
use self::scale::{Scaler, scale_packed, scale_planar};
use super::asked;

pub(crate) fn register(registry: &mut Registry) {
    registry.transform::<PictureConverter>();
}

/// What the converter makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PictureSettings {
    /// The layout that is offered first: yuv420p, nv12, rgb24 or rgba. Default: the input's where it is one of them.
    pub format: Option<PixelFormat>,
    /// The size that is offered first. Default: the input's.
    pub size: Option<(u32, u32)>,
    /// Which coefficients stand between YUV and RGB.
    pub matrix: Matrix,
    /// How sizes change.
    pub filter: Filter,
}

/// Coefficients between YUV and RGB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Matrix {
    /// BT.709 from 1280 x 720 on, BT.601 below.
    #[default]
    Auto,
    /// BT.601.
    Bt601,
    /// BT.709.
    Bt709,
    /// BT.2020, not constant luminance.
    Bt2020,
}

/// How sizes change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// Linear, with all pixels that a smaller one covers.
    #[default]
    Bilinear,
    /// Cubic (Catmull-Rom).
    Bicubic,
    /// Lanczos over three lobes.
    Lanczos,
}

/// Layouts that are made.
const TARGETS: [PixelFormat; 4] = [
    PixelFormat::I420,
    PixelFormat::Nv12,
    PixelFormat::Rgb8,
    PixelFormat::Rgba8,
];

/// Converts raw pictures; see [`PictureSettings`].
#[derive(Debug)]
pub struct PictureConverter {
    settings: PictureSettings,
    input: Option<Picture>,
    output: Option<Picture>,
    /// The layout that was asked for, unlike the input's.
    asked_format: Option<PixelFormat>,
    /// The size that was asked for, unlike the input's.
    asked_size: Option<(u32, u32)>,
    scaler: Scaler,
}

/// What is known of a picture's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Picture {
    format: PixelFormat,
    width: u32,
    height: u32,
    full_range: bool,
}

impl Picture {
    fn of(media_type: &MediaType) -> Option<Self> {
        let (width, height) = media_type.frame_size()?;
        let size = media_type
            .pixel_format()?
            .picture_bytes(width, height)
            .filter(|size| *size > 0)?;
        // Larger ones are beyond every limit; what follows may multiply sizes by 4.
        (size <= 1 << 32).then_some(Self {
            format: media_type.pixel_format()?,
            width,
            height,
            full_range: media_type.get(&keys::FULL_RANGE).unwrap_or(false),
        })
    }

    fn bytes(&self) -> usize {
        self.format
            .picture_bytes(self.width, self.height)
            .unwrap_or(usize::MAX)
    }
}

impl Component for PictureConverter {
    type Settings = PictureSettings;
    const INFO: ComponentInfo = ComponentInfo::converter(
        "convert.picture",
        "Converts raw pictures to 8-bit I420, NV12, RGB or RGBA of any size",
    )
    .accepts(&[Subtype::RAW_VIDEO])
    .produces(&[Subtype::RAW_VIDEO]);

    fn new(settings: PictureSettings) -> Result<Self> {
        if let Some(format) = settings.format
            && !TARGETS.contains(&format)
        {
            return Err(Error::invalid_argument(format!(
                "convert.picture makes yuv420p, nv12, rgb24 and rgba, not {format}"
            )));
        }
        if settings.size.is_some_and(|(w, h)| w == 0 || h == 0) {
            return Err(Error::invalid_argument("convert.picture: a size of 0"));
        }
        Ok(Self {
            settings,
            input: None,
            output: None,
            asked_format: None,
            asked_size: None,
            scaler: Scaler::new(settings.filter),
        })
    }
}

impl Transform for PictureConverter {
    fn set_input(&mut self, input: &MediaType) -> Result<Vec<MediaType>> {
        let picture = Picture::of(input)
            .filter(|_| input.subtype == Subtype::RAW_VIDEO)
            .ok_or_else(|| {
                Error::invalid_type(input, "a raw picture with a size and a layout is needed")
            })?;
        self.input = Some(picture);
        let (width, height) = self
            .asked_size
            .or(self.settings.size)
            .unwrap_or((picture.width, picture.height));
        let first = self
            .asked_format
            .or(self.settings.format)
            .or_else(|| TARGETS.into_iter().find(|format| *format == picture.format))
            .unwrap_or(PixelFormat::I420);
        let rest = TARGETS.into_iter().filter(|format| *format != first);
        let types: Vec<_> = std::iter::once(first)
            .chain(rest)
            .map(|format| output_type(input, &picture, format, width, height))
            .collect();
        self.output = Picture::of(&types[0]);
        Ok(types)
    }

    fn set_output(&mut self, output: &MediaType) -> Result<()> {
        let Some(input) = self.input else {
            return Err(Error::invalid_request("set_output before set_input"));
        };
        let refuse = |why| Err(Error::invalid_type(output, why));
        let mut wanted = output.clone();
        if wanted.frame_size().is_none() {
            wanted = wanted.with(&keys::FRAME_SIZE, (input.width, input.height));
        }
        if wanted.subtype != Subtype::RAW_VIDEO {
            return refuse("convert.picture makes raw pictures");
        }
        let Some(mut picture) = Picture::of(&wanted) else {
            return refuse("a size and a layout are needed");
        };
        let unchanged = (picture.format, picture.width, picture.height)
            == (input.format, input.width, input.height);
        if !TARGETS.contains(&picture.format) && !unchanged {
            return refuse("convert.picture makes yuv420p, nv12, rgb24 and rgba");
        }
        if is_yuv(input.format) && is_yuv(picture.format) {
            if output.get(&keys::FULL_RANGE).is_some() && picture.full_range != input.full_range {
                return refuse("convert.picture keeps the range of luma");
            }
            picture.full_range = input.full_range;
        }
        asked(&mut self.asked_format, input.format, picture.format);
        let size = |picture: &Picture| (picture.width, picture.height);
        asked(&mut self.asked_size, size(&input), size(&picture));
        self.output = Some(picture);
        Ok(())
    }

    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        let (Some(from), Some(to)) = (self.input, self.output) else {
            return Err(Error::invalid_request("samples before the types are set"));
        };
        if input.len() != from.bytes() {
            return Err(Error::invalid_argument(format!(
                "a picture of {} bytes where {} are {} {}x{}",
                input.len(),
                from.bytes(),
                from.format,
                from.width,
                from.height
            )));
        }
        if (from.format, from.width, from.height) == (to.format, to.width, to.height) {
            output.push(input);
            return Ok(());
        }
        output.limits().check_picture(to.width, to.height)?;
        let bytes = input.payload.to_bytes();
        let mut buffer = output.allocate(to.bytes());
        self.convert(&bytes, from, to, &mut buffer)
            .map_err(|what| Error::invalid_argument(format!("convert.picture: {what}")))?;
        output.push(input.with_payload(buffer));
        Ok(())
    }
}

impl PictureConverter {
    fn convert(
        &mut self,
        bytes: &[u8],
        from: Picture,
        to: Picture,
        target: &mut [u8],
    ) -> Result<(), String> {
        let same_size = (from.width, from.height) == (to.width, to.height);
        let colour = Colour {
            matrix: self.matrix(if is_yuv(from.format) { from } else { to }),
            full_range: if is_yuv(from.format) {
                from.full_range
            } else {
                to.full_range
            },
        };
        let size = (to.width, to.height);
        if is_yuv(from.format) {
            let planes = to_planar(bytes, from.format, from.width, from.height)?;
            // RGB is made from whatever chroma there is; I420 and NV12 need half of it.
            let half = is_yuv(to.format);
            let planes = scale_planar(&mut self.scaler, planes, to.width, to.height, half)?;
            return if is_yuv(to.format) {
                write_yuv(&planes, to.format == PixelFormat::Nv12, target)
            } else {
                yuv_to_rgb(&planes, to.format == PixelFormat::Rgba8, colour, target)
            };
        }
        let alpha = from.format == PixelFormat::Rgba8;
        let scaled;
        let bytes = if same_size {
            bytes
        } else {
            scaled = scale_packed(
                &mut self.scaler,
                bytes,
                (from.width, from.height),
                size,
                if alpha { 4 } else { 3 },
            )?;
            &scaled[..]
        };
        if is_yuv(to.format) {
            rgb_to_yuv(
                bytes,
                alpha,
                size,
                to.format == PixelFormat::Nv12,
                colour,
                target,
            )
        } else {
            copy_rgb(bytes, alpha, size, target)
        }
    }

    fn matrix(&self, yuv: Picture) -> Matrix {
        match self.settings.matrix {
            Matrix::Auto if yuv.width >= 1280 || yuv.height >= 720 => Matrix::Bt709,
            Matrix::Auto => Matrix::Bt601,
            told => told,
        }
    }
}

fn is_yuv(format: PixelFormat) -> bool {
    !matches!(format, PixelFormat::Rgb8 | PixelFormat::Rgba8)
}

fn output_type(
    input: &MediaType,
    picture: &Picture,
    format: PixelFormat,
    width: u32,
    height: u32,
) -> MediaType {
    let mut output = MediaType::raw_video(format, width, height);
    for (name, value) in input.attributes.iter() {
        let own = [
            keys::FRAME_SIZE.name(),
            keys::PIXEL_FORMAT.name(),
            keys::FULL_RANGE.name(),
            keys::PIXEL_ASPECT.name(),
        ];
        if !own.contains(&name) {
            output.attributes.set_named(name.to_owned(), value.clone());
        }
    }
    if is_yuv(format) {
        let range = is_yuv(picture.format).then(|| input.get(&keys::FULL_RANGE));
        if let Some(Some(range)) = range {
            output.attributes.set(&keys::FULL_RANGE, range);
        }
    }
    let aspect = input.get(&keys::PIXEL_ASPECT).unwrap_or((1, 1));
    if let Some(aspect) = scaled_aspect(aspect, picture, width, height)
        && (aspect != (1, 1) || input.get(&keys::PIXEL_ASPECT).is_some())
    {
        output.attributes.set(&keys::PIXEL_ASPECT, aspect);
    }
    output
}

/// The shape of a pixel after the picture changed its size: the picture's own shape stays.
fn scaled_aspect(
    aspect: (u32, u32),
    picture: &Picture,
    width: u32,
    height: u32,
) -> Option<(u32, u32)> {
    let num = u128::from(aspect.0) * u128::from(picture.width) * u128::from(height);
    let den = u128::from(aspect.1) * u128::from(picture.height) * u128::from(width);
    let (mut a, mut b) = (num, den);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    let by = a.max(1);
    Some((
        u32::try_from(num / by).ok().filter(|value| *value > 0)?,
        u32::try_from(den / by).ok().filter(|value| *value > 0)?,
    ))
}

#[cfg(test)]
mod tests;
