//! A peer that an attacker has, and rings under load.

mod load;

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::{
    MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_setfl, ftruncate, memfd_create,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::*;
use crate::frame::{Frame, FrameHeader};
use crate::handshake::{HELLO_LEN, Hello};
use crate::link::{Endpoint, Link, LinkConfig, LinkReceiver, MIN_RING, socket_pair};
use crate::sys::alarm;
use crate::sys::ring::HEADER;
use crate::testing::{pipe_pair, run, until_closed};

const RINGS: LinkConfig = LinkConfig {
    carrier: crate::link::Carrier::Rings,
    spin: crate::link::Spin::Never,
    ring_bytes: MIN_RING,
};

const CAPACITY: usize = MIN_RING as usize;

/// The offer of an honest peer.
fn offer() -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(b"PCRINGS\n\x01\x00\x20\x00\x00\x00\x01\x00");
    bytes
}

fn send(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors)));
    let sent = sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    );
    assert_eq!(sent, Ok(bytes.len()));
}

/// The peer of a link, of which everything is ours to choose.
struct Rogue {
    socket: OwnedFd,
    ring: OwnRing,
    alarm: OwnedFd,
    /// The link's own ring and alarm.
    theirs: PeerRing,
    bell: OwnedFd,
}

/// A link and its hostile peer.
async fn attacked() -> (Link, Rogue) {
    let (ours, socket) = socket_pair().unwrap();
    let (ring, file) = OwnRing::create(CAPACITY).unwrap();
    let alarm = alarm::create().unwrap();
    send(&socket, &Hello::default().to_bytes(), &[]);
    send(&socket, &offer(), &[file.as_fd(), alarm.as_fd()]);
    let link = Endpoint::unix(ours).config(RINGS).connect(Hello::default());
    let link = link.await.unwrap();
    assert!(link.agreed.features.contains(Features::RINGS));
    // What the link gave in turn.
    let socket = tokio::net::UnixStream::from_std({
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true).unwrap();
        socket
    })
    .unwrap();
    let mut bytes = [0; HELLO_LEN + offer::OFFER_LEN];
    let (len, mut descriptors) =
        std::future::poll_fn(|cx| crate::wire::unix::poll_receive(&socket, cx, &mut bytes))
            .await
            .unwrap();
    assert_eq!(len, bytes.len());
    assert_eq!(bytes[HELLO_LEN..], offer(), "Spin::Never is told");
    let theirs = PeerRing::map(&descriptors[0], CAPACITY).unwrap();
    let rogue = Rogue {
        socket: socket.into_std().unwrap().into(),
        ring,
        alarm,
        theirs,
        bell: descriptors.remove(1).into_owned(),
    };
    (link, rogue)
}

impl Rogue {
    /// Writes a word, and wakes the link to see it.
    fn word(&self, word: Word, value: u64) {
        self.ring.store(place(word), value);
        rustix::io::write(&self.bell, &[0; 8]).unwrap();
    }

    /// Waits until a word of the link's is as it should be.
    async fn until(&self, word: Word, reached: impl Fn(u64) -> bool) {
        while !reached(self.theirs.load(place(word))) {
            tokio::task::yield_now().await;
        }
    }

    /// Writes frames at the beginning of the ring.
    fn write(&self, bytes: &[u8]) {
        self.ring.write(0, bytes);
        self.word(Word::Tail, bytes.len() as u64);
    }
}

fn frame(kind: u16, descriptors: usize, body: &[u8]) -> Vec<u8> {
    let mut header = FrameHeader {
        kind,
        len: body.len() as u32,
        ..FrameHeader::default()
    };
    header.flags = descriptors as u16;
    [&header.to_bytes(), body].concat()
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

fn assert_protocol(error: &TransportError, text: &str) {
    assert!(matches!(error, TransportError::Protocol { .. }), "{error}");
    assert!(error.to_string().contains(text), "{error} without {text}");
}

#[test]
fn the_layout_is_what_version_one_says() {
    use Word::{DataSleep, Finished, Head, RoomSleep, Tail};
    assert_eq!((HEADER, offer::FORMAT), (4096, 1));
    let places = [Tail, Head, DataSleep, RoomSleep, Finished].map(place);
    assert_eq!(places, [0, 128, 256, 384, 512]);
    run(async {
        let (ours, _) = tokio::net::UnixStream::pair().unwrap();
        let config = LinkConfig {
            spin: crate::link::Spin::Adaptive,
            ..RINGS
        };
        let made = Offer::make(config, ours.into()).unwrap();
        let mut golden = offer();
        golden[16] = 1;
        assert_eq!(made.to_bytes(), golden);
    });
    assert_eq!(
        lifeline::message(0x0102_0304_0506_0708, 3),
        *b"PCFD\x03\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01"
    );
}

#[test]
fn both_sides_must_want_rings() {
    let socket = LinkConfig {
        carrier: crate::link::Carrier::Socket,
        ..RINGS
    };
    for (one, two) in [(RINGS, socket), (socket, RINGS), (socket, socket)] {
        run(async {
            let (near, far) = Endpoint::unix_pair().unwrap();
            let (near, far) = (near.config(one), far.config(two));
            let (near, mut far) = crate::testing::linked(near, far).await;
            assert!(!near.agreed.features.contains(Features::RINGS));
            assert!(near.agreed.features.contains(Features::DESCRIPTORS));
            tokio::task::spawn_local(near.writer);
            near.sender
                .push(FrameHeader::default(), &[], vec![pipe_pair().0])
                .unwrap();
            assert_eq!(
                receive_count(&mut far.receiver, 1).await[0]
                    .descriptors
                    .len(),
                1
            );
        });
    }
}

/// What comes of a link to a peer that offers this.
async fn offered(bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> TransportError {
    let (ours, peer) = socket_pair().unwrap();
    send(&peer, &Hello::default().to_bytes(), &[]);
    send(&peer, bytes, descriptors);
    let link = Endpoint::unix(ours).config(RINGS).connect(Hello::default());
    link.await.expect_err("is refused")
}

#[test]
fn an_offer_that_is_not_sound_is_refused_by_name() {
    run(async {
        let (_ring, file) = OwnRing::create(CAPACITY).unwrap();
        let alarm = alarm::create().unwrap();
        let both = [file.as_fd(), alarm.as_fd()];
        for (at, value, text) in [
            (0, b'X', "no offer"),
            (8, 2, "ring format"),
            (10, 33, "ring format"),
            (12, 1, "a ring of 65537 bytes"),
            (14, 0, "a ring of 0 bytes"),
            (14, 3, "a ring of 196608 bytes"),
            (15, 0x80, "a ring of 2147549184 bytes"),
        ] {
            let mut bytes = offer();
            bytes[at] = value;
            let error = offered(&bytes, &both).await;
            assert!(error.to_string().contains(text), "{error} without {text}");
        }
        let third = pipe_pair();
        for descriptors in [
            &[][..],
            &both[..1],
            &[both[0], both[1], third.0.as_fd()],
            &[both[1]; 16],
        ] {
            let error = offered(&offer(), descriptors).await;
            let text = format!("{} descriptors came, announced are 2", descriptors.len());
            assert_protocol(&error, &text);
        }
        assert_protocol(
            &offered(&offer(), &[both[1]; 20]).await,
            "more than 16 descriptors",
        );
        // With each byte as many as one message has: the first are refused, and no more is waited for.
        let (ours, peer) = socket_pair().unwrap();
        send(&peer, &Hello::default().to_bytes(), &[]);
        for byte in &offer()[..2] {
            send(&peer, &[*byte], &[both[1]; 16]);
        }
        let link = Endpoint::unix(ours).config(RINGS).connect(Hello::default());
        let error = link.await.expect_err("is refused");
        assert_protocol(&error, "16 descriptors came, announced are 2");
        assert_protocol(
            &offered(&[&offer()[..], b"x"].concat(), &both).await,
            "bytes follow the offer",
        );
    });
}

#[test]
fn memory_that_is_not_what_it_must_be_is_refused_by_name() {
    run(async {
        let alarm = alarm::create().unwrap();
        let refused = async |file: BorrowedFd<'_>, text: &str| {
            let error = offered(&offer(), &[file, alarm.as_fd()]).await;
            assert_protocol(&error, text);
        };
        let memory = |len: usize, seals: SealFlags| {
            let file = memfd_create(c"rogue", MemfdFlags::ALLOW_SEALING).unwrap();
            ftruncate(&file, len as u64).unwrap();
            fcntl_add_seals(&file, seals).unwrap();
            file
        };
        let all = crate::sys::segment::SEGMENT_SEALS;
        let len = HEADER + CAPACITY;
        for missing in [
            SealFlags::SHRINK,
            SealFlags::GROW,
            SealFlags::FUTURE_WRITE,
            SealFlags::SEAL,
        ] {
            refused(memory(len, all.difference(missing)).as_fd(), "sealed with").await;
        }
        for len in [0, CAPACITY, len - 1, len + 1] {
            refused(memory(len, all).as_fd(), &format!("{len} bytes long")).await;
        }
        refused(pipe_pair().0.as_fd(), "cannot be sealed").await;
        refused(alarm.as_fd(), "cannot be sealed").await;
    });
}

#[test]
fn an_alarm_that_is_none_is_refused_by_name() {
    run(async {
        let (_ring, file) = OwnRing::create(CAPACITY).unwrap();
        let refused = async |alarm: BorrowedFd<'_>, text: &str| {
            let error = offered(&offer(), &[file.as_fd(), alarm]).await;
            assert_protocol(&error, text);
        };
        let (reader, writer) = pipe_pair();
        refused(reader.as_fd(), "not an event counter").await;
        refused(writer.as_fd(), "not an event counter").await;
        refused(socket_pair().unwrap().0.as_fd(), "not an event counter").await;
        refused(file.as_fd(), "not an event counter").await;
        refused(
            eventfd(0, EventfdFlags::empty()).unwrap().as_fd(),
            "may block",
        )
        .await;
        let other = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        fcntl_setfl(&other, OFlags::NONBLOCK).unwrap();
        refused(other.as_fd(), "not an event counter").await;
    });
}

#[test]
fn indices_that_run_backwards_or_wild_end_the_link_by_name() {
    run(async {
        for (tail, text) in [
            (CAPACITY as u64 + 33, "where 32 bytes were read"),
            (u64::MAX, "where 32 bytes were read"),
            (31, "backwards, from 32 to 31"),
            (0, "backwards, from 32 to 0"),
        ] {
            let (mut link, rogue) = attacked().await;
            rogue.write(&frame(7, 0, b""));
            assert_eq!(receive_count(&mut link.receiver, 1).await[0].header.kind, 7);
            rogue.word(Word::Tail, tail);
            assert_protocol(&failure(&mut link.receiver).await, text);
        }
        for (heads, text) in [
            (&[CAPACITY as u64 + 1][..], "where 65536 bytes were written"),
            (&[u64::MAX], "where 65536 bytes were written"),
            (&[1000, 999], "backwards, from 1000 to 999"),
        ] {
            let (link, rogue) = attacked().await;
            let body = vec![0; 2 * CAPACITY];
            link.sender
                .push(FrameHeader::default(), &[&body], Vec::new())
                .unwrap();
            let writer = tokio::task::spawn_local(link.writer);
            let mut written = CAPACITY as u64;
            for head in heads {
                rogue.until(Word::Tail, |tail| tail == written).await;
                rogue.until(Word::RoomSleep, |epoch| epoch % 2 == 1).await;
                rogue.word(Word::Head, *head);
                written = written.wrapping_add(*head);
            }
            assert_protocol(&writer.await.unwrap().unwrap_err(), text);
        }
    });
}

#[test]
fn descriptors_that_are_not_those_of_the_next_frame_end_the_link() {
    run(async {
        let (kept, given) = pipe_pair();
        let given = given.as_fd();
        // What is in the ring, and what comes over the socket with how many descriptors.
        let message = |number, count| lifeline::message(number, count).to_vec();
        for (ring, message, count, text) in [
            (frame(1, 1, b""), message(1, 1), 1, "not message 0"),
            (frame(1, 1, b""), message(u64::MAX, 1), 1, "not message 0"),
            (frame(1, 1, b""), message(0, 2), 1, "not message 0"),
            (frame(1, 1, b""), message(0, 1), 2, "not message 0"),
            (
                frame(1, 1, b""),
                message(0, 1)[..15].to_vec(),
                1,
                "15 bytes",
            ),
            (
                frame(1, 1, b""),
                [message(0, 1), b"x".to_vec()].concat(),
                1,
                "17 bytes",
            ),
            (frame(1, 1, b""), message(0, 0), 0, "has none"),
            (
                frame(1, 2, b""),
                message(0, 1),
                1,
                "where the frame announces 2",
            ),
            (
                frame(1, 1, b""),
                message(0, 2),
                2,
                "where the frame announces 1",
            ),
            (frame(1, 0, b""), message(0, 1), 1, "no frame announces"),
            (Vec::new(), message(0, 1), 1, "no frame announces"),
            (
                frame(1, 1, b"")[..31].to_vec(),
                message(0, 1),
                1,
                "no frame announces",
            ),
            (
                frame(1, 1, b""),
                message(0, 30),
                30,
                "more than 16 descriptors",
            ),
            (
                frame(1, 17, b""),
                message(0, 16),
                16,
                "announces 17 descriptors",
            ),
        ] {
            let (mut link, rogue) = attacked().await;
            rogue.write(&ring);
            send(&rogue.socket, &message, &vec![given; count]);
            assert_protocol(&failure(&mut link.receiver).await, text);
        }
        // Sound ones, so that the above fails for its own reason; the second frame without the second message.
        let (mut link, rogue) = attacked().await;
        rogue.write(&[frame(1, 1, b"body"), frame(2, 1, b"")].concat());
        send(&rogue.socket, &message(0, 1), &[given]);
        let frames = receive_count(&mut link.receiver, 1).await;
        assert_eq!((frames.len(), frames[0].descriptors.len()), (1, 1));
        drop((rogue, frames));
        assert_protocol(&failure(&mut link.receiver).await, "32 bytes into a frame");
        drop(kept);
    });
}

#[test]
fn descriptors_that_are_refused_are_closed() {
    run(async {
        let (kept, given) = pipe_pair();
        let (mut link, rogue) = attacked().await;
        send(&rogue.socket, &lifeline::message(0, 1), &[given.as_fd()]);
        assert_protocol(&failure(&mut link.receiver).await, "no frame announces");
        drop((given, link));
        until_closed(&kept);
    });
}

#[test]
fn bytes_that_change_after_they_were_read_change_nothing() {
    run(async {
        let (mut link, rogue) = attacked().await;
        let whole = frame(7, 0, b"what was checked");
        // Cut in the body: the header has been looked at when it changes.
        rogue.ring.write(0, &whole);
        rogue.word(Word::Tail, 40);
        let mut frames = Vec::new();
        let early = tokio::time::timeout(
            std::time::Duration::from_millis(1),
            link.receiver.receive(&mut frames),
        );
        assert!(early.await.is_err());
        rogue.until(Word::Head, |head| head == 40).await;
        rogue.ring.write(0, &frame(8, 0, &[0; 1000])[..40]);
        rogue.word(Word::Tail, whole.len() as u64);
        let frames = receive_count(&mut link.receiver, 1).await;
        assert_eq!(frames[0].header.kind, 7);
        assert_eq!(frames[0].body, "what was checked");
        rogue.ring.write(32, b"something else!!");
        assert_eq!(frames[0].body, "what was checked");
    });
}

#[test]
fn an_alarm_that_is_full_and_may_block_blocks_nobody() {
    run(async {
        let (link, rogue) = attacked().await;
        // Both flags and the count belong to whoever has the descriptor.
        rustix::io::write(&rogue.alarm, &(u64::MAX - 2).to_ne_bytes()).unwrap();
        rustix::io::write(&rogue.alarm, &1u64.to_ne_bytes()).unwrap_err();
        fcntl_setfl(&rogue.alarm, OFlags::empty()).unwrap();
        tokio::task::spawn_local(link.writer);
        for epoch in [1, 3, 5] {
            rogue.word(Word::DataSleep, epoch);
            link.sender
                .push(FrameHeader::default(), &[], Vec::new())
                .unwrap();
            link.sender.flush().await.unwrap();
        }
        // Nor does it when the link's own is drained.
        let mut count = [0; 8];
        rustix::io::read(rogue.bell.as_fd(), &mut count).unwrap();
        fcntl_setfl(rogue.bell.as_fd(), OFlags::empty()).unwrap();
        rogue.write(&frame(7, 0, b""));
        let mut receiver = link.receiver;
        assert_eq!(receive_count(&mut receiver, 1).await.len(), 1);
    });
}

#[test]
fn what_was_written_before_the_end_is_read_and_nothing_after() {
    run(async {
        let (mut link, rogue) = attacked().await;
        rogue.write(&[frame(1, 0, b"whole"), frame(2, 0, b"half")[..33].to_vec()].concat());
        drop(rogue);
        assert_eq!(receive_count(&mut link.receiver, 1).await[0].body, "whole");
        assert_protocol(&failure(&mut link.receiver).await, "33 bytes into a frame");

        // A process that goes on writing after it has closed the socket.
        let (mut link, rogue) = attacked().await;
        let whole = frame(1, 0, b"");
        rogue.write(&whole);
        rustix::net::shutdown(&rogue.socket, rustix::net::Shutdown::Write).unwrap();
        let mut frames = Vec::new();
        let mut written = whole.len();
        let error = loop {
            let len = whole.len();
            rogue.ring.write(written % CAPACITY, &whole);
            written += len;
            rogue.word(Word::Tail, written as u64);
            if let Err(error) = link.receiver.receive(&mut frames).await {
                break error;
            }
            assert!(frames.len() < 100, "it does not end");
        };
        assert_eq!(error, TransportError::Closed);
    });
}

#[test]
fn a_writer_learns_that_the_peer_has_gone_also_where_nobody_reads() {
    run(async {
        let (link, rogue) = attacked().await;
        let body = vec![0; 2 * CAPACITY];
        link.sender
            .push(FrameHeader::default(), &[&body], Vec::new())
            .unwrap();
        let writer = tokio::task::spawn_local(link.writer);
        rogue.until(Word::RoomSleep, |epoch| epoch % 2 == 1).await;
        drop(rogue);
        assert_eq!(writer.await.unwrap(), Err(TransportError::Closed));
    });
}

#[test]
fn one_that_spun_in_vain_says_that_it_sleeps() {
    run(async {
        let (near, far) = Endpoint::unix_pair().unwrap();
        let config = LinkConfig {
            spin: crate::link::Spin::Adaptive,
            ..RINGS
        };
        let (near, mut far) = crate::testing::linked(near.config(config), far.config(config)).await;
        tokio::task::spawn_local(near.writer);
        for _ in 0..100 {
            near.sender
                .push(FrameHeader::default(), &[], Vec::new())
                .unwrap();
            // It waits long each time, and is woken each time.
            let mut frames = Vec::new();
            let receive = far.receiver.receive(&mut frames);
            tokio::time::timeout(std::time::Duration::from_secs(10), receive)
                .await
                .unwrap()
                .unwrap();
            let none = far.receiver.receive(&mut frames);
            let waited = tokio::time::timeout(std::time::Duration::from_millis(1), none).await;
            assert!(waited.is_err());
        }
    });
}
