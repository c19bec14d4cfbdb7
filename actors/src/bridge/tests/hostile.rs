//! A peer that an attacker has: it may say anything, or nothing.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Instant;

use portcullis_transport::{FrameHeader, Hello, LinkLimits};
use rustix::net::sockopt;

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
pub(super) async fn raw(
    endpoint: Endpoint,
    host_id: u64,
    names_peer: u64,
) -> portcullis_transport::Link {
    let hello = Hello {
        interface_table: super::super::InterfaceTable::new().hash(),
        limits: LinkLimits::default(),
        host_id,
        names_peer,
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
    let (near, far) = tokio::join!(connect(near, 0, Some(root.into_any())), raw(far, 1, 0));
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
    in_all_windows(|| async {
        for seed in 1..150 {
            let mut random = Random(seed);
            let (near, before) = Endpoint::unix_pair().expect("a socket pair");
            let (behind, far) = Endpoint::unix_pair().expect("a socket pair");
            let (root, _) = desk();
            let (near, before) = tokio::join!(connect(near, 0, None), raw(before, 1, 0));
            let number = near.core.agreed.peer_host_id;
            let (behind, far) = tokio::join!(
                raw(behind, 0, number),
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
                                let descriptors = frame.descriptors.into_iter();
                                let descriptors =
                                    descriptors.map(|descriptor| descriptor.into_owned());
                                if to
                                    .push(frame.header, &[&body], descriptors.collect())
                                    .is_err()
                                {
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
    over_descriptors(|over| async move {
        let (near, sender, _receiver) = attacked(over).await;
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
    over_descriptors(|over| async move {
        let (near, sender, _receiver) = attacked(over).await;
        let sample = Sample::new(MediaTime::ZERO, MediaTime::ZERO, vec![0; 1 << 20]);
        let body = postcard::to_allocvec(&WaitWith(None, Some(sample))).expect("is written");
        for call in 0..100 {
            let header = FrameHeader {
                kind: kind::CALL,
                method: <WaitWith as super::super::Remote>::ID,
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
fn a_flood_of_cancelled_calls_is_bounded() {
    over_descriptors(|over| async move {
        let (near, sender, mut receiver) = attacked(over).await;
        let call = |method, call| FrameHeader {
            kind: kind::CALL,
            method,
            call,
            ..FrameHeader::default()
        };
        actix_rt::spawn(async move {
            let mut frames = Vec::new();
            while receiver.receive(&mut frames).await.is_ok() {
                frames.clear();
            }
        });
        let stall = <Stall as super::super::Remote>::ID;
        sender
            .push(call(stall, 0), &[], Vec::new())
            .expect("is open");
        for id in 1..100_000 {
            let wait = call(<Wait as super::super::Remote>::ID, id);
            let cancel = FrameHeader {
                kind: kind::CANCEL,
                ..wait
            };
            if sender.push(wait, &[], Vec::new()).is_err()
                || sender.push(cancel, &[], Vec::new()).is_err()
            {
                break;
            }
            if id % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let error = near.lost().wait().await;
        assert!(error.to_string().contains("cancelled calls"), "{error}");
    });
}

#[test]
fn what_does_not_exist_any_more_is_answered_with_an_error() {
    over_descriptors(|over| async move {
        let (near, sender, mut receiver) = attacked(over).await;
        let unknown_method = FrameHeader {
            kind: kind::CALL,
            method: 5,
            call: 7,
            ..FrameHeader::default()
        };
        let release = FrameHeader {
            kind: kind::RELEASE,
            call: 1,
            ..FrameHeader::default()
        };
        let released = FrameHeader {
            call: 8,
            ..unknown_method
        };
        for header in [unknown_method, release, released] {
            sender.push(header, &[], Vec::new()).expect("is open");
        }
        let mut frames = Vec::new();
        while frames.len() < 2 {
            receiver.receive(&mut frames).await.expect("is open");
        }
        let error = |at: usize| -> Error {
            assert_eq!(frames[at].header.kind, kind::REPLY);
            assert_eq!(frames[at].header.call, 7 + at as u64);
            postcard::from_bytes(&frames[at].body).expect("an error")
        };
        assert!(error(0).to_string().contains("no method 0x00000005"));
        assert_eq!(error(1).kind(), &ErrorKind::ActorStopped);
        assert!(near.lost().now().is_none());
    });
}

#[test]
fn descriptors_and_segments_are_what_their_frames_say() {
    over_descriptors(|over| async move {
        let segment = |call, method| FrameHeader {
            kind: kind::SEGMENT,
            call,
            method,
            ..FrameHeader::default()
        };
        let ping = FrameHeader {
            kind: kind::PING,
            ..FrameHeader::default()
        };
        let cases = [
            (ping, 1, "descriptors with a frame of kind 7"),
            (segment(4096, 1), 0, "with 0 descriptors"),
            (segment(0, 1), 0, "with 0 descriptors"),
            (segment(4096, 1), 2, "with 2 descriptors"),
            (segment(4096, 1), 1, "cannot be sealed"),
            (segment(0, 0), 0, "there is no such segment"),
        ];
        for (header, count, why) in cases {
            let (near, sender, _receiver) = attacked(over).await;
            let file = || std::fs::File::open("/dev/null").expect("is there").into();
            let files = (0..count).map(|_| file()).collect();
            sender.push(header, &[], files).expect("is open");
            let error = near.lost().wait().await;
            assert!(error.to_string().contains(why), "{error}");
        }
    });
}

/// A descriptor whose closing lasts: what was written to it has not been read.
fn stuck(listener: &TcpListener) -> (OwnedFd, TcpStream) {
    let address = listener.local_addr().expect("is bound");
    let stream = TcpStream::connect(address).expect("connects");
    let (reader, _) = listener.accept().expect("is connected");
    sockopt::set_socket_linger(&stream, Some(Duration::from_secs(60))).expect("is set");
    stream.set_nonblocking(true).expect("is set");
    while (&stream).write(&[0; 64 << 10]).is_ok() {}
    (stream.into(), reader)
}

#[test]
fn descriptors_for_nothing_are_bounded() {
    over_each(&[Over::Socket, Over::Rings], &[false], |over| async move {
        let (near, sender, _receiver) = attacked(over).await;
        let listener = TcpListener::bind("127.0.0.1:0").expect("is free");
        let mut readers = Vec::new();
        for call in 0..5 {
            let nothing = FrameHeader {
                kind: kind::CALL,
                method: 5,
                call,
                ..FrameHeader::default()
            };
            let (files, of_them): (_, Vec<_>) = (0..16).map(|_| stuck(&listener)).unzip();
            readers.extend(of_them);
            sender.push(nothing, &[], files).expect("is open");
        }
        let error = near.lost().wait().await;
        let said = "80 descriptors that no message took";
        assert!(error.to_string().contains(said), "{error}");
    });
}

#[test]
fn descriptors_for_nothing_that_can_be_closed_are_no_attack_however_many() {
    over_descriptors(|over| async move {
        let (near, sender, mut receiver) = attacked(over).await;
        for call in 0..100 {
            let nothing = FrameHeader {
                kind: kind::CALL,
                method: 5,
                call,
                ..FrameHeader::default()
            };
            let file = || std::fs::File::open("/dev/null").expect("is there").into();
            let files = (0..16).map(|_| file()).collect();
            sender.push(nothing, &[], files).expect("is open");
        }
        let mut frames = Vec::new();
        while frames.len() < 100 {
            receiver.receive(&mut frames).await.expect("is open");
        }
        while near.core.untaken() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(near.lost().now().is_none());
    });
}

#[test]
fn a_handle_to_a_third_host_is_refused_by_name() {
    over_descriptors(|over| async move {
        let (near, sender, _receiver) = attacked(over).await;
        let desk = <Desk as super::super::Interface>::ID;
        let body = postcard::to_allocvec(&(77_u64, 0_u32, 0_u32, desk)).expect("encodes");
        let header = FrameHeader {
            kind: kind::CALL,
            method: <Keep as super::super::Remote>::ID,
            ..FrameHeader::default()
        };
        sender.push(header, &[&body], Vec::new()).expect("is open");
        let error = near.lost().wait().await;
        assert!(error.to_string().contains("an actor in host 77"), "{error}");
    });
}

#[test]
fn what_was_never_asked_ends_the_link() {
    over_descriptors(|over| async move {
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
            let (near, sender, _receiver) = attacked(over).await;
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
pub(super) fn run_in_no_time(test: impl Future<Output = ()> + 'static) {
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
