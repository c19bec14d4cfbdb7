//! Everything that can be an input.

use std::io::{self, Cursor};

use bytes::Bytes;
use futures::stream;
use portcullis::{ErrorKind, Input};

use super::{clip_bytes, expected, pictures};
use crate::support::{Place, media, run};

/// A body in pieces of odd sizes, as a network gives it.
pub(super) fn body(bytes: Bytes) -> Input {
    let pieces: Vec<io::Result<Bytes>> = bytes
        .chunks(7919)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    Input::stream(stream::iter(pieces))
}

async fn every_input() -> Vec<(&'static str, Input)> {
    let path = media::clip();
    vec![
        ("path", path.as_path().into()),
        ("text", path.to_str().unwrap().into()),
        ("URL", format!("file://{}", path.display()).into()),
        ("bytes", clip_bytes().into()),
        ("std file", std::fs::File::open(&path).unwrap().into()),
        (
            "tokio file",
            tokio::fs::File::open(&path).await.unwrap().into(),
        ),
        (
            "reader that seeks",
            Input::seekable(Cursor::new(clip_bytes())),
        ),
        ("body", body(clip_bytes())),
    ]
}

#[test]
fn every_input_gives_the_same_pictures_in_every_placement() {
    run(async {
        let expected = expected();
        assert_eq!(expected.len(), 90);
        for place in Place::ALL {
            for (name, input) in every_input().await {
                let reader = place
                    .open(input)
                    .open()
                    .await
                    .unwrap_or_else(|error| panic!("{name} {place:?}: {error}"));
                assert_eq!(reader.presentation().streams.len(), 2, "{name} {place:?}");
                let pictures = pictures(&reader)
                    .await
                    .unwrap_or_else(|error| panic!("{name} {place:?}: {error}"));
                assert_eq!(pictures, expected, "{name} {place:?}");
            }
        }
    });
}

/// The clip with its index behind the media data.
fn index_last() -> Bytes {
    let bytes = clip_bytes();
    let mut boxes = Vec::new();
    let mut rest = &bytes[..];
    while let Some(size) = rest.first_chunk::<4>() {
        let (one, after) = rest.split_at(u32::from_be_bytes(*size) as usize);
        boxes.push(one);
        rest = after;
    }
    boxes.sort_by_key(|one| &one[4..8] == b"moov");
    boxes.concat().into()
}

#[test]
fn a_body_whose_format_must_seek_is_a_typed_error() {
    run(async {
        for place in Place::ALL {
            let error = place
                .open(body(index_last()))
                .open()
                .await
                .expect_err("the index comes last");
            assert!(
                matches!(error.kind(), ErrorKind::NotSeekable { .. }),
                "{place:?}: {error}"
            );
            assert_eq!(error.place().input.as_deref(), Some("stream"), "{error}");
        }
    });
}

#[test]
fn an_input_that_is_not_there_is_named() {
    run(async {
        for place in Place::ALL {
            for (input, kind) in [
                ("/nowhere/clip.mp4", "NotFound"),
                ("https://example.org/clip.mp4", "UnsupportedScheme"),
                ("/", "Io"),
            ] {
                let error = place.open(input).open().await.expect_err(input);
                assert_eq!(
                    error.place().input.as_deref(),
                    Some(input),
                    "{place:?}: {error}"
                );
                assert!(
                    format!("{:?}", error.kind()).starts_with(kind),
                    "{place:?}: {error:?}"
                );
            }
        }
    });
}

#[test]
fn an_input_that_fails_on_the_way_says_so_after_what_came() {
    run(async {
        let bytes = clip_bytes();
        for place in Place::ALL {
            let half = bytes.slice(..bytes.len() / 2);
            let broken = stream::iter([Ok(half), Err(io::Error::other("the cable was cut"))]);
            let reader = place.open(Input::stream(broken)).open().await.unwrap();
            let mut samples = reader
                .samples(portcullis::StreamSelector::FIRST_VIDEO)
                .await
                .unwrap();
            let (mut good, mut errors) = (0, Vec::new());
            while let Some(sample) = futures::StreamExt::next(&mut samples).await {
                match sample {
                    Ok(_) => good += 1,
                    Err(error) => errors.push(error.to_string()),
                }
            }
            assert!(good > 20, "{place:?}: {good} pictures, {errors:?}");
            assert!(
                errors.iter().any(|text| text.contains("the cable was cut")),
                "{place:?}: {errors:?}"
            );
        }
    });
}
