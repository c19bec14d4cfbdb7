//! A peer that does not answer is reported, and that it answers again is too; nobody waits longer than agreed.

use portcullis_transport::FrameHeader;

use super::super::link::kind;
use super::super::{Heartbeat, PeerState};
use super::hostile::{raw, run_in_no_time};
use super::*;

/// A link with this heartbeat, and its peer, of which only the frames are ours.
async fn watched(
    heartbeat: Heartbeat,
) -> (
    Link,
    portcullis_transport::LinkSender,
    portcullis_transport::LinkReceiver,
) {
    let (near, far) = Endpoint::memory_pair(64 << 10);
    let near = Link::builder().heartbeat(heartbeat).connect(near);
    let (near, far) = tokio::join!(near, raw(far, 1, 0));
    actix_rt::spawn(far.writer);
    (near.expect("connects"), far.sender, far.receiver)
}

fn pong() -> FrameHeader {
    FrameHeader {
        kind: kind::PONG,
        ..FrameHeader::default()
    }
}

#[test]
fn silence_is_reported_and_so_is_its_end_and_calls_end_at_their_deadline() {
    run_in_no_time(async {
        let (near, sender, _receiver) = watched(Heartbeat::default().never_lost()).await;
        let mut states = near.peer_states();
        assert_eq!(states.now(), PeerState::Responsive);
        let root = near.root::<Desk>().expect("a root");
        // Nobody waits: nothing is asked and nothing reported.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(states.now(), PeerState::Responsive);

        let waiting = root.send(Wait);
        let late = root.send(Late).await.expect_err("is late");
        assert!(matches!(late.kind(), ErrorKind::DeadlineExceeded { .. }));
        let began = tokio::time::Instant::now();
        let state = states.next().await;
        assert!(
            matches!(state, Some(PeerState::Unresponsive { .. })),
            "{state:?}"
        );
        assert!(began.elapsed() <= Duration::from_secs(4));
        // It is not given up, not even for the cancel that it has not answered.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(near.lost().now().is_none());
        sender.push(pong(), &[], Vec::new()).expect("is open");
        assert_eq!(states.next().await, Some(PeerState::Responsive));
        // From now on it owes the answer to the cancel again.
        assert!(near.lost().now().is_none());
        sender.close();
        waiting.await.expect_err("lost");
        assert_eq!(states.next().await, Some(PeerState::Lost));
        assert_eq!(states.next().await, None);
        assert_eq!(near.peer_states().now(), PeerState::Lost);
    });
}

#[test]
fn silence_for_longer_than_agreed_is_a_loss() {
    run_in_no_time(async {
        let heartbeat = Heartbeat::default()
            .interval(Duration::from_millis(100))
            .unresponsive_after(1)
            .lost_after(3);
        let (near, _sender, _receiver) = watched(heartbeat).await;
        let mut states = near.peer_states();
        let root = near.root::<Desk>().expect("a root");
        let began = tokio::time::Instant::now();
        let error = root.send(Wait).await.expect_err("nobody answers");
        assert!(error.host_exit().is_some(), "{error}");
        let elapsed = began.elapsed();
        assert!(elapsed <= Duration::from_millis(600), "{elapsed:?}");
        assert_eq!(states.next().await, Some(PeerState::Lost), "the newest");
    });
}

/// Makes a call of which the peer is told that it is cancelled; gives the call's id.
async fn cancelled(near: &Link, receiver: &mut portcullis_transport::LinkReceiver) -> u64 {
    let root = near.root::<Desk>().expect("a root");
    let waiting = root.send(Wait);
    let mut frames = Vec::new();
    receiver.receive(&mut frames).await.expect("is open");
    drop(waiting);
    loop {
        let cancel = frames.drain(..).find(|it| it.header.kind == kind::CANCEL);
        if let Some(cancel) = cancel {
            return cancel.header.call;
        }
        receiver.receive(&mut frames).await.expect("is open");
    }
}

fn cancel_answer(call: u64) -> FrameHeader {
    FrameHeader {
        kind: kind::REPLY,
        flags: 1 << 14,
        call,
        ..FrameHeader::default()
    }
}

#[test]
fn a_peer_that_stood_still_owes_what_it_owes_from_then_on() {
    run_in_no_time(async {
        // A heartbeat that notices nothing.
        let heartbeat = Heartbeat::default().interval(Duration::from_secs(3600));
        let (near, sender, mut receiver) = watched(heartbeat).await;
        let call = cancelled(&near, &mut receiver).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(near.lost().now().is_none(), "nothing was heard of it");
        sender.push(pong(), &[], Vec::new()).expect("is open");
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert!(near.lost().now().is_none(), "it is going on just now");
        let answer = cancel_answer(call);
        sender.push(answer, &[], Vec::new()).expect("is open");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(near.lost().now().is_none(), "it has answered");

        cancelled(&near, &mut receiver).await;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            // It may be open no more.
            let _ = sender.push(pong(), &[], Vec::new());
        }
        let error = near.lost().now().expect("it said something all the time");
        assert!(error.to_string().contains("no answer to the cancel"));
    });
}

#[test]
fn a_peer_is_not_blamed_where_this_side_stood_still() {
    run_in_no_time(async {
        let (near, sender, mut receiver) = watched(Heartbeat::default()).await;
        for _ in 0..20 {
            let call = cancelled(&near, &mut receiver).await;
            // What it has said meanwhile is read bit by bit, and not before.
            sender.push(pong(), &[], Vec::new()).expect("is open");
            tokio::time::advance(Duration::from_secs(15)).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            let answer = cancel_answer(call);
            sender.push(answer, &[], Vec::new()).expect("is open");
            while near.core.census().outgoing > 0 {
                assert!(near.lost().now().is_none());
                tokio::task::yield_now().await;
            }
        }
    });
}
