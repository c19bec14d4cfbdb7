//! The fuzz target of signed manifests, replayed.

#![allow(clippy::unwrap_used)]

use portcullis_engine::trust::{Envelope, PrivateKey};
use replay::Replay;

#[path = "../../fuzz/replay.rs"]
mod replay;
#[path = "../../fuzz/bodies/trust_manifest.rs"]
mod trust_manifest;

const ENVELOPE: &[u8] = include_bytes!("../src/trust/tests/manifest.golden.json");

#[test]
fn any_bytes_as_manifest_envelope_or_key() {
    let envelope = Envelope::parse(ENVELOPE.trim_ascii()).unwrap();
    let key = PrivateKey::development();
    let seeds = vec![
        seed(0, ENVELOPE),
        seed(1, envelope.payload()),
        seed(2, &key.public().to_json()),
        seed(3, &key.to_json()),
    ];
    let replay = Replay {
        target: "trust_manifest",
        seeds,
        runs: 20_000,
        max_len: 16 << 10,
        changes: 4,
        mutate: |random, input| random.change(input, b"{}[]\",:0-\\"),
    };
    replay.run(trust_manifest::run);
}

fn seed(what: u8, bytes: &[u8]) -> Vec<u8> {
    [&[what], bytes].concat()
}
