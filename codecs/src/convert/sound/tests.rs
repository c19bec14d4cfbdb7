use std::f64::consts::TAU;

use super::*;

fn sine(rate: u32, channels: usize, frames: usize, hertz: f64) -> Vec<u8> {
    (0..frames)
        .flat_map(|frame| {
            let value = (TAU * hertz * frame as f64 / f64::from(rate)).sin() as f32 * 0.5;
            std::iter::repeat_n(value, channels).flat_map(f32::to_le_bytes)
        })
        .collect()
}

fn convert(input: &MediaType, output: &MediaType, payloads: &[Vec<u8>]) -> Vec<Sample> {
    let mut converter = SoundConverter::new(SoundSettings::default()).expect("new");
    converter.set_input(input).expect("PCM");
    converter.set_output(output).expect("possible");
    let from = Sound::of(input).expect("PCM");
    let mut target = Output::default();
    let mut frames = 0;
    for payload in payloads {
        let time = from.time_of(frames);
        frames += (payload.len() / from.frame_bytes()) as u64;
        let sample = Sample::new(time, from.time_of(frames) - time, payload.clone());
        converter.process(sample, &mut target).expect("converted");
    }
    converter.drain(&mut target).expect("drained");
    target.take_samples()
}

fn floats(samples: &[Sample]) -> Vec<f32> {
    samples
        .iter()
        .flat_map(|sample| to_float(&sample.payload.to_bytes(), SampleFormat::F32))
        .collect()
}

#[test]
fn integers_widen_exactly_and_come_back() {
    let values: Vec<i16> = vec![i16::MIN, -1, 0, 1, 12_345, i16::MAX];
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let s16 = MediaType::audio(Subtype::PCM_S16, 48_000, 1);
    for wide in [Subtype::PCM_S24, Subtype::PCM_S32, Subtype::PCM_F32] {
        let wide = MediaType::audio(wide, 48_000, 1);
        let there = convert(&s16, &wide, std::slice::from_ref(&bytes));
        let back = convert(&wide, &s16, &[there[0].payload.to_bytes().to_vec()]);
        assert_eq!(back[0].payload.to_bytes()[..], bytes, "{wide}");
    }
    let u8 = MediaType::audio(Subtype::PCM_U8, 48_000, 1);
    let narrow = convert(&s16, &u8, &[bytes]);
    assert_eq!(
        narrow[0].payload.to_bytes()[..],
        [0, 128, 128, 128, 176, 255]
    );
}

#[test]
fn floats_clip_and_what_is_no_number_is_silence() {
    let values = [2.0f32, -2.0, f32::NAN, f32::INFINITY, 0.5];
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let f32 = MediaType::audio(Subtype::PCM_F32, 8_000, 1);
    let s16 = MediaType::audio(Subtype::PCM_S16, 8_000, 1);
    let clipped = convert(&f32, &s16, &[bytes]);
    let expected: Vec<u8> = [i16::MAX, i16::MIN, 0, 0, 16_384]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    assert_eq!(clipped[0].payload.to_bytes()[..], expected);
}

#[test]
fn resampled_sound_is_aligned_and_as_long_as_it_must_be() {
    for (from, to) in [
        (44_100, 48_000),
        (48_000, 44_100),
        (8_000, 48_000),
        (96_000, 16_000),
        (22_050, 44_100),
        (44_101, 48_000),
    ] {
        for total in [1usize, 1_000, 10_007] {
            let input = MediaType::audio(Subtype::PCM_F32, from, 2);
            let output = MediaType::audio(Subtype::PCM_F32, to, 2);
            let whole = sine(from, 2, total, 440.0);
            let payloads: Vec<_> = whole.chunks(8 * 313).map(<[u8]>::to_vec).collect();
            let samples = convert(&input, &output, &payloads);
            let values = floats(&samples);
            let frames = (total as u64 * u64::from(to)).div_ceil(u64::from(from));
            assert_eq!(values.len() as u64, 2 * frames, "{from} to {to}, {total}");
            let mut at = MediaTime::ZERO;
            for sample in &samples {
                assert_eq!(sample.time, at);
                at = sample.end_time();
            }
            // Away from the edges the tone is the same, at the same place.
            let edge = frames / 4;
            for frame in edge..frames - edge {
                let expected = (TAU * 440.0 * frame as f64 / f64::from(to)).sin() * 0.5;
                let value = f64::from(values[2 * frame as usize]);
                let inside = total > 5_000;
                assert!(
                    !inside || (value - expected).abs() < 2e-3,
                    "{from} to {to}: frame {frame} is {value}, expected {expected}"
                );
            }
        }
    }
}

#[test]
fn a_jump_in_time_starts_another_run_at_its_own_time() {
    let input = MediaType::audio(Subtype::PCM_F32, 44_100, 1);
    let output = MediaType::audio(Subtype::PCM_F32, 48_000, 1);
    let mut converter = SoundConverter::new(SoundSettings::default()).expect("new");
    converter.set_input(&input).expect("PCM");
    converter.set_output(&output).expect("possible");
    let mut target = Output::default();
    for seconds in [0, 10] {
        let time = MediaTime::from_secs(seconds);
        let mut sample = Sample::new(time, MediaTime::ZERO, sine(44_100, 1, 4_410, 440.0));
        sample.flags.preroll = seconds == 0;
        converter.process(sample, &mut target).expect("converted");
    }
    converter.drain(&mut target).expect("drained");
    let samples = target.take_samples();
    for (start, preroll) in [(0, true), (10, false)] {
        let run: Vec<_> = samples
            .iter()
            .filter(|sample| sample.flags.preroll == preroll)
            .cloned()
            .collect();
        assert_eq!(run[0].time, MediaTime::from_secs(start));
        assert_eq!(floats(&run).len(), 4_800);
    }
}

#[test]
fn surround_folds_by_the_standard_without_clipping() {
    let surround = MediaType::audio(Subtype::PCM_F32, 48_000, 6);
    let stereo = MediaType::audio(Subtype::PCM_F32, 48_000, 2);
    let frame = |values: [f32; 6]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
    const HALF_POWER: f32 = std::f32::consts::FRAC_1_SQRT_2;
    let whole: f32 = 1.0 + 2.0 * HALF_POWER;
    for (input, left, right) in [
        ([1.0, 0.0, 0.0, 0.0, 0.0, 0.0], 1.0, 0.0),
        ([0.0, 0.0, 1.0, 0.0, 0.0, 0.0], HALF_POWER, HALF_POWER),
        ([0.0, 0.0, 0.0, 1.0, 0.0, 0.0], 0.0, 0.0),
        ([0.0, 0.0, 0.0, 0.0, 0.0, 1.0], 0.0, HALF_POWER),
        ([1.0; 6], whole, whole),
    ] {
        let mixed = floats(&convert(&surround, &stereo, &[frame(input)]));
        assert!(
            (mixed[0] * whole - left).abs() < 1e-5,
            "{input:?} {mixed:?}"
        );
        assert!(
            (mixed[1] * whole - right).abs() < 1e-5,
            "{input:?} {mixed:?}"
        );
    }
    let mono = MediaType::audio(Subtype::PCM_F32, 48_000, 1);
    let both: Vec<u8> = [0.5f32, 0.25]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    assert_eq!(floats(&convert(&stereo, &mono, &[both])), [0.375]);
    let one = 0.5f32.to_le_bytes().to_vec();
    assert_eq!(floats(&convert(&mono, &stereo, &[one])), [0.5, 0.5]);
}

#[test]
fn every_count_of_channels_mixes_without_clipping() {
    for inputs in 1..=16 {
        for outputs in 1..=16 {
            let mixed = Mix::new(inputs, outputs).apply(&vec![1.0; inputs]);
            assert_eq!(mixed.len(), outputs);
            assert!(mixed.iter().all(|value| (0.0..=1.000_01).contains(value)));
            assert!(mixed.iter().any(|value| *value > 0.0));
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let mut converter = SoundConverter::new(SoundSettings::default()).expect("new");
    let pcm = |rate, channels| MediaType::audio(Subtype::PCM_S16, rate, channels);
    assert!(
        converter
            .set_input(&MediaType::audio(Subtype::AAC, 48_000, 2))
            .is_err()
    );
    assert!(converter.set_input(&pcm(0, 2)).is_err());
    assert!(converter.set_input(&pcm(48_000, 0)).is_err());
    assert!(converter.set_input(&pcm(48_000, 65)).is_err());
    converter
        .set_input(&pcm(u32::MAX, 2))
        .expect("no resampling yet");
    assert!(converter.set_output(&pcm(48_000, 2)).is_err());
    let settings = SoundSettings {
        rate: Some(1),
        ..SoundSettings::default()
    };
    assert!(SoundConverter::new(settings).is_err());
}

#[test]
fn the_offer_follows_the_settings() {
    let mut converter = SoundConverter::new(SoundSettings {
        format: Some(SampleFormat::S16),
        rate: Some(16_000),
        channels: Some(1),
    })
    .expect("new");
    let input = MediaType::audio(Subtype::PCM_F32, 44_100, 2).with(&keys::BITS, 32);
    let types = converter.set_input(&input).expect("PCM");
    assert_eq!(types[0], MediaType::audio(Subtype::PCM_S16, 16_000, 1));
    assert_eq!(types.len(), 5);
}

#[test]
fn what_was_asked_for_outlives_a_change_of_the_input() -> Result<()> {
    let f32 = |rate, channels| MediaType::audio(Subtype::PCM_F32, rate, channels);
    let changes = [f32(44_100, 1), f32(22_050, 2), f32(48_000, 6)];
    let run = |wanted: MediaType| -> Result<Vec<_>> {
        let mut converter = SoundConverter::new(SoundSettings::default())?;
        converter.set_input(&f32(48_000, 1))?;
        converter.set_output(&wanted)?;
        let mut made = Vec::new();
        for change in &changes {
            let first = converter.set_input(change)?.swap_remove(0);
            converter.set_output(&first)?;
            let channels = change.channels().unwrap_or(0) as usize;
            let mut target = Output::default();
            let payload = sine(48_000, channels, 4_410, 440.0);
            let sample = Sample::new(MediaTime::ZERO, MediaTime::ZERO, payload);
            converter.process(sample, &mut target)?;
            converter.drain(&mut target)?;
            let sound = Sound::of(&first).expect("PCM");
            let rate = u64::from(change.sample_rate().unwrap_or(0));
            let bytes: usize = target.take_samples().iter().map(Sample::len).sum();
            let frames = (4_410 * u64::from(sound.rate)).div_ceil(rate);
            assert_eq!(bytes, frames as usize * sound.frame_bytes());
            made.push((sound.format, sound.rate, sound.channels));
        }
        Ok(made)
    };
    // A format alone: rates and channels are passed on.
    let s16 = SampleFormat::S16;
    assert_eq!(
        run(MediaType::audio(Subtype::PCM_S16, 48_000, 1))?,
        [(s16, 44_100, 1), (s16, 22_050, 2), (s16, 48_000, 6)]
    );
    // All: the second change has the rate and the channels that were asked for, and the third is converted again.
    assert_eq!(
        run(MediaType::audio(Subtype::PCM_S16, 22_050, 2))?,
        [(s16, 22_050, 2); 3]
    );
    // Nothing: all is passed on.
    let f32 = SampleFormat::F32;
    assert_eq!(
        run(MediaType::audio(Subtype::PCM_F32, 48_000, 1))?,
        [(f32, 44_100, 1), (f32, 22_050, 2), (f32, 48_000, 6)]
    );
    Ok(())
}
