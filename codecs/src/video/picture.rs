//! What the video decoders share: the output type, and the copy of a decoded picture into an output sample.

use portcullis_engine::{
    Error, MediaType, Output, PixelFormat, Result, Sample, SampleBuffer, Subtype, keys,
};

/// One plane inside of a decoder's frame: rows of `stride` bytes, of which the first ones are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) stride: usize,
}

/// The size in pixels and the layout of a decoded picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) format: PixelFormat,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// The output side of a decoder: which type was announced, and how samples are made.
#[derive(Debug, Default)]
pub(super) struct PictureWriter {
    codec: &'static str,
    /// The input's type: aspect, rotation and rate are taken over from it.
    input: Option<MediaType>,
    announced: Option<MediaType>,
}

impl PictureWriter {
    pub(super) fn new(codec: &'static str) -> Self {
        Self {
            codec,
            ..Self::default()
        }
    }

    /// Takes the input's type and answers the output type for a picture of this shape.
    pub(super) fn set_input(
        &mut self,
        input: &MediaType,
        shape: Shape,
        extra: &Extra,
    ) -> MediaType {
        let announced = output_type(input, shape, extra);
        self.input = Some(input.clone());
        self.announced = Some(announced.clone());
        announced
    }

    /// Accepts the announced type again; a decoder converts nothing.
    pub(super) fn set_output(&self, output: &MediaType) -> Result<()> {
        if output.subtype != Subtype::RAW_VIDEO {
            return Err(Error::invalid_type(
                output,
                "a video decoder makes raw pictures",
            ));
        }
        let Some(announced) = &self.announced else {
            return Err(Error::invalid_request("set_output before set_input"));
        };
        let same = |a: Option<PixelFormat>, b| a.is_none() || a == b;
        if !same(output.pixel_format(), announced.pixel_format())
            || output
                .frame_size()
                .is_some_and(|size| Some(size) != announced.frame_size())
        {
            return Err(Error::invalid_type(
                output,
                format!("the decoder makes {announced}; convert.picture makes others"),
            ));
        }
        Ok(())
    }

    /// Puts out one picture with the times, marks and attributes of `header`, announcing its type where it is new.
    pub(super) fn push(
        &mut self,
        mut header: Sample,
        shape: Shape,
        extra: &Extra,
        planes: &[Plane<'_>],
        output: &mut Output,
    ) -> Result<()> {
        output.limits().check_picture(shape.width, shape.height)?;
        let payload = self.copy(&header, shape, planes, output)?;
        let known = self.announced.as_ref().is_some_and(|announced| {
            announced.pixel_format() == Some(shape.format)
                && announced.frame_size() == Some((shape.width, shape.height))
        });
        if !known {
            let input = self.input.as_ref().ok_or_else(|| {
                Error::invalid_request("a decoder is given samples before its input type")
            })?;
            let media_type = output_type(input, shape, extra);
            self.announced = Some(media_type.clone());
            output.push_format(media_type);
        }
        header.payload = payload.into();
        header.decode_time = None;
        // An uncompressed picture depends on no other one.
        header.flags.key = true;
        output.push(header);
        Ok(())
    }

    fn copy(
        &self,
        header: &Sample,
        shape: Shape,
        planes: &[Plane<'_>],
        output: &Output,
    ) -> Result<SampleBuffer> {
        let short = || Error::undecodable(self.codec, header.time, "the decoded picture is short");
        let len = shape
            .format
            .picture_bytes(shape.width, shape.height)
            .ok_or_else(short)?;
        let mut buffer = output.allocate(len);
        let mut rest: &mut [u8] = &mut buffer;
        for (index, plane) in planes.iter().enumerate() {
            let (row, rows) = plane_geometry(shape, index);
            let (target, after) = std::mem::take(&mut rest)
                .split_at_mut_checked(row.saturating_mul(rows))
                .ok_or_else(short)?;
            rest = after;
            copy_plane(target, row, *plane).ok_or_else(short)?;
        }
        if rest.is_empty() {
            Ok(buffer)
        } else {
            Err(short())
        }
    }
}

/// Accepts a decoder's input type: of its codec, and clear.
pub(super) fn accept(input: &MediaType, subtype: Subtype) -> Result<()> {
    if input.subtype != subtype {
        return Err(Error::invalid_type(input, format!("not {subtype}")));
    }
    if input.is_protected() {
        // Some encrypted pictures would decode, to noise.
        return Err(Error::invalid_type(
            input,
            "its payloads are encrypted: a decrypter comes before the decoder",
        ));
    }
    Ok(())
}

/// What a bitstream says of its pictures besides their shape; the container's word goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extra {
    pub(super) pixel_aspect: Option<(u32, u32)>,
    pub(super) full_range: Option<bool>,
}

fn output_type(input: &MediaType, shape: Shape, extra: &Extra) -> MediaType {
    let mut output = MediaType::raw_video(shape.format, shape.width, shape.height);
    if let Some(aspect) = input.get(&keys::PIXEL_ASPECT).or(extra.pixel_aspect) {
        output.attributes.set(&keys::PIXEL_ASPECT, aspect);
    }
    if let Some(range) = input.get(&keys::FULL_RANGE).or(extra.full_range) {
        output.attributes.set(&keys::FULL_RANGE, range);
    }
    if let Some(rotation) = input.get(&keys::ROTATION) {
        output.attributes.set(&keys::ROTATION, rotation);
    }
    if let Some(rate) = input.get(&keys::FRAME_RATE) {
        output.attributes.set(&keys::FRAME_RATE, rate);
    }
    output
}

/// Bytes of a row and number of rows of a plane.
fn plane_geometry(shape: Shape, plane: usize) -> (usize, usize) {
    use PixelFormat as F;
    let (w, h) = (shape.width as usize, shape.height as usize);
    let bytes = match shape.format {
        F::I420P10 | F::I420P12 | F::I422P10 | F::I422P12 | F::I444P10 | F::I444P12 | F::Gray10 => {
            2
        }
        _ => 1,
    };
    if plane == 0 {
        return (w * bytes, h);
    }
    match shape.format {
        F::I420 | F::I420P10 | F::I420P12 => (w.div_ceil(2) * bytes, h.div_ceil(2)),
        F::I422 | F::I422P10 | F::I422P12 => (w.div_ceil(2) * bytes, h),
        _ => (w * bytes, h),
    }
}

/// Copies rows of `row` bytes; `None` where the source is too short.
fn copy_plane(target: &mut [u8], row: usize, plane: Plane<'_>) -> Option<()> {
    if row == 0 {
        return Some(());
    }
    if plane.stride == row {
        target.copy_from_slice(plane.bytes.get(..target.len())?);
        return Some(());
    }
    let mut at = 0usize;
    for line in target.chunks_exact_mut(row) {
        line.copy_from_slice(plane.bytes.get(at..at.checked_add(row)?)?);
        at = at.checked_add(plane.stride)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use portcullis_engine::MediaTime;
    use portcullis_engine::component::OutputItem;

    use super::*;

    fn writer() -> PictureWriter {
        let mut writer = PictureWriter::new("test");
        let input = MediaType::video(Subtype::named("test"), 4, 2).with(&keys::FRAME_RATE, (25, 1));
        let shape = Shape {
            format: PixelFormat::I420,
            width: 4,
            height: 2,
        };
        writer.set_input(&input, shape, &Extra::default());
        writer
    }

    #[test]
    fn padding_is_left_behind_and_a_new_size_is_announced() {
        let luma = [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0];
        let chroma = [10, 11, 12, 13];
        let mut output = Output::default();
        let shape = Shape {
            format: PixelFormat::I420,
            width: 3,
            height: 3,
        };
        let planes = [
            Plane {
                bytes: &luma,
                stride: 4,
            },
            Plane {
                bytes: &chroma,
                stride: 2,
            },
            Plane {
                bytes: &chroma,
                stride: 2,
            },
        ];
        let header = Sample::new(MediaTime::ZERO, MediaTime::ZERO, Vec::new());
        writer()
            .push(header, shape, &Extra::default(), &planes, &mut output)
            .expect("fits");
        let Some(OutputItem::Format(media_type)) = output.take() else {
            panic!("a format first")
        };
        assert_eq!(media_type.frame_size(), Some((3, 3)));
        assert_eq!(media_type.get(&keys::FRAME_RATE), Some((25, 1)));
        let picture = output.take_samples().remove(0).payload.to_bytes();
        assert_eq!(
            picture[..],
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 10, 11, 12, 13]
        );
    }

    #[test]
    fn a_short_plane_is_an_error() {
        let mut output = Output::default();
        let shape = Shape {
            format: PixelFormat::Gray8,
            width: 4,
            height: 2,
        };
        let planes = [Plane {
            bytes: &[0; 7],
            stride: 4,
        }];
        let header = Sample::new(MediaTime::ZERO, MediaTime::ZERO, Vec::new());
        assert!(
            writer()
                .push(header, shape, &Extra::default(), &planes, &mut output)
                .is_err()
        );
        assert!(output.is_empty());
    }
}
