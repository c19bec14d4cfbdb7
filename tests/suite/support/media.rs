//! The test media: the whole corpus where it is there, the repository's own clips else.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Once;

use serde_json::Value;

use super::root;

/// A clip of the repository: H.264 and AAC in MP4, 90 pictures and 3 seconds.
pub(crate) fn clip() -> PathBuf {
    root().join("tests/media/clip.mp4")
}

/// An encrypted clip of the repository.
pub(crate) fn protected() -> PathBuf {
    root().join("tests/media/protected.mp4")
}

/// The repository's own clips.
pub(crate) fn small() -> PathBuf {
    root().join("tests/media")
}

/// The corpus that is used: its directory, with `MANIFEST.json` and `bad/BAD.json` in it. `PORTCULLIS_MEDIA` names another
/// one. Says once which it is, past the harness, which keeps to itself what a passing test prints.
pub(crate) fn corpus() -> PathBuf {
    static SAID: Once = Once::new();
    let whole = root().join("../shared/media");
    let (found, which) = match std::env::var_os("PORTCULLIS_MEDIA") {
        Some(path) => (root().join(path), "that of PORTCULLIS_MEDIA"),
        None if whole.join("MANIFEST.json").is_file() => {
            (whole, "the whole corpus of ../shared/media")
        }
        None => (
            small(),
            "only the small corpus of tests/media; ../shared/media is not there",
        ),
    };
    SAID.call_once(|| {
        // Whoever closed the error output does not want to know.
        let _ = writeln!(std::io::stderr(), "corpus: {which}");
    });
    found
}

/// What ffmpeg says of the pictures of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameHashes {
    /// The unit of the times.
    pub(crate) base: (u32, u32),
    pub(crate) frames: Vec<Frame>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) pts: i64,
    pub(crate) size: usize,
    pub(crate) md5: String,
}

/// Reads a framemd5 file.
pub(crate) fn framemd5(path: &Path) -> FrameHashes {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut found = FrameHashes {
        base: (1, 1),
        frames: Vec::new(),
    };
    for line in text.lines() {
        if let Some(ratio) = line.strip_prefix("#tb 0: ") {
            let (numerator, denominator) = ratio.trim().split_once('/').unwrap();
            found.base = (numerator.parse().unwrap(), denominator.parse().unwrap());
        } else if !line.starts_with('#') {
            let fields: Vec<_> = line.split(',').map(str::trim).collect();
            found.frames.push(Frame {
                pts: fields[2].parse().unwrap(),
                size: fields[4].parse().unwrap(),
                md5: fields[5].to_owned(),
            });
        }
    }
    found
}

/// The list of a corpus' clips.
pub(crate) fn manifest(media: &Path) -> Value {
    json(&media.join("MANIFEST.json"))
}

/// The list of a corpus' damaged files.
pub(crate) fn damaged(media: &Path) -> Value {
    json(&media.join("bad/BAD.json"))
}

fn json(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}
