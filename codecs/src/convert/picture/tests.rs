use portcullis_engine::component::OutputItem;
use portcullis_engine::{ContentLimits, ErrorKind, MediaTime};

use super::*;

const ALL: [PixelFormat; 14] = [
    PixelFormat::I420,
    PixelFormat::I420P10,
    PixelFormat::I420P12,
    PixelFormat::I422,
    PixelFormat::I422P10,
    PixelFormat::I422P12,
    PixelFormat::I444,
    PixelFormat::I444P10,
    PixelFormat::I444P12,
    PixelFormat::Gray8,
    PixelFormat::Gray10,
    PixelFormat::Nv12,
    PixelFormat::Rgb8,
    PixelFormat::Rgba8,
];

fn convert(input: &MediaType, output: &MediaType, payload: Vec<u8>) -> Result<Vec<u8>> {
    let mut converter = PictureConverter::new(PictureSettings::default())?;
    converter.set_input(input)?;
    converter.set_output(output)?;
    let mut target = Output::default();
    converter.process(
        Sample::new(MediaTime::ZERO, MediaTime::ZERO, payload),
        &mut target,
    )?;
    match target.take() {
        Some(OutputItem::Sample(sample)) => Ok(sample.payload.to_bytes().to_vec()),
        other => panic!("{other:?}"),
    }
}

/// A picture of one colour: luma, blue and red of 8 bits.
fn flat(format: PixelFormat, width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
    use PixelFormat as F;
    let planes = |depth: u32, chroma: usize| {
        let luma = (width * height) as usize;
        let mut bytes = Vec::new();
        for (value, count) in colour.into_iter().zip([luma, chroma, chroma]) {
            for _ in 0..count {
                let word = u16::from(value) << (depth - 8);
                bytes.extend_from_slice(&word.to_le_bytes()[..if depth > 8 { 2 } else { 1 }]);
            }
        }
        bytes
    };
    let (w, h) = (width as usize, height as usize);
    let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
    match format {
        F::I420 => planes(8, cw * ch),
        F::I420P10 => planes(10, cw * ch),
        F::I420P12 => planes(12, cw * ch),
        F::I422 => planes(8, cw * h),
        F::I422P10 => planes(10, cw * h),
        F::I422P12 => planes(12, cw * h),
        F::I444 => planes(8, w * h),
        F::I444P10 => planes(10, w * h),
        F::I444P12 => planes(12, w * h),
        F::Gray8 => planes(8, 0),
        F::Gray10 => planes(10, 0),
        F::Nv12 => {
            let mut bytes = vec![colour[0]; w * h];
            bytes.extend([colour[1], colour[2]].repeat(cw * ch));
            bytes
        }
        F::Rgb8 => [90, 120, 150].repeat(w * h),
        F::Rgba8 => [90, 120, 150, 255].repeat(w * h),
        other => panic!("{other}"),
    }
}

#[test]
fn every_layout_becomes_every_target_at_every_size() {
    for from in ALL {
        for to in TARGETS {
            for size in [(16, 8), (7, 5), (1, 1), (33, 17)] {
                let input = MediaType::raw_video(from, 16, 8);
                let output = MediaType::raw_video(to, size.0, size.1);
                let picture = convert(&input, &output, flat(from, 16, 8, [100, 128, 128]))
                    .unwrap_or_else(|error| panic!("{from} to {to} {size:?}: {error}"));
                assert_eq!(Some(picture.len()), to.picture_bytes(size.0, size.1));
                let odd = MediaType::raw_video(from, 5, 3);
                let picture = convert(&odd, &output, flat(from, 5, 3, [100, 128, 128]))
                    .unwrap_or_else(|error| panic!("odd {from} to {to} {size:?}: {error}"));
                assert_eq!(Some(picture.len()), to.picture_bytes(size.0, size.1));
            }
        }
    }
}

#[test]
fn a_flat_picture_keeps_its_colour_through_depth_chroma_and_size() {
    let colour = [81, 90, 240];
    for from in &ALL[..9] {
        let input = MediaType::raw_video(*from, 16, 8);
        let payload = flat(*from, 16, 8, colour);
        let output = MediaType::raw_video(PixelFormat::I420, 20, 12);
        let picture = convert(&input, &output, payload.clone()).expect("converted");
        assert_eq!(picture, flat(PixelFormat::I420, 20, 12, colour), "{from}");
        // BT.601 red.
        let output = MediaType::raw_video(PixelFormat::Rgb8, 16, 8);
        let picture = convert(&input, &output, payload).expect("converted");
        for pixel in picture.chunks_exact(3) {
            assert!(
                pixel[0] >= 253 && pixel[1] <= 2 && pixel[2] <= 2,
                "{from} {pixel:?}"
            );
        }
    }
}

#[test]
fn the_matrix_follows_the_size_and_the_range_its_flag() {
    let red = [63, 102, 240];
    let large = MediaType::raw_video(PixelFormat::I420, 1280, 720);
    let rgb = MediaType::raw_video(PixelFormat::Rgb8, 1280, 720);
    let picture = convert(&large, &rgb, flat(PixelFormat::I420, 1280, 720, red)).expect("709");
    assert!(picture[0] >= 253 && picture[1] <= 2 && picture[2] <= 2);
    let full = MediaType::raw_video(PixelFormat::I420, 2, 2).with(&keys::FULL_RANGE, true);
    let rgb = MediaType::raw_video(PixelFormat::Rgb8, 2, 2);
    let grey = flat(PixelFormat::I420, 2, 2, [16, 128, 128]);
    assert_eq!(convert(&full, &rgb, grey.clone()).expect("full")[0], 16);
    let limited = MediaType::raw_video(PixelFormat::I420, 2, 2);
    assert_eq!(convert(&limited, &rgb, grey).expect("limited")[0], 0);
}

#[test]
fn there_and_back_through_rgba_stays_near() {
    let yuv = MediaType::raw_video(PixelFormat::Nv12, 8, 8);
    let rgba = MediaType::raw_video(PixelFormat::Rgba8, 8, 8);
    let picture = flat(PixelFormat::Nv12, 8, 8, [120, 100, 150]);
    let there = convert(&yuv, &rgba, picture.clone()).expect("there");
    let back = convert(&rgba, &yuv, there).expect("back");
    for (a, b) in picture.iter().zip(&back) {
        assert!(a.abs_diff(*b) <= 2, "{a} {b}");
    }
}

#[test]
fn the_offer_follows_the_settings_and_keeps_the_shape() {
    let mut converter = PictureConverter::new(PictureSettings {
        format: Some(PixelFormat::Rgba8),
        size: Some((320, 240)),
        ..PictureSettings::default()
    })
    .expect("new");
    let input = MediaType::raw_video(PixelFormat::I420P10, 640, 240)
        .with(&keys::FRAME_RATE, (25, 1))
        .with(&keys::FULL_RANGE, true);
    let types = converter.set_input(&input).expect("raw");
    assert_eq!(types[0].pixel_format(), Some(PixelFormat::Rgba8));
    assert_eq!(types[0].frame_size(), Some((320, 240)));
    assert_eq!(types[0].get(&keys::PIXEL_ASPECT), Some((2, 1)));
    assert_eq!(types[0].get(&keys::FRAME_RATE), Some((25, 1)));
    assert_eq!(types[0].get(&keys::FULL_RANGE), None);
    assert_eq!(types[1].get(&keys::FULL_RANGE), Some(true));
    assert_eq!(types.len(), 4);
}

#[test]
fn what_cannot_be_is_refused() {
    let mut converter = PictureConverter::new(PictureSettings::default()).expect("new");
    let input = MediaType::raw_video(PixelFormat::I420, 8, 8);
    assert!(
        converter
            .set_input(&MediaType::video(Subtype::H264, 8, 8))
            .is_err()
    );
    assert!(
        converter
            .set_input(&MediaType::raw_video(PixelFormat::I420, 0, 8))
            .is_err()
    );
    converter.set_input(&input).expect("raw");
    let deep = MediaType::raw_video(PixelFormat::I420P10, 8, 8);
    assert!(converter.set_output(&deep).is_err());
    let huge = MediaType::raw_video(PixelFormat::Rgba8, 60_000, 60_000);
    assert!(converter.set_output(&huge).is_err());
    let wide = MediaType::raw_video(PixelFormat::Rgba8, 2000, 2000);
    converter.set_output(&wide).expect("possible");
    let limits = ContentLimits {
        max_pixels: 1000,
        ..ContentLimits::default()
    };
    let heap = std::sync::Arc::new(portcullis_engine::media::HeapAllocator);
    let mut output = Output::new(heap, limits);
    let sample = Sample::new(MediaTime::ZERO, MediaTime::ZERO, vec![0; 96]);
    let error = converter.process(sample, &mut output).expect_err("limit");
    assert!(matches!(error.kind(), ErrorKind::LimitExceeded { .. }));
    let short = Sample::new(MediaTime::ZERO, MediaTime::ZERO, vec![0; 95]);
    assert!(converter.process(short, &mut output).is_err());
}

#[test]
fn what_was_asked_for_outlives_a_change_of_the_input() -> Result<()> {
    let i420 = |width, height| MediaType::raw_video(PixelFormat::I420, width, height);
    let shape = |t: &MediaType| (t.pixel_format(), t.frame_size());
    // As a pipeline does: the first input's output is asked for, those of later ones are what is offered first.
    let run = |wanted: MediaType, changes: &[MediaType]| -> Result<Vec<_>> {
        let mut converter = PictureConverter::new(PictureSettings::default())?;
        converter.set_input(&i420(320, 240))?;
        converter.set_output(&wanted)?;
        let mut shapes = Vec::new();
        for change in changes {
            let first = converter.set_input(change)?.swap_remove(0);
            converter.set_output(&first)?;
            let (width, height) = change.frame_size().expect("a picture");
            let format = change.pixel_format().expect("a picture");
            let payload = flat(format, width, height, [90, 128, 128]);
            let mut target = Output::default();
            let sample = Sample::new(MediaTime::ZERO, MediaTime::ZERO, payload);
            converter.process(sample, &mut target)?;
            let made = target.take_samples().swap_remove(0);
            assert_eq!(Some(made.len()), Picture::of(&first).map(|p| p.bytes()));
            shapes.push(shape(&first));
        }
        Ok(shapes)
    };
    let changes = [
        i420(160, 120),
        // What was asked for already: the change behind it is converted again.
        i420(200, 150),
        MediaType::raw_video(PixelFormat::Rgb8, 200, 150),
        i420(320, 240),
    ];
    let sized = |format| (Some(format), Some((200, 150)));
    assert_eq!(
        run(i420(200, 150), &changes)?,
        [
            sized(PixelFormat::I420),
            sized(PixelFormat::I420),
            sized(PixelFormat::Rgb8),
            sized(PixelFormat::I420),
        ]
    );
    // A layout alone: the sizes are passed on.
    let rgb = MediaType::raw_video(PixelFormat::Rgb8, 320, 240);
    let expected: Vec<_> = changes
        .iter()
        .map(|change| (Some(PixelFormat::Rgb8), change.frame_size()))
        .collect();
    assert_eq!(run(rgb, &changes)?, expected);
    // Nothing: all is passed on.
    let expected: Vec<_> = changes.iter().map(shape).collect();
    assert_eq!(run(i420(320, 240), &changes)?, expected);
    Ok(())
}
