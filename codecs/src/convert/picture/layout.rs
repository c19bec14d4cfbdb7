//! Between layouts of 8-bit pictures of one size.

use std::borrow::Cow;

use portcullis_engine::PixelFormat;
use yuv::{
    BufferStoreMut, YuvBiPlanarImageMut, YuvConversionMode, YuvError, YuvGrayImage, YuvPlanarImage,
    YuvPlanarImageMut, YuvRange, YuvStandardMatrix,
};

use super::Matrix;

/// Luma and chroma as planes of bytes without padding.
#[derive(Debug)]
pub(super) struct Planar<'a> {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) luma: Cow<'a, [u8]>,
    /// Both chroma planes with their size; `None` for a grey picture.
    pub(super) chroma: Option<Chroma<'a>>,
}

/// The chroma planes.
#[derive(Debug)]
pub(super) struct Chroma<'a> {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) blue: Cow<'a, [u8]>,
    pub(super) red: Cow<'a, [u8]>,
}

/// How YUV and RGB relate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Colour {
    pub(super) matrix: Matrix,
    pub(super) full_range: bool,
}

impl Colour {
    fn range(self) -> YuvRange {
        if self.full_range {
            YuvRange::Full
        } else {
            YuvRange::Limited
        }
    }

    fn matrix(self) -> YuvStandardMatrix {
        match self.matrix {
            Matrix::Bt709 => YuvStandardMatrix::Bt709,
            Matrix::Bt2020 => YuvStandardMatrix::Bt2020,
            _ => YuvStandardMatrix::Bt601,
        }
    }
}

/// Splits a picture of any YUV layout into planes of 8 bits.
pub(super) fn to_planar(
    bytes: &[u8],
    format: PixelFormat,
    width: u32,
    height: u32,
) -> Result<Planar<'_>, String> {
    use PixelFormat as F;
    let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
    let depth = match format {
        F::I420P10 | F::I422P10 | F::I444P10 | F::Gray10 => 10,
        F::I420P12 | F::I422P12 | F::I444P12 => 12,
        _ => 8,
    };
    let chroma_size = match format {
        F::I420 | F::I420P10 | F::I420P12 | F::Nv12 => Some((half_width, half_height)),
        F::I422 | F::I422P10 | F::I422P12 => Some((half_width, height)),
        F::I444 | F::I444P10 | F::I444P12 => Some((width, height)),
        F::Gray8 | F::Gray10 => None,
        _ => return Err(format!("{format} has no planes")),
    };
    let sample = if depth > 8 { 2 } else { 1 };
    let short = || "the picture is short".to_owned();
    let luma_bytes = width as usize * height as usize * sample;
    let (luma, rest) = bytes.split_at_checked(luma_bytes).ok_or_else(short)?;
    let chroma = match chroma_size {
        None => None,
        Some((width, height)) => {
            let plane = width as usize * height as usize * sample;
            let rest = rest.get(..2 * plane).ok_or_else(short)?;
            let (blue, red) = if format == F::Nv12 {
                let (blue, red) = rest.chunks_exact(2).map(|pair| (pair[0], pair[1])).unzip();
                (Cow::Owned(blue), Cow::Owned(red))
            } else {
                let (blue, red) = rest.split_at(plane);
                (to_8_bits(blue, depth), to_8_bits(red, depth))
            };
            Some(Chroma {
                width,
                height,
                blue,
                red,
            })
        }
    };
    Ok(Planar {
        width,
        height,
        luma: to_8_bits(luma, depth),
        chroma,
    })
}

/// Rounds words of `depth` bits to bytes.
fn to_8_bits(bytes: &[u8], depth: u32) -> Cow<'_, [u8]> {
    if depth == 8 {
        return Cow::Borrowed(bytes);
    }
    let shift = depth - 8;
    let half = 1u16 << (shift - 1);
    let max = (1u16 << depth) - 1;
    Cow::Owned(
        bytes
            .chunks_exact(2)
            .map(|word| {
                let value = u16::from_le_bytes([word[0], word[1]]).min(max);
                ((value + half) >> shift).min(255) as u8
            })
            .collect(),
    )
}

/// Writes I420 or NV12 from planes whose chroma has half the size.
pub(super) fn write_yuv(
    planes: &Planar<'_>,
    interleave: bool,
    target: &mut [u8],
) -> Result<(), String> {
    let wrong = || "the planes do not fit the target".to_owned();
    let (luma, rest) = target
        .split_at_mut_checked(planes.luma.len())
        .ok_or_else(wrong)?;
    luma.copy_from_slice(&planes.luma);
    let Some(chroma) = &planes.chroma else {
        rest.fill(128);
        return Ok(());
    };
    if chroma.blue.len() + chroma.red.len() != rest.len() {
        return Err(wrong());
    }
    if interleave {
        for (pair, (blue, red)) in rest
            .chunks_exact_mut(2)
            .zip(chroma.blue.iter().zip(chroma.red.iter()))
        {
            pair[0] = *blue;
            pair[1] = *red;
        }
    } else {
        let (blue, red) = rest.split_at_mut(chroma.blue.len());
        blue.copy_from_slice(&chroma.blue);
        red.copy_from_slice(&chroma.red);
    }
    Ok(())
}

/// Makes RGB or RGBA.
pub(super) fn yuv_to_rgb(
    planes: &Planar<'_>,
    alpha: bool,
    colour: Colour,
    target: &mut [u8],
) -> Result<(), String> {
    let (width, height) = (planes.width, planes.height);
    let stride = width * if alpha { 4 } else { 3 };
    let (range, matrix) = (colour.range(), colour.matrix());
    let Some(chroma) = &planes.chroma else {
        let image = YuvGrayImage {
            y_plane: &planes.luma,
            y_stride: width,
            width,
            height,
        };
        let convert = if alpha {
            yuv::yuv400_to_rgba
        } else {
            yuv::yuv400_to_rgb
        };
        return convert(&image, target, stride, range, matrix).map_err(text);
    };
    let image = YuvPlanarImage {
        y_plane: &planes.luma,
        y_stride: width,
        u_plane: &chroma.blue,
        u_stride: chroma.width,
        v_plane: &chroma.red,
        v_stride: chroma.width,
        width,
        height,
    };
    let convert = match (chroma.width < width, chroma.height < height, alpha) {
        (false, false, false) => yuv::yuv444_to_rgb,
        (false, false, true) => yuv::yuv444_to_rgba,
        (true, false, false) => yuv::yuv422_to_rgb,
        (true, false, true) => yuv::yuv422_to_rgba,
        (_, true, false) => yuv::yuv420_to_rgb,
        (_, true, true) => yuv::yuv420_to_rgba,
    };
    convert(&image, target, stride, range, matrix).map_err(text)
}

/// Makes I420 or NV12.
pub(super) fn rgb_to_yuv(
    bytes: &[u8],
    alpha: bool,
    (width, height): (u32, u32),
    interleave: bool,
    colour: Colour,
    target: &mut [u8],
) -> Result<(), String> {
    let (range, matrix) = (colour.range(), colour.matrix());
    let mode = YuvConversionMode::Balanced;
    let stride = width * if alpha { 4 } else { 3 };
    let half_width = width.div_ceil(2);
    let luma_bytes = width as usize * height as usize;
    let (luma, chroma) = target
        .split_at_mut_checked(luma_bytes)
        .ok_or("the target is short")?;
    if interleave {
        let mut image = YuvBiPlanarImageMut {
            y_plane: BufferStoreMut::Borrowed(luma),
            y_stride: width,
            uv_plane: BufferStoreMut::Borrowed(chroma),
            uv_stride: 2 * half_width,
            width,
            height,
        };
        let convert = if alpha {
            yuv::rgba_to_yuv_nv12
        } else {
            yuv::rgb_to_yuv_nv12
        };
        return convert(&mut image, bytes, stride, range, matrix, mode).map_err(text);
    }
    let (blue, red) = chroma.split_at_mut(chroma.len() / 2);
    let mut image = YuvPlanarImageMut {
        y_plane: BufferStoreMut::Borrowed(luma),
        y_stride: width,
        u_plane: BufferStoreMut::Borrowed(blue),
        u_stride: half_width,
        v_plane: BufferStoreMut::Borrowed(red),
        v_stride: half_width,
        width,
        height,
    };
    let convert = if alpha {
        yuv::rgba_to_yuv420
    } else {
        yuv::rgb_to_yuv420
    };
    convert(&mut image, bytes, stride, range, matrix, mode).map_err(text)
}

/// Between RGB and RGBA, or the same; new alpha is opaque.
pub(super) fn copy_rgb(
    bytes: &[u8],
    alpha: bool,
    (width, height): (u32, u32),
    target: &mut [u8],
) -> Result<(), String> {
    if bytes.len() == target.len() {
        target.copy_from_slice(bytes);
        return Ok(());
    }
    let (from, to) = if alpha { (4, 3) } else { (3, 4) };
    let convert = if alpha {
        yuv::rgba_to_rgb
    } else {
        yuv::rgb_to_rgba
    };
    convert(bytes, width * from, target, width * to, width, height).map_err(text)
}

fn text(error: YuvError) -> String {
    error.to_string()
}
