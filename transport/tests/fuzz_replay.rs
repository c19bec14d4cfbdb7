//! The fuzz targets on the stable toolchain: each corpus file as it is, then a bounded number of mutants of them, the same
//! ones each time. `PORTCULLIS_FUZZ_RUNS` sets how many per target.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use portcullis_transport::{FrameHeader, Hello};

#[path = "../../fuzz/bodies/transport_frames.rs"]
mod transport_frames;
#[path = "../../fuzz/bodies/transport_handshake.rs"]
mod transport_handshake;
#[path = "../../fuzz/bodies/transport_link.rs"]
mod transport_link;
#[path = "../../fuzz/bodies/transport_pool.rs"]
mod transport_pool;
#[path = "../../fuzz/bodies/transport_ring.rs"]
mod transport_ring;

const DEFAULT_RUNS: u64 = 5_000;
const MAX_LEN: usize = 16 << 10;

#[test]
fn any_bytes_into_the_frame_decoder() {
    replay("transport_frames", &[two_frames(16)], transport_frames::run);
}

#[test]
fn any_hello() {
    replay(
        "transport_handshake",
        &[Hello::default().to_bytes().to_vec()],
        transport_handshake::run,
    );
}

#[test]
fn any_bytes_into_a_link() {
    let mut whole = vec![0];
    whole.extend_from_slice(&Hello::default().to_bytes());
    whole.extend_from_slice(&two_frames(0)[1..]);
    replay(
        "transport_link",
        &[two_frames(1), whole],
        transport_link::run,
    );
}

#[test]
fn any_use_of_a_pool() {
    let mut steps = Vec::new();
    for index in 0..20 {
        steps.extend_from_slice(&[0, 200, index, 0, 0, 0, 2, index / 2, 0, 0, 0, 0]);
        steps.extend_from_slice(&[
            6, 0, index, 1, 9, 1, 3, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0,
        ]);
    }
    replay("transport_pool", &[steps], transport_pool::run);
}

#[test]
fn any_memory_as_a_ring() {
    // Honest steps: a frame is written and read, twice around the ring; the other ring is filled and emptied.
    let mut honest = vec![0];
    for _ in 0..4 {
        let frame = FrameHeader {
            len: 1,
            ..FrameHeader::default()
        };
        let mut bytes = frame.to_bytes().to_vec();
        bytes.push(0xaa);
        let at = (honest.len() / 43 * 33) as u8;
        honest.extend_from_slice(&[3, at, 33]);
        honest.extend_from_slice(&bytes);
        honest.extend_from_slice(&[1, 33, 5, 200, 6, 64, 2, 64, 7, 0x87]);
    }
    let mut lies = honest.clone();
    lies.extend_from_slice(&[4, 1, 33, 0, 0, 0, 0, 0, 0, 0, 5, 9]);
    lies.extend_from_slice(&[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 5, 9]);
    replay("transport_ring", &[honest, lies], transport_ring::run);
}

fn two_frames(first: u8) -> Vec<u8> {
    let mut bytes = vec![first];
    for len in [0, 100] {
        let header = FrameHeader {
            len,
            kind: 3,
            ..FrameHeader::default()
        };
        bytes.extend_from_slice(&header.to_bytes());
        bytes.resize(bytes.len() + len as usize, 0xaa);
    }
    bytes
}

fn replay(target: &str, seeds: &[Vec<u8>], run: impl Fn(&[u8])) {
    let mut corpus = seeds.to_vec();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    if let Ok(files) = std::fs::read_dir(folder) {
        corpus.extend(files.map(|file| std::fs::read(file.unwrap().path()).unwrap()));
    }
    corpus.iter().for_each(|input| run(input));
    let runs =
        std::env::var("PORTCULLIS_FUZZ_RUNS").map_or(DEFAULT_RUNS, |runs| runs.parse().unwrap());
    let mut random = Prng(0x9e37_79b9_7f4a_7c15);
    for _ in 0..runs {
        let mut input = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(8) {
            random.mutate(&mut input);
        }
        input.truncate(MAX_LEN);
        run(&input);
    }
}

/// A small deterministic generator (xorshift64*).
struct Prng(u64);

impl Prng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len());
        match self.below(6) {
            0 if at < input.len() => input[at] = self.next() as u8,
            1 if at < input.len() => input[at] ^= 1 << self.below(8),
            2 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
            3 => input.insert(at, self.next() as u8),
            4 => input.truncate(at.max(1)),
            _ => {
                let end = (at + self.below(64)).min(input.len());
                let part = input[at..end].to_vec();
                let to = self.below(input.len());
                input.splice(to..to, part);
            }
        }
    }
}
