//! The fuzz targets of frames, handshakes, pools and rings, replayed.

#![allow(clippy::unwrap_used)]

use portcullis_transport::{FrameHeader, Hello};
use replay::Replay;

#[path = "../../fuzz/replay.rs"]
mod replay;
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
    let replay = Replay {
        target,
        seeds: seeds.to_vec(),
        runs: 5_000,
        max_len: 16 << 10,
        changes: 8,
        mutate: |random, input| random.change(input, &[0, 1, 0x7f, 0x80, 0xff]),
    };
    replay.run(run);
}
