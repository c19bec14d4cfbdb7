//! The reader: from any input to samples, in every placement, on any executor.

mod inputs;
mod lifetime;
mod outputs;
mod web;

use std::fmt::Write as _;

use bytes::Bytes;
use futures::TryStreamExt;
use md5::{Digest, Md5};
use portcullis::{Result, SampleStream, SourceReader, StreamSelector};

use crate::support::media;

/// The hash as the oracles write it.
fn md5(bytes: &[u8]) -> String {
    Md5::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
}

/// The hashes of all samples of a stream.
async fn hashes(mut samples: SampleStream) -> Result<Vec<String>> {
    let mut all = Vec::new();
    while let Some(sample) = samples.try_next().await? {
        all.push(md5(&sample.payload.to_bytes()));
    }
    Ok(all)
}

async fn pictures(reader: &SourceReader) -> Result<Vec<String>> {
    hashes(reader.samples(StreamSelector::FIRST_VIDEO).await?).await
}

/// What ffmpeg decodes of the clip.
fn expected() -> Vec<String> {
    media::framemd5(&media::clip().with_extension("mp4.v0.framemd5"))
        .frames
        .into_iter()
        .map(|frame| frame.md5)
        .collect()
}

fn clip_bytes() -> Bytes {
    std::fs::read(media::clip()).unwrap().into()
}
