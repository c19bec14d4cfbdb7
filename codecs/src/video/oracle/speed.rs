//! Figures, not claims: how long a whole clip takes, with the copy into the output samples.
//! `cargo test --release -p portcullis-codecs speed -- --ignored --nocapture`

use std::time::{Duration, Instant};

use portcullis_engine::{Output, Subtype};

use super::{Clip, clip, decoder, media};

fn once(clip: &Clip) -> (Duration, usize) {
    let mut decoder = decoder(clip.media_type.subtype);
    decoder.set_input(&clip.media_type).expect("a whole type");
    let mut output = Output::default();
    let mut pictures = 0;
    let start = Instant::now();
    for sample in &clip.samples {
        decoder
            .process(sample.clone(), &mut output)
            .expect("decodes");
        pictures += output.take_samples().len();
    }
    decoder.drain(&mut output).expect("drains");
    pictures += output.take_samples().len();
    (start.elapsed(), pictures)
}

#[test]
#[ignore = "prints figures"]
fn speed_of_whole_clips() {
    let Some(media) = media() else { return };
    for (name, subtype) in [
        ("mp4/h264_hd.mp4", Subtype::H264),
        ("third_party/exo/sample.mp4", Subtype::H264),
        ("mp4/h264main_aac_prog_faststart.mp4", Subtype::H264),
        ("third_party/exo/sample_av1.mp4", Subtype::AV1),
        ("mp4/av1_opus.mp4", Subtype::AV1),
        ("mp4/vp9.mp4", Subtype::VP9),
        ("third_party/exo/bear-vp9.webm", Subtype::VP9),
    ] {
        let clip = clip(&media, name, subtype);
        let (best, pictures) = (0..7)
            .map(|_| once(&clip))
            .min_by_key(|(time, _)| *time)
            .expect("seven runs");
        println!(
            "{name}: {pictures} pictures, {:.1} ms, {:.0} pictures/s",
            best.as_secs_f64() * 1e3,
            pictures as f64 / best.as_secs_f64()
        );
    }
}
