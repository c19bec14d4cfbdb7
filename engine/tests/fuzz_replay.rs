//! The fuzz target of signed manifests on the stable toolchain: seeds and corpus as they are, then a bounded number of their
//! mutants, the same ones each time. `PORTCULLIS_FUZZ_RUNS` sets how many.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use portcullis_engine::trust::{Envelope, PrivateKey};

#[path = "../../fuzz/bodies/trust_manifest.rs"]
mod trust_manifest;

const DEFAULT_RUNS: u64 = 20_000;
const MAX_LEN: usize = 16 << 10;
const ENVELOPE: &[u8] = include_bytes!("../src/trust/tests/manifest.golden.json");

#[test]
fn any_bytes_as_manifest_envelope_or_key() {
    let envelope = Envelope::parse(ENVELOPE.trim_ascii()).unwrap();
    let key = PrivateKey::development();
    let seeds = [
        seed(0, ENVELOPE),
        seed(1, envelope.payload()),
        seed(2, &key.public().to_json()),
        seed(3, &key.to_json()),
    ];
    replay("trust_manifest", &seeds, trust_manifest::run);
}

fn seed(what: u8, bytes: &[u8]) -> Vec<u8> {
    [&[what], bytes].concat()
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
        for _ in 0..=random.below(4) {
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
            2 if at < input.len() => input[at] = b"{}[]\",:0-\\"[self.below(10)],
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
