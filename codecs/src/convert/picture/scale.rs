//! Changes of size, plane by plane.

use std::borrow::Cow;
use std::fmt;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::Filter;
use super::layout::{Chroma, Planar};

/// The resizer with its scratch memory.
pub(super) struct Scaler {
    resizer: Resizer,
    options: ResizeOptions,
}

impl fmt::Debug for Scaler {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Scaler({:?})", self.options.algorithm)
    }
}

impl Scaler {
    pub(super) fn new(filter: Filter) -> Self {
        let algorithm = match filter {
            Filter::Nearest => ResizeAlg::Nearest,
            Filter::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
            Filter::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
            Filter::Lanczos => ResizeAlg::Convolution(FilterType::Lanczos3),
        };
        Self {
            resizer: Resizer::new(),
            options: ResizeOptions::new().resize_alg(algorithm),
        }
    }

    fn scale(
        &mut self,
        bytes: &[u8],
        from: (u32, u32),
        to: (u32, u32),
        pixel: PixelType,
    ) -> Result<Vec<u8>, String> {
        let source =
            ImageRef::new(from.0, from.1, bytes, pixel).map_err(|error| error.to_string())?;
        let mut target = Image::new(to.0, to.1, pixel);
        self.resizer
            .resize(&source, &mut target, &self.options)
            .map_err(|error| error.to_string())?;
        Ok(target.into_vec())
    }

    fn plane<'a>(
        &mut self,
        plane: Cow<'a, [u8]>,
        from: (u32, u32),
        to: (u32, u32),
    ) -> Result<Cow<'a, [u8]>, String> {
        if from == to {
            return Ok(plane);
        }
        self.scale(&plane, from, to, PixelType::U8).map(Cow::Owned)
    }
}

/// Brings planes to a size; chroma keeps its share of it, or is brought to half in both directions.
pub(super) fn scale_planar<'a>(
    scaler: &mut Scaler,
    planes: Planar<'a>,
    width: u32,
    height: u32,
    half: bool,
) -> Result<Planar<'a>, String> {
    let from = (planes.width, planes.height);
    let luma = scaler.plane(planes.luma, from, (width, height))?;
    let chroma = match planes.chroma {
        None => None,
        Some(chroma) => {
            let share = |part: u32, whole: u32, target: u32| {
                if half || part < whole {
                    target.div_ceil(2)
                } else {
                    target
                }
            };
            let size = (
                share(chroma.width, from.0, width),
                share(chroma.height, from.1, height),
            );
            let from = (chroma.width, chroma.height);
            Some(Chroma {
                width: size.0,
                height: size.1,
                blue: scaler.plane(chroma.blue, from, size)?,
                red: scaler.plane(chroma.red, from, size)?,
            })
        }
    };
    Ok(Planar {
        width,
        height,
        luma,
        chroma,
    })
}

/// Brings a packed picture of 3 or 4 bytes a pixel to a size.
pub(super) fn scale_packed(
    scaler: &mut Scaler,
    bytes: &[u8],
    from: (u32, u32),
    to: (u32, u32),
    pixel_bytes: usize,
) -> Result<Vec<u8>, String> {
    let pixel = if pixel_bytes == 4 {
        PixelType::U8x4
    } else {
        PixelType::U8x3
    };
    scaler.scale(bytes, from, to, pixel)
}
