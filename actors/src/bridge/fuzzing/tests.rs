//! The fuzz target of a whole link, replayed.

#[path = "../../../../fuzz/replay.rs"]
mod replay;

use replay::{Random, Replay};

#[test]
fn any_script_of_a_peer() {
    let replay = Replay {
        target: "bridge_link",
        seeds: vec![vec![0], vec![1; 40], (0..=255).collect()],
        runs: 1_500,
        max_len: 1 << 10,
        changes: 16,
        mutate,
    };
    replay.run(super::run);
}

/// A script is a sequence of steps: more of them are put in, whatever they are.
fn mutate(random: &mut Random, input: &mut Vec<u8>) {
    let at = random.below(input.len() + 1);
    match random.below(5) {
        0 if at < input.len() => input[at] = random.byte(),
        1 if at < input.len() => input[at] ^= 1 << random.below(8),
        2 => input.truncate(at.max(2)),
        _ => {
            let more: Vec<u8> = (0..random.below(40)).map(|_| random.byte()).collect();
            input.splice(at..at, more);
        }
    }
}
