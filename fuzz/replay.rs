//! The fuzz targets on the stable toolchain: seeds and corpus of a target as they are, then a bounded number of their mutants,
//! the same ones each time. `PORTCULLIS_FUZZ_RUNS` sets how many. An input that fails is printed.
//!
//! The crates' tests include this file.

use std::path::Path;

/// How the inputs of a target are made.
pub(crate) struct Replay<'a> {
    /// Its name, and its corpus' folder.
    pub(crate) target: &'a str,
    /// Inputs besides its corpus.
    pub(crate) seeds: Vec<Vec<u8>>,
    /// Mutants, where the environment says nothing else.
    pub(crate) runs: u64,
    /// Bytes of a mutant at most.
    pub(crate) max_len: usize,
    /// Changes of a mutant at most.
    pub(crate) changes: usize,
    /// Makes one change.
    pub(crate) mutate: fn(&mut Random, &mut Vec<u8>),
}

impl Replay<'_> {
    /// Runs the target with all of them.
    pub(crate) fn run(self, target: impl Fn(&[u8])) {
        let mut corpus = self.seeds;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/corpus")
            .join(self.target);
        if let Ok(files) = std::fs::read_dir(folder) {
            corpus.extend(files.map(|file| std::fs::read(file.unwrap().path()).unwrap()));
        }
        // A folder has no order: without one the mutants would be others on another machine.
        corpus.sort();
        let run = |input: &[u8]| {
            let _shown = Shown(self.target, input);
            target(input);
        };
        corpus.iter().for_each(|input| run(input));
        let runs =
            std::env::var("PORTCULLIS_FUZZ_RUNS").map_or(self.runs, |runs| runs.parse().unwrap());
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..runs {
            let mut input = corpus[random.below(corpus.len())].clone();
            for _ in 0..=random.below(self.changes) {
                (self.mutate)(&mut random, &mut input);
            }
            input.truncate(self.max_len);
            run(&input);
        }
    }
}

/// Prints an input under which the test panics.
struct Shown<'a>(&'a str, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{} fails with {:?}", self.0, self.1);
        }
    }
}

/// A small deterministic generator (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Changes something: a byte, perhaps to one of those that mean something to the target, or where the input ends, or a
    /// part of it is there twice.
    #[allow(dead_code, reason = "a target may have a mutator of its own")]
    pub(crate) fn change(&mut self, input: &mut Vec<u8>, telling: &[u8]) {
        let at = self.below(input.len());
        match self.below(6) {
            0 if at < input.len() => input[at] = self.byte(),
            1 if at < input.len() => input[at] ^= 1 << self.below(8),
            2 if at < input.len() => input[at] = telling[self.below(telling.len())],
            3 => input.insert(at, self.byte()),
            4 => input.truncate(at.max(1)),
            _ => {
                let end = (at + self.below(64)).min(input.len());
                let part = input[at..end].to_vec();
                let to = self.below(input.len());
                input.splice(to..to, part);
            }
        }
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
