//! The forms in which samples are wanted, positions, and limits.

use futures::{StreamExt, TryStreamExt};
use portcullis::{
    ContentLimits, Error, ErrorKind, MediaTime, PictureFormat, PixelFormat, Result, SampleFormat,
    SoundFormat, SourceReader, StreamOutput, StreamSelector,
};

use super::{expected, hashes};
use crate::support::{Place, media, run};

async fn open(place: Place) -> SourceReader {
    place.open(media::clip()).open().await.unwrap()
}

#[test]
fn pictures_come_in_the_layout_and_size_that_is_asked_for() {
    run(async {
        let (video, full, half) = (StreamSelector::FIRST_VIDEO, 320 * 180, 160 * 90);
        let cases = [
            (Some(PixelFormat::Nv12), None, full * 3 / 2),
            (Some(PixelFormat::Rgb8), None, full * 3),
            (Some(PixelFormat::Rgba8), None, full * 4),
            (None, Some((160, 90)), half * 3 / 2),
            (Some(PixelFormat::Rgb8), Some((160, 90)), half * 3),
        ];
        for place in Place::ALL {
            for (pixel_format, size, bytes) in cases {
                let reader = open(place).await;
                let format = PictureFormat { pixel_format, size };
                let mut samples = reader
                    .samples(StreamOutput::picture(video, format))
                    .await
                    .unwrap();
                let first = samples.try_next().await.unwrap().unwrap();
                assert_eq!(first.len(), bytes, "{place:?} {format:?}");
                let got = samples.media_type();
                assert_eq!(
                    got.frame_size(),
                    size.or(Some((320, 180))),
                    "{place:?} {format:?}"
                );
                assert_eq!(
                    got.pixel_format(),
                    pixel_format.or(Some(PixelFormat::I420)),
                    "{place:?} {format:?}"
                );
                assert_eq!(samples.count().await, 89, "{place:?} {format:?}");
            }
        }
    });
}

#[test]
fn sound_comes_in_the_format_rate_and_channels_that_are_asked_for() {
    run(async {
        for place in Place::ALL {
            let reader = open(place).await;
            let format = SoundFormat {
                sample_format: Some(SampleFormat::S16),
                sample_rate: Some(16_000),
                channels: Some(1),
            };
            let mut samples = reader
                .samples(StreamOutput::sound(StreamSelector::FIRST_AUDIO, format))
                .await
                .unwrap();
            let (mut bytes, mut loudest) = (0, 0);
            while let Some(sample) = samples.try_next().await.unwrap() {
                bytes += sample.len();
                let values = sample.payload.to_bytes();
                let values = values
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|pair| i16::from_le_bytes(*pair).unsigned_abs());
                loudest = values.fold(loudest, u16::max);
            }
            assert_eq!(samples.media_type().sample_rate(), Some(16_000));
            assert_eq!(samples.media_type().channels(), Some(1));
            // Three seconds, and what the filter needs at its ends.
            assert!(
                (3 * 16_000_usize).abs_diff(bytes / 2) < 400,
                "{place:?}: {} frames",
                bytes / 2
            );
            assert!(loudest > 1000, "{place:?}: {loudest}");
        }
    });
}

#[test]
fn compressed_samples_are_those_of_the_file() {
    run(async {
        let mut all = Vec::new();
        for place in Place::ALL {
            let reader = open(place).await;
            let samples = reader
                .samples(StreamOutput::compressed(StreamSelector::FIRST_VIDEO))
                .await
                .unwrap();
            all.push(hashes(samples).await.unwrap());
        }
        assert_eq!(all[0].len(), 90);
        assert!(all.iter().all(|other| *other == all[0]));
    });
}

#[test]
fn several_streams_are_read_at_their_own_pace() {
    run(async {
        for place in Place::ALL {
            let reader = open(place).await;
            let both = vec![
                StreamSelector::FIRST_VIDEO.into(),
                StreamSelector::FIRST_AUDIO.into(),
            ];
            let mut streams = reader.streams(both, None).await.unwrap().into_iter();
            let (video, audio) = (streams.next().unwrap(), streams.next().unwrap());
            // One after the other: what is not taken is held back.
            assert!(audio.count().await > 100, "{place:?}");
            assert_eq!(hashes(video).await.unwrap(), expected(), "{place:?}");
        }
    });
}

#[test]
fn a_position_is_where_reading_goes_on() {
    run(async {
        for place in Place::ALL {
            let reader = open(place).await;
            let from = Some(MediaTime::from_secs(2));
            let mut samples = reader
                .samples_from(StreamSelector::FIRST_VIDEO, from)
                .await
                .unwrap();
            let first = samples.try_next().await.unwrap().unwrap();
            assert_eq!(first.time, MediaTime::from_secs(2), "{place:?}");
            samples.seek(MediaTime::from_secs(1)).await.unwrap();
            assert_eq!(
                hashes(samples).await.unwrap(),
                expected()[30..],
                "{place:?}"
            );
            let beyond = reader
                .samples_from(StreamSelector::FIRST_VIDEO, Some(MediaTime::from_secs(100)))
                .await;
            let beyond = beyond.expect_err("beyond the end");
            assert!(
                matches!(beyond.kind(), ErrorKind::InvalidPosition { .. }),
                "{place:?}: {beyond}"
            );
        }
    });
}

#[test]
fn shared_views_show_the_same_pictures() {
    run(async {
        for place in Place::ALL {
            let reader = place
                .open(media::clip())
                .shared_views()
                .open()
                .await
                .unwrap();
            let samples = reader.samples(StreamSelector::FIRST_VIDEO).await.unwrap();
            assert_eq!(hashes(samples).await.unwrap(), expected(), "{place:?}");
        }
    });
}

/// What reading the clip's pictures with these limits ends with.
async fn limited(place: Place, limits: ContentLimits) -> Result<usize> {
    let reader = place.open(media::clip()).limits(limits).open().await?;
    let samples = reader.samples(StreamSelector::FIRST_VIDEO).await?;
    hashes(samples).await.map(|all| all.len())
}

#[test]
fn limits_hold_in_every_placement() {
    let safe = ContentLimits::default();
    let cases = [
        (
            "pixels",
            ContentLimits {
                max_pixels: 1000,
                ..safe
            },
        ),
        (
            "tracks",
            ContentLimits {
                max_tracks: 1,
                ..safe
            },
        ),
        (
            "duration",
            ContentLimits {
                max_duration: MediaTime::from_secs(1),
                ..safe
            },
        ),
        (
            "output bytes",
            ContentLimits {
                max_output_bytes: 1 << 20,
                ..safe
            },
        ),
        (
            "samples",
            ContentLimits {
                max_samples: 30,
                ..safe
            },
        ),
        (
            "sample bytes",
            ContentLimits {
                max_sample_bytes: 100,
                ..safe
            },
        ),
        (
            "header bytes",
            ContentLimits {
                max_header_bytes: 100,
                ..safe
            },
        ),
    ];
    run(async {
        for place in Place::ALL {
            for (what, limits) in cases {
                let error: Error = limited(place, limits).await.expect_err(what);
                assert!(
                    matches!(error.kind(), ErrorKind::LimitExceeded { limit, .. } if limit.contains(what)),
                    "{place:?} {what}: {error:?}"
                );
                assert!(
                    error.to_string().contains("clip.mp4"),
                    "{place:?} {what}: {error}"
                );
            }
            assert_eq!(limited(place, safe).await, Ok(90));
        }
    });
}

#[test]
fn one_reader_reads_as_often_as_it_likes() {
    run(async {
        for place in Place::ALL {
            let reader = open(place).await;
            for round in 0..3 {
                let samples = reader.samples(StreamSelector::FIRST_VIDEO).await;
                let samples =
                    samples.unwrap_or_else(|error| panic!("{place:?} round {round}: {error}"));
                assert_eq!(
                    hashes(samples).await.unwrap(),
                    expected(),
                    "{place:?} round {round}"
                );
            }
            // One that is left half way does not disturb the next.
            let mut half = reader.samples(StreamSelector::FIRST_VIDEO).await.unwrap();
            assert!(half.try_next().await.unwrap().is_some());
            drop(half);
            let samples = reader.samples(StreamSelector::FIRST_VIDEO).await.unwrap();
            assert_eq!(hashes(samples).await.unwrap(), expected(), "{place:?}");
        }
    });
}
