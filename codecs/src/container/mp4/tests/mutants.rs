//! Mutants of small clips: whatever is changed, the source ends in bounded time and memory and never panics.
//!
//! `PORTCULLIS_MUTANTS` is how many mutants of each clip are made, `PORTCULLIS_MUTANTS_KEEP` a folder for the slowest ones.
//! The clips are generated ones (CC0), a few kilobytes each, so that the test works without the test media.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use portcullis_engine::component::{MemorySource, OpenContext};
use portcullis_engine::{ByteSource, ByteStreamHandler, MediaTime};

use super::read_all;
use crate::container::mp4::Mp4;

const CLIPS: [&[u8]; 4] = [
    include_bytes!("tiny_prog.mp4"),
    include_bytes!("tiny_frag.mp4"),
    include_bytes!("tiny_cenc.mp4"),
    include_bytes!("tiny_pcm.mov"),
];

/// Counts the bytes that are read, and refuses more than a multiple of the input.
struct Budget {
    input: MemorySource,
    left: Arc<AtomicU64>,
}

impl Read for Budget {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(into)?;
        let before = self.left.fetch_sub(got as u64, Ordering::Relaxed);
        assert!(before >= got as u64, "more is read than the input allows");
        Ok(got)
    }
}

impl Seek for Budget {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.input.seek(to)
    }
}

impl ByteSource for Budget {
    fn byte_len(&self) -> Option<u64> {
        self.input.byte_len()
    }
    fn is_seekable(&self) -> bool {
        self.input.is_seekable()
    }
}

/// Numbers without a seed from outside: a failure is found again.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn mutant(&mut self, clip: &[u8]) -> Vec<u8> {
        let mut bytes = clip.to_vec();
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len());
            match self.below(8) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.next() as u8,
                2..=4 => {
                    // A word: sizes, counts and offsets are words.
                    let values = [0, 1, 7, 8, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, u32::MAX];
                    let value = values[self.below(values.len())];
                    if let Some(word) = bytes.get_mut(at..at + 4) {
                        word.copy_from_slice(&value.to_be_bytes());
                    }
                }
                5 => bytes.truncate(at.max(1)),
                6 => {
                    let end = (at + 1 + self.below(64)).min(bytes.len());
                    bytes.drain(at..end);
                }
                _ => {
                    let end = (at + 1 + self.below(64)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, copy);
                }
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        bytes
    }
}

fn run(bytes: Vec<u8>, seekable: bool) -> usize {
    let bytes = Bytes::from(bytes);
    // Overlapping samples are legal: each sample may be read once for each of its entries.
    let left = Arc::new(AtomicU64::new(64 << 20));
    let input = Budget {
        input: if seekable {
            MemorySource::new(bytes)
        } else {
            MemorySource::forward_only(bytes)
        },
        left: left.clone(),
    };
    let Ok(mut source) = Mp4.open(Box::new(input), &OpenContext::default()) else {
        return 0;
    };
    let (samples, _) = read_all(source.as_mut(), None);
    if seekable {
        left.store(64 << 20, Ordering::Relaxed);
        read_all(source.as_mut(), Some(MediaTime::from_millis(400)));
    }
    samples.len()
}

#[test]
fn mutants_end_in_bounded_time_and_memory() {
    let rounds: u64 = std::env::var("PORTCULLIS_MUTANTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(250);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut delivered, mut slowest) = (0, std::time::Duration::ZERO);
    for round in 0..rounds {
        for (index, clip) in CLIPS.iter().enumerate() {
            let bytes = numbers.mutant(clip);
            let begin = std::time::Instant::now();
            delivered += usize::from(run(bytes.clone(), round % 4 != 0) > 0);
            if begin.elapsed() > slowest {
                slowest = begin.elapsed();
                println!("round {round} clip {index}: {slowest:?}");
                if let Ok(folder) = std::env::var("PORTCULLIS_MUTANTS_KEEP") {
                    std::fs::write(format!("{folder}/{round}-{index}.mp4"), &bytes).unwrap();
                }
            }
        }
    }
    println!(
        "{delivered} of {} mutants deliver samples, slowest {slowest:?}",
        rounds * 4
    );
    for clip in CLIPS {
        assert!(run(clip.to_vec(), true) > 1, "a clip itself is not read");
    }
}
