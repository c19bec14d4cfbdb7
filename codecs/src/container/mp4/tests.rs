//! The demuxer against the oracles of the test media, damaged files and mutants.

mod bad;
mod built;
mod damage;
mod fragments;
mod mutants;
mod oracle;
mod whole;

use std::path::PathBuf;

use portcullis_engine::component::{MemorySource, OpenContext};
use portcullis_engine::{ByteStreamHandler, Error, MediaSource, MediaTime, Sample, StreamId};

use super::Mp4;

/// The test media, where they are.
fn media() -> Option<PathBuf> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/media"));
    if root.join("MANIFEST.json").exists() {
        return Some(root);
    }
    eprintln!("skipped: no test media at {}", root.display());
    None
}

fn is_ours(file: &str) -> bool {
    let ends = [".mp4", ".mov", ".m4a", ".m4s"];
    ends.iter().any(|end| file.ends_with(end))
}

fn open(bytes: Vec<u8>, seekable: bool) -> Result<Box<dyn MediaSource>, Error> {
    let input = if seekable {
        MemorySource::new(bytes)
    } else {
        MemorySource::forward_only(bytes)
    };
    Mp4.open(Box::new(input), &OpenContext::default())
}

/// Everything that a source delivers from `position` on, and the errors on the way.
fn read_all(
    source: &mut dyn MediaSource,
    position: Option<MediaTime>,
) -> (Vec<(StreamId, Sample)>, Vec<Error>) {
    let all: Vec<StreamId> = source
        .presentation()
        .streams
        .iter()
        .map(|stream| stream.id)
        .collect();
    let (mut samples, mut errors) = (Vec::new(), Vec::new());
    if let Err(error) = source.start(&all, position) {
        return (samples, vec![error]);
    }
    loop {
        match source.read() {
            Ok(Some(sample)) => samples.push(sample),
            Ok(None) => return (samples, errors),
            Err(error) => errors.push(error),
        }
        assert!(errors.len() < 100, "errors for ever: {:?}", errors.last());
        assert!(samples.len() < 2_000_000, "samples for ever");
    }
}
