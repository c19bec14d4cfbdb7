//! The test media and what other programs say of them, for the tests of this crate's containers.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use md5::{Digest, Md5};
use portcullis_engine::component::{MemorySource, OpenContext};
use portcullis_engine::{
    ByteSource, ByteStreamHandler, Error, MediaSource, Result, Sample, StreamId,
};

/// A line of a packet index: times in the stream's time base.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) stream: u32,
    pub(crate) pts: Option<i64>,
    pub(crate) duration: Option<i64>,
    pub(crate) size: usize,
    pub(crate) key: bool,
    pub(crate) md5: String,
}

/// The test media, where they are there.
pub(crate) fn media() -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/media"));
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: no test media at {}", path.display());
    None
}

pub(crate) fn read(name: &str) -> Vec<u8> {
    std::fs::read(media().unwrap().join(name)).unwrap()
}

/// The files of the manifest, or of `bad/BAD.json`, with one of these extensions: name and row.
pub(crate) fn rows(list: &str, extensions: &[&str]) -> Vec<(String, serde_json::Value)> {
    let Some(media) = media() else {
        return Vec::new();
    };
    let text = std::fs::read_to_string(media.join(list)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = json.get("files").unwrap_or(&json).as_array().unwrap();
    rows.iter()
        .map(|row| (row["file"].as_str().unwrap().to_owned(), row.clone()))
        .filter(|(file, _)| {
            let extension = file.rsplit('.').next().unwrap();
            extensions.contains(&extension)
        })
        .collect()
}

/// The packet index of a manifest row, where it has one.
pub(crate) fn packets(row: &serde_json::Value) -> Option<Vec<Packet>> {
    let file = row["oracle"]["packets"].as_str()?;
    let packed = read(file);
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed[..])
        .read_to_string(&mut text)
        .unwrap();
    let packet = |line: &str| {
        let field: Vec<&str> = line.split(',').collect();
        Packet {
            stream: field[0].parse().unwrap(),
            pts: field[1].parse().ok(),
            duration: field[3].parse().ok(),
            size: field[4].parse().unwrap(),
            key: field[6].starts_with('K'),
            md5: field[7].to_owned(),
        }
    };
    Some(text.lines().map(packet).collect())
}

pub(crate) fn md5(bytes: &[u8]) -> String {
    Md5::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub(crate) fn open(
    handler: &impl ByteStreamHandler,
    bytes: Vec<u8>,
    seekable: bool,
) -> Result<Box<dyn MediaSource>> {
    let input = if seekable {
        MemorySource::new(bytes)
    } else {
        MemorySource::forward_only(bytes)
    };
    handler.open(Box::new(input), &OpenContext::default())
}

/// Reads to the end, or to the first error; after it there must be nothing more.
pub(crate) fn drain(source: &mut dyn MediaSource) -> (Vec<(StreamId, Sample)>, Option<Error>) {
    let mut samples = Vec::new();
    loop {
        match source.read() {
            Ok(Some(sample)) => samples.push(sample),
            Ok(None) => return (samples, None),
            Err(error) => {
                assert_eq!(source.read(), Ok(None), "after {error}");
                return (samples, Some(error));
            }
        }
    }
}

/// Random numbers that are the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// An input that counts the bytes that are read of it.
#[derive(Debug)]
pub(crate) struct Counting {
    input: MemorySource,
    count: Arc<AtomicU64>,
}

impl Counting {
    pub(crate) fn new(bytes: Vec<u8>, seekable: bool) -> (Self, Arc<AtomicU64>) {
        let input = if seekable {
            MemorySource::new(bytes)
        } else {
            MemorySource::forward_only(bytes)
        };
        let count = Arc::new(AtomicU64::new(0));
        let counting = Self {
            input,
            count: Arc::clone(&count),
        };
        (counting, count)
    }
}

impl Read for Counting {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(into)?;
        self.count.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

impl Seek for Counting {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.input.seek(to)
    }
}

impl ByteSource for Counting {
    fn byte_len(&self) -> Option<u64> {
        self.input.byte_len()
    }
    fn is_seekable(&self) -> bool {
        self.input.is_seekable()
    }
}
