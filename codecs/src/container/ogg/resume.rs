//! Sound after going to a position is what it is there in a run from the beginning: the preroll is long enough.
#![allow(clippy::unwrap_used, reason = "tests")]

use portcullis_engine::component::{Confidence, Hints, OutputItem};
use portcullis_engine::{
    MajorType, MediaSource, MediaTime, Output, Registry, Role, Settings, StreamId, Transform,
};

use super::oracle;
use super::position::IsBefore;

fn registry() -> Registry {
    let mut registry = Registry::new();
    crate::register(&mut registry);
    registry
}

fn open(registry: &Registry, file: &str) -> Box<dyn MediaSource> {
    let bytes = oracle::read(file);
    let (_, handler) = registry
        .candidates(|info| info.role == Role::ByteStreamHandler)
        .iter()
        .map(|entry| {
            let class = entry.info().class;
            let handler = registry
                .create_byte_stream_handler(class, &Settings::default())
                .unwrap();
            (
                handler.probe(&bytes[..bytes.len().min(4096)], &Hints::default()),
                handler,
            )
        })
        .max_by_key(|(confidence, _)| *confidence)
        .filter(|(confidence, _)| *confidence == Confidence::Sure)
        .unwrap();
    let input = portcullis_engine::component::MemorySource::new(bytes);
    handler.open(Box::new(input), &Default::default()).unwrap()
}

/// Decoded sound as times of whole output samples and their bytes.
fn decode(
    source: &mut dyn MediaSource,
    decoder: &mut dyn Transform,
    id: StreamId,
    position: MediaTime,
) -> Vec<(MediaTime, Vec<u8>)> {
    source.start(&[id], Some(position)).unwrap();
    decoder.flush();
    let mut output = Output::default();
    let mut sound = Vec::new();
    while let Some((_, sample)) = source.read().unwrap() {
        decoder.process(sample, &mut output).unwrap();
        while let Some(item) = output.take() {
            if let OutputItem::Sample(sample) = item
                && !sample.flags.preroll
            {
                assert!(!sample.is_before(position), "{} at {position}", sample.time);
                sound.push((sample.time, sample.payload.to_bytes().to_vec()));
            }
        }
    }
    sound
}

/// The greatest difference of two runs of 32-bit floats, or of anything else as 0 or 1.
fn difference(a: &[u8], b: &[u8], float: bool) -> f32 {
    if !float {
        return f32::from(u8::from(a != b));
    }
    assert_eq!(a.len(), b.len());
    let values = |bytes: &[u8]| -> Vec<f32> {
        let value = |four: &[u8]| f32::from_le_bytes(four.try_into().unwrap());
        bytes.chunks_exact(4).map(value).collect()
    };
    let pairs = values(a).into_iter().zip(values(b));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn sound_at_a_position_is_that_of_a_run_from_the_beginning() {
    if oracle::media().is_none() {
        return;
    }
    let registry = registry();
    for file in [
        "audio/vorbis.ogg",
        "audio/opus.opus",
        "audio/opus_silk_mono.opus",
        "audio/flac_in_ogg.oga",
        "mkv/vp8_vorbis.webm",
        "mkv/vp9_opus.webm",
        "mkv/h264_aac.mkv",
        "mkv/flac_only.mka",
        "mkv/multi_audio_srt.mkv",
    ] {
        let mut source = open(&registry, file);
        let stream = source
            .presentation()
            .streams
            .iter()
            .rfind(|stream| stream.major() == MajorType::Audio)
            .unwrap()
            .clone();
        let class = registry
            .candidates(|info| info.role == Role::Decoder && info.takes(stream.media_type.subtype))
            .first()
            .unwrap()
            .info()
            .class;
        let mut decoder = registry
            .create_transform(class, &Settings::default())
            .unwrap();
        let types = decoder.set_input(&stream.media_type).unwrap();
        decoder.set_output(&types[0]).unwrap();
        let whole = decode(&mut *source, &mut *decoder, stream.id, MediaTime::ZERO);
        let float = types[0].subtype.name() == "pcm_f32le";
        // Opus' preroll makes the difference small, not nothing.
        let allowed = if stream.media_type.subtype.name() == "opus" {
            2e-2
        } else {
            1e-6
        };
        for millis in [300, 777, 1001, 1500, 1777] {
            let position = MediaTime::from_millis(millis).min(whole.last().unwrap().0);
            let after = decode(&mut *source, &mut *decoder, stream.id, position);
            let rest = &whole[whole.len() - after.len()..];
            let mut worst = 0_f32;
            for ((time, a), (expected, b)) in after.iter().zip(rest) {
                assert_eq!(time, expected, "{file} at {position}");
                worst = worst.max(difference(a, b, float));
            }
            assert!(worst <= allowed, "{file} at {position}: {worst}");
            let first = after.first().unwrap().0;
            assert!(
                first <= position + MediaTime::from_millis(1),
                "{file} at {position}: {first}"
            );
        }
    }
}
