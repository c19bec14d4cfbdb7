//! What the pipeline relies on, for each decoder: limits, marks, flush and drain.

use std::sync::Arc;

use portcullis_engine::component::OutputItem;
use portcullis_engine::media::HeapAllocator;
use portcullis_engine::{
    ContentLimits, ErrorKind, Key, MediaTime, Output, PixelFormat, Subtype, keys,
};

use super::{Clip, clip, decoder, media};

const MARK: Key<u64> = Key::new("mark");

fn clips() -> Option<Vec<Clip>> {
    let media = media()?;
    Some(vec![
        clip(&media, "mp4/tiny_prog.mp4", Subtype::H264),
        clip(&media, "mp4/vp9.mp4", Subtype::VP9),
        clip(&media, "mp4/av1_opus.mp4", Subtype::AV1),
    ])
}

#[test]
fn a_picture_beyond_the_limit_is_refused_before_it_is_made() {
    let Some(clips) = clips() else { return };
    for clip in clips {
        let limits = ContentLimits {
            max_pixels: 64 * 63,
            ..ContentLimits::default()
        };
        let mut output = Output::new(Arc::new(HeapAllocator), limits);
        let mut decoder = decoder(clip.media_type.subtype);
        decoder.set_input(&clip.media_type).expect("a whole type");
        let first = decoder
            .process(clip.samples[0].clone(), &mut output)
            .expect_err("too large");
        assert!(
            matches!(first.kind(), ErrorKind::LimitExceeded { .. }),
            "{first}"
        );
        for sample in &clip.samples[1..8] {
            assert!(decoder.process(sample.clone(), &mut output).is_err());
        }
        decoder.drain(&mut output).expect("nothing is held");
        assert!(output.is_empty());
    }
}

#[test]
fn marks_durations_and_attributes_stay_with_their_picture() {
    let Some(clips) = clips() else { return };
    for clip in clips {
        let mut decoder = decoder(clip.media_type.subtype);
        decoder.set_input(&clip.media_type).expect("a whole type");
        let mut output = Output::default();
        for sample in clip.samples.iter().take(12) {
            let mut sample = sample.clone();
            sample.flags.preroll = sample.time < MediaTime::from_millis(100);
            sample.flags.key = false;
            sample.duration = MediaTime::from_ticks(sample.time.ticks() + 7);
            sample
                .attributes
                .set(&MARK, sample.time.ticks().unsigned_abs());
            decoder.process(sample, &mut output).expect("decodes");
        }
        decoder.drain(&mut output).expect("drains");
        let samples = output.take_samples();
        assert_eq!(samples.len(), 12, "{}", clip.media_type);
        assert!(samples.is_sorted_by_key(|sample| sample.time));
        for sample in samples {
            assert_eq!(
                sample.flags.preroll,
                sample.time < MediaTime::from_millis(100)
            );
            assert_eq!(sample.duration.ticks(), sample.time.ticks() + 7);
            assert_eq!(
                sample.attributes.get(&MARK),
                Some(sample.time.ticks().unsigned_abs())
            );
            assert!(sample.flags.key && !sample.flags.corrupt);
        }
    }
}

#[test]
fn after_a_flush_nothing_of_before_comes_and_after_a_drain_everything_does() {
    let Some(clips) = clips() else { return };
    for clip in clips {
        let mut decoder = decoder(clip.media_type.subtype);
        decoder.set_input(&clip.media_type).expect("a whole type");
        let mut output = Output::default();
        let mut decode = |output: &mut Output, flush: bool| {
            for sample in &clip.samples[..8] {
                decoder.process(sample.clone(), output).expect("decodes");
            }
            if flush {
                decoder.flush();
                output.take_samples();
            } else {
                decoder.drain(output).expect("drains");
            }
        };
        decode(&mut output, true);
        decode(&mut output, false);
        let whole = output.take_samples();
        assert_eq!(whole.len(), 8);
        decode(&mut output, false);
        assert_eq!(output.take_samples(), whole, "again from the key picture");
        // Without its key picture nothing is decoded.
        decoder.flush();
        assert!(
            decoder
                .process(clip.samples[1].clone(), &mut output)
                .is_err()
        );
        assert!(output.is_empty());
    }
}

#[test]
fn a_stream_that_is_not_as_stated_is_announced() {
    let Some(clips) = clips() else { return };
    for mut clip in clips {
        clip.media_type.attributes.remove(&keys::PRIVATE_DATA);
        let stated = (16, 16);
        clip.media_type = clip.media_type.with(&keys::FRAME_SIZE, stated);
        if clip.media_type.subtype == Subtype::H264 {
            // Its parameter sets lie in the private data.
            continue;
        }
        let mut decoder = decoder(clip.media_type.subtype);
        let types = decoder.set_input(&clip.media_type).expect("any size");
        assert_eq!(types[0].frame_size(), Some(stated));
        let mut output = Output::default();
        decoder
            .process(clip.samples[0].clone(), &mut output)
            .expect("decodes");
        let Some(OutputItem::Format(media_type)) = output.take() else {
            panic!("a format before the first picture")
        };
        assert_eq!(media_type.frame_size(), Some((320, 180)));
        assert_eq!(media_type.pixel_format(), Some(PixelFormat::I420));
        assert_eq!(output.take_samples().len(), 1);
    }
}

#[test]
fn encrypted_and_foreign_input_is_refused() {
    let Some(clips) = clips() else { return };
    for clip in clips {
        let mut decoder = decoder(clip.media_type.subtype);
        let mut foreign = clip.media_type.clone();
        foreign.subtype = Subtype::HEVC;
        assert!(decoder.set_input(&foreign).is_err());
        let encrypted = clip.media_type.clone().with(&keys::PROTECTED, true);
        assert!(decoder.set_input(&encrypted).is_err());
        let types = decoder.set_input(&clip.media_type).expect("clear");
        decoder.set_output(&types[0]).expect("its own type");
        let packed = types[0]
            .clone()
            .with(&keys::PIXEL_FORMAT, PixelFormat::Rgb8);
        assert!(decoder.set_output(&packed).is_err());
    }
}
