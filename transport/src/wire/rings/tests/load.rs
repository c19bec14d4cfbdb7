//! Two threads and a small ring: nothing is lost, doubled, reordered or slept through.

use super::*;
use crate::link::Spin;
use crate::testing::{Prng, run_within};

/// Frames each way. `PORTCULLIS_RING_FRAMES` sets how many.
const FRAMES: u64 = 30_000;

fn frames() -> u64 {
    std::env::var("PORTCULLIS_RING_FRAMES").map_or(FRAMES, |text| text.parse().unwrap())
}

/// Runs a side, which takes the longer the more frames there are.
fn run<T>(future: impl Future<Output = T>) -> T {
    let deadline = std::time::Duration::from_secs(60 + frames() / 1000);
    run_within(deadline, future)
}

fn config(spin: Spin) -> LinkConfig {
    LinkConfig { spin, ..RINGS }
}

/// The frame of a number: anybody can say what it must be.
fn body_of(number: u64) -> Vec<u8> {
    let mut random = Prng::new(number);
    let len = match random.below(200) {
        0 => random.below(3 * CAPACITY as u64),
        1..20 => random.below(2000),
        _ => random.below(100),
    };
    (0..len).map(|at| (at ^ number) as u8).collect()
}

fn descriptors_of(number: u64) -> usize {
    match number % 500 {
        499 => 1 + (number / 500 % 3) as usize,
        _ => 0,
    }
}

/// Sends all frames and receives all of the other's, with pauses of all kinds in between.
async fn exchange(endpoint: Endpoint, seed: u64) {
    let mut link = endpoint.connect(Hello::default()).await.unwrap();
    assert!(link.agreed.features.contains(Features::RINGS));
    tokio::task::spawn_local(link.writer);
    let total = frames();
    let sender = link.sender.clone();
    let sending = tokio::task::spawn_local(async move {
        let mut random = Prng::new(seed);
        for number in 0..total {
            let given = (0..descriptors_of(number)).map(|_| pipe_pair().0).collect();
            let header = FrameHeader {
                call: number,
                ..FrameHeader::default()
            };
            sender.push(header, &[&body_of(number)], given).unwrap();
            match random.below(300) {
                0 => tokio::time::sleep(std::time::Duration::from_micros(50)).await,
                1..100 => tokio::task::yield_now().await,
                _ => sender.queued_at_most(64 << 10).await.unwrap(),
            }
        }
        sender.flush().await.unwrap();
    });
    let mut next = 0;
    let mut received = Vec::new();
    while next < total {
        link.receiver.receive(&mut received).await.unwrap();
        for frame in received.drain(..) {
            assert_eq!(frame.header.call, next);
            assert_eq!(frame.body, body_of(next));
            assert_eq!(frame.descriptors.len(), descriptors_of(next));
            next += 1;
        }
    }
    sending.await.unwrap();
    link.sender.close();
    assert_eq!(failure(&mut link.receiver).await, TransportError::Closed);
}

#[test]
fn two_threads_lose_nothing_and_never_sleep_for_ever() {
    for (here, there) in [(Spin::Never, Spin::Never), (Spin::Adaptive, Spin::Adaptive)] {
        let (near, far) = Endpoint::unix_pair().unwrap();
        let other = std::thread::spawn(move || run(exchange(far.config(config(there)), 1)));
        run(exchange(near.config(config(here)), 2));
        other.join().unwrap();
    }
}

#[test]
fn one_frame_at_a_time_is_never_slept_through() {
    for spin in [Spin::Never, Spin::Adaptive] {
        let (near, far) = Endpoint::unix_pair().unwrap();
        let other = std::thread::spawn(move || {
            run(async {
                let mut link = far
                    .config(config(spin))
                    .connect(Hello::default())
                    .await
                    .unwrap();
                tokio::task::spawn_local(link.writer);
                let mut received = Vec::new();
                while link.receiver.receive(&mut received).await.is_ok() {
                    for frame in received.drain(..) {
                        link.sender.push(frame.header, &[], Vec::new()).unwrap();
                    }
                }
            });
        });
        run(async {
            let mut link = near
                .config(config(spin))
                .connect(Hello::default())
                .await
                .unwrap();
            let writer = tokio::task::spawn_local(link.writer);
            for number in 0..frames() / 3 {
                let header = FrameHeader {
                    call: number,
                    ..FrameHeader::default()
                };
                link.sender.push(header, &[], Vec::new()).unwrap();
                let back = receive_count(&mut link.receiver, 1).await;
                assert_eq!((back.len(), back[0].header.call), (1, number));
            }
            link.sender.close();
            writer.await.unwrap().unwrap();
        });
        other.join().unwrap();
    }
}
