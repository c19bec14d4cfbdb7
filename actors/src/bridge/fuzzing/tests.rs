//! The fuzz target on the stable toolchain: each file of its corpus, then a bounded number of mutants of them, the same ones
//! each time. `PORTCULLIS_FUZZ_RUNS` sets how many.

use std::path::Path;

use super::run;

const DEFAULT_RUNS: u64 = 1_500;
const MAX_LEN: usize = 1 << 10;

#[test]
fn any_script_of_a_peer() {
    let mut corpus = vec![vec![0], vec![1; 40], (0..=255).collect()];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/bridge_link");
    if let Ok(files) = std::fs::read_dir(folder) {
        corpus.extend(files.map(|file| std::fs::read(file.unwrap().path()).unwrap()));
    }
    corpus.sort();
    corpus.iter().for_each(|input| run(input));
    let runs =
        std::env::var("PORTCULLIS_FUZZ_RUNS").map_or(DEFAULT_RUNS, |runs| runs.parse().unwrap());
    let mut random = Chance(0x9e37_79b9_7f4a_7c15);
    for _ in 0..runs {
        let mut input = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(16) {
            random.mutate(&mut input);
        }
        input.truncate(MAX_LEN);
        // A panic says which it was.
        let shown = Shown(&input);
        run(shown.0);
    }
}

/// Prints an input under which the test panics.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the script: {:?}", self.0);
        }
    }
}

/// A small deterministic generator (xorshift64*).
struct Chance(u64);

impl Chance {
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
        let at = self.below(input.len() + 1);
        match self.below(5) {
            0 if at < input.len() => input[at] = self.next() as u8,
            1 if at < input.len() => input[at] ^= 1 << self.below(8),
            2 => input.truncate(at.max(2)),
            _ => {
                let more: Vec<u8> = (0..self.below(40)).map(|_| self.next() as u8).collect();
                input.splice(at..at, more);
            }
        }
    }
}
