//! The claims of a link, each over every kind of wire that can keep it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::*;
use crate::frame::{Frame, FrameHeader, HEADER_LEN, MAX_DESCRIPTORS};
use crate::testing::{linked, pipe_pair, run, until_closed};

fn header(kind: u16) -> FrameHeader {
    FrameHeader {
        kind,
        call: u64::from(kind) << 40,
        ..FrameHeader::default()
    }
}

fn pairs() -> Vec<(Endpoint, Endpoint)> {
    let mut pairs = vec![
        unix_pair(Carrier::Socket, Spin::Never),
        Endpoint::memory_pair(64 << 10),
    ];
    pairs.extend(ring_pairs());
    pairs
}

/// What can carry descriptors.
fn pairs_with_descriptors() -> Vec<(Endpoint, Endpoint)> {
    let mut pairs = vec![unix_pair(Carrier::Socket, Spin::Never)];
    pairs.extend(ring_pairs());
    pairs
}

fn ring_pairs() -> [(Endpoint, Endpoint); 2] {
    [Spin::Never, Spin::Adaptive].map(|spin| unix_pair(Carrier::Rings, spin))
}

fn unix_pair(carrier: Carrier, spin: Spin) -> (Endpoint, Endpoint) {
    let config = LinkConfig {
        carrier,
        spin,
        ..LinkConfig::default()
    };
    let (one, two) = Endpoint::unix_pair().unwrap();
    (one.config(config), two.config(config))
}

async fn receive_count(receiver: &mut LinkReceiver, count: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    while frames.len() < count {
        receiver.receive(&mut frames).await.unwrap();
    }
    frames
}

async fn failure(receiver: &mut LinkReceiver) -> TransportError {
    let mut frames = Vec::new();
    loop {
        if let Err(error) = receiver.receive(&mut frames).await {
            return error;
        }
    }
}

/// The hello of a peer that has no rings.
fn socket_hello() -> Hello {
    Hello {
        features: Features::ALL.without(Features::RINGS),
        ..Hello::default()
    }
}

/// A link on one side, the bare socket on the other, past the handshake.
async fn against_raw_peer() -> (Link, OwnedFd) {
    let (ours, theirs) = socket_pair().unwrap();
    rustix::io::write(&theirs, &socket_hello().to_bytes()).unwrap();
    let link = Endpoint::unix(ours)
        .connect(Hello::default())
        .await
        .unwrap();
    let mut hello = [0; HELLO_LEN];
    assert_eq!(rustix::io::read(&theirs, &mut hello).unwrap(), HELLO_LEN);
    (link, theirs)
}

#[test]
fn frames_arrive_whole_and_in_order() {
    for (one, two) in pairs() {
        run(async {
            let (one, mut two) = linked(one, two).await;
            tokio::task::spawn_local(one.writer);
            for kind in 0..500 {
                let body = vec![kind as u8; usize::from(kind) * 7];
                let (front, back) = body.split_at(body.len() / 3);
                one.sender
                    .push(header(kind), &[front, back], Vec::new())
                    .unwrap();
            }
            let frames = receive_count(&mut two.receiver, 500).await;
            for (kind, frame) in (0u16..).zip(&frames) {
                assert_eq!(
                    frame.header,
                    FrameHeader {
                        len: u32::from(kind) * 7,
                        ..header(kind)
                    }
                );
                assert!(frame.body.iter().all(|byte| *byte == kind as u8));
            }
            one.sender.flush().await.unwrap();
            assert_eq!(one.sender.queued_bytes(), 0);
        });
    }
}

#[test]
fn large_frames_cross_both_ways_at_once() {
    for (one, two) in pairs() {
        run(async {
            let (mut one, mut two) = linked(one, two).await;
            tokio::task::spawn_local(one.writer);
            tokio::task::spawn_local(two.writer);
            let body: Vec<u8> = (0..1 << 20).map(|at: u32| (at >> 3) as u8).collect();
            for link in [&one.sender, &two.sender] {
                link.push(header(1), &[&body], Vec::new()).unwrap();
                link.push(header(2), &[&body], Vec::new()).unwrap();
            }
            let (left, right) = tokio::join!(
                receive_count(&mut one.receiver, 2),
                receive_count(&mut two.receiver, 2)
            );
            assert!(left.iter().chain(&right).all(|frame| frame.body == body));
        });
    }
}

#[test]
fn one_receive_gives_at_most_its_budget() {
    for (one, two) in pairs() {
        run(async {
            let (one, mut two) = linked(one, two).await;
            tokio::task::spawn_local(one.writer);
            for _ in 0..1000 {
                one.sender.push(header(1), &[], Vec::new()).unwrap();
            }
            one.sender.flush().await.unwrap();
            let mut total = 0;
            while total < 1000 {
                let mut frames = Vec::new();
                two.receiver.receive(&mut frames).await.unwrap();
                assert!((1..=MAX_FRAMES_PER_RECEIVE).contains(&frames.len()));
                total += frames.len();
            }
        });
    }
}

#[test]
fn limits_are_refused_by_the_sender() {
    for (one, two) in pairs() {
        run(async {
            let (one, _two) = linked(one, two).await;
            let body = vec![0; one.sender.max_frame() + 1];
            let refused = one.sender.push(header(1), &[&body], Vec::new());
            assert!(matches!(refused, Err(TransportError::FrameTooLarge { .. })));
            let descriptors: Vec<OwnedFd> = (0..=MAX_DESCRIPTORS).map(|_| pipe_pair().0).collect();
            let refused = one.sender.push(header(1), &[], descriptors);
            assert!(matches!(
                refused,
                Err(TransportError::TooManyDescriptors { .. })
            ));
            let body = vec![0; 1 << 20];
            let refused = loop {
                if let Err(error) = one.sender.push(header(1), &[&body], Vec::new()) {
                    break error;
                }
            };
            assert!(
                matches!(refused, TransportError::QueueFull { .. }),
                "a peer that never reads is bounded"
            );
        });
    }
}

#[test]
fn back_pressure_waits_for_the_peer_to_read() {
    for (one, two) in pairs() {
        run(async {
            let (one, mut two) = linked(one, two).await;
            tokio::task::spawn_local(one.writer);
            let body = vec![1; 1 << 20];
            for _ in 0..4 {
                one.sender.push(header(1), &[&body], Vec::new()).unwrap();
            }
            let sender = one.sender.clone();
            let waiting =
                tokio::task::spawn_local(async move { sender.queued_at_most(1 << 20).await });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            receive_count(&mut two.receiver, 4).await;
            waiting.await.unwrap().unwrap();
        });
    }
}

#[test]
fn descriptors_arrive_with_their_own_frame() {
    for (one, two) in pairs_with_descriptors() {
        run(async {
            let (one, mut two) = linked(one, two).await;
            assert!(one.agreed.features.contains(Features::DESCRIPTORS));
            tokio::task::spawn_local(one.writer);
            let mut writers = Vec::new();
            for kind in 0..40u16 {
                let mut given = Vec::new();
                for _ in 0..kind % 3 {
                    let (reader, writer) = pipe_pair();
                    given.push(reader);
                    writers.push((kind, writer));
                }
                let body = vec![0; usize::from(kind % 5) * 40_000];
                one.sender.push(header(kind), &[&body], given).unwrap();
            }
            let frames = receive_count(&mut two.receiver, 40).await;
            for (number, (_, writer)) in writers.iter().enumerate() {
                rustix::io::write(writer, &[number as u8]).unwrap();
            }
            let mut number = 0;
            for frame in &frames {
                assert_eq!(frame.descriptors.len(), usize::from(frame.header.kind % 3));
                for descriptor in &frame.descriptors {
                    let mut byte = [0];
                    rustix::io::read(descriptor, &mut byte).unwrap();
                    assert_eq!(usize::from(byte[0]), number);
                    let flags = rustix::io::fcntl_getfd(descriptor).unwrap();
                    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
                    number += 1;
                }
            }
            assert_eq!(number, writers.len());
        });
    }
}

#[test]
fn a_frame_with_descriptors_may_follow_the_hello_at_once() {
    run(async {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        use std::os::fd::AsFd;
        let (ours, peer) = socket_pair().unwrap();
        rustix::io::write(&peer, &socket_hello().to_bytes()).unwrap();
        let (given, _other) = pipe_pair();
        let given = [given.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&given)));
        let mut announcing = header(1);
        announcing.set_descriptor_count(1);
        let bytes = announcing.to_bytes();
        sendmsg(
            &peer,
            &[std::io::IoSlice::new(&bytes)],
            &mut control,
            SendFlags::empty(),
        )
        .unwrap();
        let mut link = Endpoint::unix(ours)
            .connect(Hello::default())
            .await
            .unwrap();
        assert_eq!(
            receive_count(&mut link.receiver, 1).await[0]
                .descriptors
                .len(),
            1
        );
    });
}

#[test]
fn a_memory_link_offers_neither_descriptors_nor_shared_memory() {
    run(async {
        let (one, two) = Endpoint::memory_pair(4096);
        let (one, _two) = linked(one, two).await;
        assert_eq!(one.agreed.features, Features::NONE);
        let refused = one.sender.push(header(1), &[], vec![pipe_pair().0]);
        assert_eq!(
            refused,
            Err(TransportError::TooManyDescriptors { count: 1, max: 0 })
        );
    });
}

#[test]
fn surplus_descriptors_of_a_hostile_peer_are_closed() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd;
    for count in [1, MAX_DESCRIPTORS, 3 * MAX_DESCRIPTORS] {
        run(async {
            let (mut link, peer) = against_raw_peer().await;
            let (kept, given) = pipe_pair();
            let given_many = vec![given.as_fd(); count];
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3 * MAX_DESCRIPTORS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&given_many)));
            let unannounced = header(1).to_bytes();
            sendmsg(
                &peer,
                &[IoSlice::new(&unannounced)],
                &mut control,
                SendFlags::empty(),
            )
            .unwrap();
            assert!(matches!(
                failure(&mut link.receiver).await,
                TransportError::Protocol { .. }
            ));
            drop(given);
            until_closed(&kept);
        });
    }
}

#[test]
fn end_between_frames_is_closed_and_inside_one_a_protocol_error() {
    run(async {
        let (mut link, peer) = against_raw_peer().await;
        rustix::io::write(&peer, &header(1).to_bytes()).unwrap();
        drop(peer);
        let frames = receive_count(&mut link.receiver, 1).await;
        assert_eq!(frames.len(), 1);
        assert_eq!(failure(&mut link.receiver).await, TransportError::Closed);

        for cut in [1, HEADER_LEN - 1, HEADER_LEN + 1] {
            let (mut link, peer) = against_raw_peer().await;
            let mut bytes = FrameHeader {
                len: 8,
                ..header(1)
            }
            .to_bytes()
            .to_vec();
            bytes.extend_from_slice(&[0; 8]);
            rustix::io::write(&peer, &bytes[..cut]).unwrap();
            drop(peer);
            assert!(matches!(
                failure(&mut link.receiver).await,
                TransportError::Protocol { .. }
            ));
        }
    });
}

#[test]
fn frames_before_an_error_are_given_first() {
    run(async {
        let (mut link, peer) = against_raw_peer().await;
        let mut bytes = header(1).to_bytes().to_vec();
        bytes.extend_from_slice(
            &FrameHeader {
                len: u32::MAX,
                ..header(2)
            }
            .to_bytes(),
        );
        rustix::io::write(&peer, &bytes).unwrap();
        assert_eq!(receive_count(&mut link.receiver, 1).await.len(), 1);
        let error = failure(&mut link.receiver).await;
        assert!(matches!(error, TransportError::FrameTooLarge { .. }));
        assert_eq!(failure(&mut link.receiver).await, error, "errors are final");
    });
}

#[test]
fn what_a_peer_said_before_it_went_is_read_although_writing_failed() {
    run(async {
        let (mut link, peer) = against_raw_peer().await;
        let writer = tokio::task::spawn_local(link.writer);
        rustix::io::write(&peer, &header(7).to_bytes()).unwrap();
        drop(peer);
        link.sender.push(header(1), &[], Vec::new()).unwrap();
        assert_eq!(writer.await.unwrap(), Err(TransportError::Closed));
        assert_eq!(
            link.sender.push(header(1), &[], Vec::new()),
            Err(TransportError::Closed)
        );
        assert_eq!(receive_count(&mut link.receiver, 1).await[0].header.kind, 7);
        assert_eq!(failure(&mut link.receiver).await, TransportError::Closed);
    });
}

#[test]
fn close_writes_what_was_pushed_and_then_ends() {
    for (one, two) in pairs() {
        run(async {
            let (one, mut two) = linked(one, two).await;
            one.sender
                .push(header(1), &[&[7; 300_000]], Vec::new())
                .unwrap();
            one.sender.close();
            assert_eq!(
                one.sender.push(header(2), &[], Vec::new()),
                Err(TransportError::Closed)
            );
            let writer = tokio::task::spawn_local(one.writer);
            assert_eq!(
                receive_count(&mut two.receiver, 1).await[0].body.len(),
                300_000
            );
            assert_eq!(failure(&mut two.receiver).await, TransportError::Closed);
            assert_eq!(writer.await.unwrap(), Ok(()));
        });
    }
}

#[test]
fn abort_ends_everything_that_waits_on_either_side() {
    for (one, two) in pairs() {
        run(async {
            let (mut one, mut two) = linked(one, two).await;
            let writer = tokio::task::spawn_local(one.writer);
            for _ in 0..5 {
                one.sender
                    .push(header(1), &[&[7; 1 << 20]], Vec::new())
                    .unwrap();
            }
            let sender = one.sender.clone();
            let flushing = tokio::task::spawn_local(async move { sender.flush().await });
            let receiving =
                tokio::task::spawn_local(async move { failure(&mut one.receiver).await });
            tokio::task::yield_now().await;
            let cause = TransportError::protocol("as the layer above found");
            one.sender.abort(cause.clone());
            assert_eq!(flushing.await.unwrap(), Err(cause.clone()));
            assert_eq!(receiving.await.unwrap(), cause);
            assert_eq!(writer.await.unwrap(), Err(cause.clone()));
            assert_eq!(one.sender.push(header(1), &[], Vec::new()), Err(cause));
            failure(&mut two.receiver).await;
        });
    }
}

#[test]
fn a_dropped_writer_ends_the_link() {
    for (one, two) in pairs() {
        run(async {
            let (one, mut two) = linked(one, two).await;
            drop(one.writer);
            assert_eq!(
                one.sender.push(header(1), &[], Vec::new()),
                Err(TransportError::Closed)
            );
            assert_eq!(failure(&mut two.receiver).await, TransportError::Closed);
        });
    }
}

#[test]
fn handshake_mismatch_is_named_on_both_sides() {
    for (one, two) in pairs() {
        run(async {
            let mut other = Hello::default();
            other.limits.max_objects = 0;
            let (one, two) = tokio::join!(one.connect(Hello::default()), two.connect(other));
            for error in [one.unwrap_err(), two.unwrap_err()] {
                assert!(error.to_string().contains("max_objects"), "{error}");
                assert!(error.to_string().contains("allowed 1 to"), "{error}");
            }
        });
    }
}

#[test]
fn a_silent_peer_is_a_timeout_and_a_lost_one_is_closed() {
    run(async {
        tokio::time::pause();
        let (ours, _silent) = Endpoint::memory_pair(4096);
        let error = ours.connect(Hello::default()).await.unwrap_err();
        assert!(
            matches!(error, TransportError::Timeout { after, .. } if after == Duration::from_secs(2))
        );
        let (ours, lost) = Endpoint::memory_pair(4096);
        drop(lost);
        assert_eq!(
            ours.connect(Hello::default()).await.unwrap_err(),
            TransportError::Closed
        );
    });
}

#[test]
fn a_peer_that_speaks_something_else_is_refused() {
    run(async {
        let (ours, peer) = socket_pair().unwrap();
        rustix::io::write(&peer, &[b'x'; 300]).unwrap();
        let error = Endpoint::unix(ours)
            .connect(Hello::default())
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            TransportError::HandshakeMismatch { field: "magic", .. }
        ));
        let (ours, peer) = socket_pair().unwrap();
        rustix::io::write(&peer, &Hello::default().to_bytes()[..50]).unwrap();
        drop(peer);
        let error = Endpoint::unix(ours)
            .connect(Hello::default())
            .await
            .unwrap_err();
        assert!(matches!(error, TransportError::Protocol { .. }));
    });
}

#[test]
fn what_is_not_a_unix_stream_socket_is_refused() {
    run(async {
        let (pipe, _other) = pipe_pair();
        let error = Endpoint::unix(pipe)
            .connect(Hello::default())
            .await
            .unwrap_err();
        assert!(matches!(error, TransportError::Io { .. }), "{error}");
    });
}

#[test]
fn an_endpoint_may_move_to_another_thread() {
    let (one, two) = Endpoint::unix_pair().unwrap();
    let other = std::thread::spawn(move || {
        run(async { two.connect(Hello::default()).await.unwrap().agreed })
    });
    let agreed = run(async { one.connect(Hello::default()).await.unwrap().agreed });
    assert_eq!(agreed.limits, other.join().unwrap().limits);
}
