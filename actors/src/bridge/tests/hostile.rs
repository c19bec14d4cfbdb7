//! A peer that an attacker has: it may say anything, or nothing.

use std::time::Instant;

use portcullis_transport::{FrameHeader, Hello, LinkLimits};

use super::super::link::kind;
use super::*;

/// A small generator of pseudo-random numbers (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A peer of which only the frames are ours.
async fn raw(endpoint: Endpoint) -> portcullis_transport::Link {
    let hello = Hello {
        interface_table: crate::pipeline::interface_table(),
        limits: LinkLimits {
            max_frame: 16 << 20,
            ..LinkLimits::default()
        },
        host_id: 1,
        ..Hello::default()
    };
    endpoint.connect(hello).await.expect("connects")
}

/// A link with a desk, and its hostile peer.
async fn attacked(
    over: Over,
) -> (
    Link,
    portcullis_transport::LinkSender,
    portcullis_transport::LinkReceiver,
) {
    let (near, far) = over.endpoints();
    let (root, _) = desk();
    let (near, far) = tokio::join!(connect(near, 0, Some(root.into_any())), raw(far));
    actix_rt::spawn(far.writer);
    (near, far.sender, far.receiver)
}

fn random_frame(random: &mut Random) -> (FrameHeader, Vec<u8>) {
    let methods = <Desk as super::super::Interface>::METHODS;
    let any = |random: &mut Random| match random.below(4) {
        0 => random.next(),
        1 => random.below(3),
        2 => 1 << 32 | random.below(3),
        _ => u64::MAX,
    };
    let header = FrameHeader {
        kind: random.below(10) as u16,
        flags: (random.below(4) as u16) << 14,
        object: any(random) as u32,
        generation: any(random) as u32,
        call: any(random),
        method: methods[random.below(methods.len() as u64) as usize],
        ..FrameHeader::default()
    };
    let body = (0..random.below(60))
        .map(|_| random.below(7) as u8)
        .collect();
    (header, body)
}

#[test]
fn random_frames_end_the_link_or_do_nothing() {
    over_all(|over| async move {
        for seed in 1..400 {
            let mut random = Random(seed);
            let (near, sender, _receiver) = attacked(over).await;
            let root = near.root::<Desk>().expect("a root");
            let waiting = root.send(Wait);
            for _ in 0..40 {
                let (header, body) = random_frame(&mut random);
                if sender.push(header, &[&body], Vec::new()).is_err() {
                    break;
                }
                if random.below(4) == 0 {
                    tokio::task::yield_now().await;
                }
            }
            sender.close();
            // The peer may have answered it; in any case it ends.
            drop(waiting.await);
            near.lost().wait().await;
            assert_eq!(near.core.census(), Census::default());
        }
    });
}

#[test]
fn damaged_frames_of_honest_peers_end_the_link_or_do_nothing() {
    run(async {
        for seed in 1..150 {
            let mut random = Random(seed);
            let (near, before) = Endpoint::unix_pair().expect("a socket pair");
            let (behind, far) = Endpoint::unix_pair().expect("a socket pair");
            let (root, _) = desk();
            let (near, before, behind, far) = tokio::join!(
                connect(near, 0, None),
                raw(before),
                raw(behind),
                connect(far, 1, Some(root.into_any()))
            );
            actix_rt::spawn(before.writer);
            actix_rt::spawn(behind.writer);
            let damages = seed % 3 != 0;
            let mut forward =
                move |mut from: portcullis_transport::LinkReceiver,
                      to: portcullis_transport::LinkSender| {
                    let mut random = Random(random.next());
                    actix_rt::spawn(async move {
                        let mut frames = Vec::new();
                        while from.receive(&mut frames).await.is_ok() {
                            for mut frame in frames.drain(..) {
                                let mut body = frame.body.to_vec();
                                if damages && random.below(6) == 0 {
                                    match random.below(4) {
                                        0 => frame.header.call ^= 1 << random.below(64),
                                        1 => frame.header.object ^= 1 << random.below(32),
                                        2 => body
                                            .truncate(random.below(body.len() as u64 + 1) as usize),
                                        _ => {
                                            let at =
                                                random.below(body.len().max(1) as u64) as usize;
                                            body.iter_mut()
                                                .skip(at)
                                                .take(1)
                                                .for_each(|byte| *byte ^= 1 << random.below(8));
                                        }
                                    }
                                }
                                if to.push(frame.header, &[&body], frame.descriptors).is_err() {
                                    return;
                                }
                            }
                        }
                        to.close();
                    });
                };
            forward(before.receiver, behind.sender);
            forward(behind.receiver, before.sender);
            let root = near.root::<Desk>().expect("a root");
            let (mine, _) = desk();
            let traffic = async {
                for n in 0..20 {
                    let sample = Sample::new(MediaTime::ZERO, MediaTime::ZERO, vec![1; 10_000]);
                    root.send(Add(n, 1)).await?;
                    root.send(Keep(mine.clone())).await?;
                    root.send(Show(sample)).await?;
                    root.send(Give).await?;
                }
                Ok::<_, Error>(())
            };
            if damages {
                // A damaged id may leave a call without an answer, which its deadline would end.
                drop(tokio::time::timeout(Duration::from_millis(100), traffic).await);
            } else {
                assert_eq!(traffic.await, Ok(()));
            }
            near.close();
            far.close();
            near.lost().wait().await;
            far.lost().wait().await;
            assert_eq!((near.core.census(), far.core.census()), Default::default());
        }
    });
}

#[test]
fn a_flood_of_calls_is_bounded() {
    run(async {
        let (near, sender, _receiver) = attacked(Over::Socket).await;
        let header = FrameHeader {
            kind: kind::CALL,
            method: <Wait as super::super::Remote>::ID,
            ..FrameHeader::default()
        };
        for call in 0..100_000 {
            if sender
                .push(FrameHeader { call, ..header }, &[], Vec::new())
                .is_err()
            {
                break;
            }
            assert!(near.core.census().incoming <= 1024 + 4096);
            if call % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let error = near.lost().wait().await;
        assert!(
            error
                .to_string()
                .contains("more calls in flight than agreed"),
            "{error}"
        );
    });
}

#[test]
fn a_flood_of_bytes_is_bounded() {
    run(async {
        let (near, sender, _receiver) = attacked(Over::Socket).await;
        let body = vec![0; 1 << 20];
        for call in 0..100 {
            let header = FrameHeader {
                kind: kind::CALL,
                method: <Wait as super::super::Remote>::ID,
                call,
                ..FrameHeader::default()
            };
            if sender.push(header, &[&body], Vec::new()).is_err() || near.lost().now().is_some() {
                break;
            }
            sender.queued_at_most(0).await.ok();
        }
        let error = near.lost().wait().await;
        assert!(
            error.to_string().contains("more bytes of calls in flight"),
            "{error}"
        );
    });
}

#[test]
fn what_was_never_asked_ends_the_link() {
    run(async {
        let frames: [(FrameHeader, &str); 5] = [
            (
                FrameHeader {
                    kind: kind::REPLY,
                    call: 1 << 32,
                    ..FrameHeader::default()
                },
                "a call that was not made",
            ),
            (
                FrameHeader {
                    kind: kind::RELEASE,
                    call: 2,
                    ..FrameHeader::default()
                },
                "what was not given",
            ),
            (
                FrameHeader {
                    kind: kind::SLOTS,
                    ..FrameHeader::default()
                },
                "release",
            ),
            (
                FrameHeader {
                    kind: kind::CALL,
                    object: 9,
                    ..FrameHeader::default()
                },
                "object 9 does not exist",
            ),
            (
                FrameHeader {
                    kind: 99,
                    ..FrameHeader::default()
                },
                "frame kind 99",
            ),
        ];
        for (header, why) in frames {
            let (near, sender, _receiver) = attacked(Over::Socket).await;
            let body: &[u8] = if header.kind == kind::SLOTS {
                &[1; 16]
            } else {
                &[]
            };
            sender.push(header, &[body], Vec::new()).expect("is open");
            let error = near.lost().wait().await;
            assert!(error.to_string().contains(why), "{error}");
        }
    });
}

/// Lets time pass by itself: nothing here waits for real.
fn run_in_no_time(test: impl Future<Output = ()> + 'static) {
    let began = Instant::now();
    actix_rt::System::new().block_on(async {
        tokio::time::pause();
        test.await;
    });
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_peer_that_answers_nothing_is_lost_and_the_error_says_so() {
    run_in_no_time(async {
        let (near, _sender, _receiver) = attacked(Over::Bytes).await;
        let root = near.root::<Desk>().expect("a root");
        let error = root.send(Wait).await.expect_err("nobody answers");
        let exit = error.host_exit().expect("lost");
        assert!(exit.last_words[0].contains("sign of life"), "{error}");
    });
}

#[test]
fn a_peer_that_only_shows_signs_of_life_may_take_its_time_but_not_with_cancels() {
    run_in_no_time(async {
        let (near, sender, mut receiver) = attacked(Over::Bytes).await;
        actix_rt::spawn(async move {
            let mut frames = Vec::new();
            while receiver.receive(&mut frames).await.is_ok() {
                for _ in frames
                    .drain(..)
                    .filter(|frame| frame.header.kind == kind::PING)
                {
                    let pong = FrameHeader {
                        kind: kind::PONG,
                        ..FrameHeader::default()
                    };
                    sender.push(pong, &[], Vec::new()).expect("is open");
                }
            }
        });
        let root = near.root::<Desk>().expect("a root");
        let waiting = root.send(Wait);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(near.lost().now().is_none());
        drop(waiting);
        let error = near.lost().wait().await;
        assert!(
            error.to_string().contains("no answer to the cancel"),
            "{error}"
        );
    });
}
