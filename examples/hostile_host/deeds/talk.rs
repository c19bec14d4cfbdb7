//! Attacks with frames alone.

use std::io::{self, Write};
use std::time::Duration;

use portcullis::pipeline::opener::{OpenUrl, Opener};
use portcullis::pipeline::port::Port;
use portcullis::pipeline::source::SourceControl;
use portcullis::{Error, ErrorKind, Interface, Remote};
use portcullis_transport::FrameHeader;

use super::unknown;
use crate::objects::{Created, presentation};
use crate::peer::{
    CANCELLED, Create, ERROR, Frame, HONEST, Peer, TRACED, WATCHED, WireHandle, bytes, encode,
    kind, of, reply_to,
};

/// Frames of a flood that does no harm.
const FLOOD: u64 = 100_000;

pub(crate) fn run(name: &str, peer: &mut Peer) -> io::Result<()> {
    let create = peer.behave()?;
    match name.split('-').next().unwrap_or_default() {
        "frame" | "silence" | "drip" => frame(name, peer),
        "reply" => reply(name, peer, &create),
        "handle" | "exports" => handle(name, peer, &create),
        "release" => release(name, peer, &create),
        "death" => death(name, peer, &create),
        "flood" => flood(name, peer, &create),
        _ => call(name, peer, &create),
    }
}

/// Does nothing wrong after all.
fn go_on(peer: &mut Peer, create: &Create) -> io::Result<()> {
    peer.answer_honestly(create.call)?;
    peer.serve()
}

fn frame(name: &str, peer: &mut Peer) -> io::Result<()> {
    let announced = |len| FrameHeader {
        len,
        ..of(kind::PING)
    };
    let header = announced(1000).to_bytes();
    match name {
        "frame-oversize" => peer
            .socket
            .write_all(&announced((16 << 20) + 1).to_bytes())?,
        "frame-largest" => peer.socket.write_all(&announced(u32::MAX).to_bytes())?,
        "frame-cut-in-header" => {
            peer.socket.write_all(&header[..10])?;
            return peer.shut();
        }
        "frame-cut-in-body" => {
            peer.socket.write_all(&header)?;
            peer.socket.write_all(&[0; 100])?;
            return peer.shut();
        }
        "frame-unknown" => peer.send(of(99), &[])?,
        "frame-zeros" => peer.socket.write_all(&[0; 4096])?,
        "frame-noise" => peer.socket.write_all(&[0xa5; 4096])?,
        "silence" => {}
        "silence-in-header" => peer.socket.write_all(&header[..10])?,
        "silence-in-body" => {
            peer.socket.write_all(&header)?;
            peer.socket.write_all(&[0; 999])?;
        }
        "drip" => {
            // Something comes all the time, and never a whole frame.
            peer.socket.write_all(&header)?;
            for _ in 0..900 {
                peer.socket.write_all(&[0])?;
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        _ => return unknown(name),
    }
    peer.listen()
}

fn reply(name: &str, peer: &mut Peer, create: &Create) -> io::Result<()> {
    let to = reply_to(create.call);
    let error = FrameHeader { flags: ERROR, ..to };
    let source = encode(&Created::source(peer, 1))?;
    // Where the name of the format is in it.
    let format = source.windows(7).position(|at| at == b"hostile");
    let format = format.ok_or_else(|| io::Error::other("a source without its format"))?;
    match name {
        "reply-to-nothing" => peer.send(reply_to(create.call + 1), &source)?,
        "reply-twice" => {
            peer.send(to, &source)?;
            peer.send(to, &source)?;
        }
        "reply-to-an-old-call" => peer.send(reply_to(create.call ^ 1 << 32), &source)?,
        "reply-cancelled" => peer.send(
            FrameHeader {
                flags: CANCELLED,
                ..to
            },
            &[],
        )?,
        "reply-empty" => peer.send(to, &[])?,
        "reply-of-another-type" => {
            let facts = encode(&peer.facts()?)?;
            peer.send(to, &facts)?;
        }
        "reply-utf8" => {
            let mut source = source;
            source[format..format + 2].copy_from_slice(&[0xc3, 0x28]);
            peer.send(to, &source)?;
        }
        "reply-of-gigabytes" => {
            let mut source = source[..format - 1].to_vec();
            source.extend(encode(&(1_u64 << 40))?);
            peer.send(to, &source)?;
        }
        "reply-of-a-trillion-streams" => {
            let mut source = source[..format + 7].to_vec();
            source.extend(encode(&(1_u64 << 40))?);
            peer.send(to, &source)?;
        }
        "reply-with-more-behind" => peer.send(to, &[&source[..], &[1; 3]].concat())?,
        "reply-error-garbage" => peer.send(error, &[0xff; 30])?,
        "reply-error-of-megabytes" => {
            let text = format!("{HONEST}{}", " and more".repeat(1 << 20));
            let long = Error::new(ErrorKind::InvalidRequest(text.into()));
            peer.send(error, &encode(&long)?)?;
            return peer.serve();
        }
        _ => return unknown(name),
    }
    peer.listen()
}

fn handle(name: &str, peer: &mut Peer, create: &Create) -> io::Result<()> {
    let own = |id, interface| (peer.name, id, 1, interface);
    let (control, port) = (own(1, SourceControl::ID), own(2, Port::ID));
    let given: (WireHandle, WireHandle) = match name {
        "handle-of-a-third-host" => (control, (77, 2, 1, Port::ID)),
        "handle-never-given" => (control, (0, 12, 1, Port::ID)),
        "handle-of-another-interface" => {
            let (host, id, generation, _) = create.opener;
            (control, (host, id, generation, Port::ID))
        }
        "handle-of-two-interfaces" => (control, own(1, Port::ID)),
        "handle-that-is-not-a-source" => (own(1, Opener::ID), port),
        "exports-ten-thousand" => return exports(peer, create.call),
        _ => return unknown(name),
    };
    let source = Created::Source(given.0, given.1, presentation("hostile"));
    peer.answer(create.call, &source)?;
    peer.listen()
}

/// Another source for each request, and the application keeps them all.
fn exports(peer: &mut Peer, first: u64) -> io::Result<()> {
    let mut call = first;
    for at in 0..5_000 {
        let source = Created::source(peer, 1 + 2 * at);
        peer.answer(call, &source)?;
        call = peer.next_create()?.call;
    }
    peer.listen()
}

fn call_to(object: WireHandle, method: u32, call: u64) -> FrameHeader {
    FrameHeader {
        object: object.1,
        generation: object.2,
        method,
        call,
        ..of(kind::CALL)
    }
}

fn call(name: &str, peer: &mut Peer, create: &Create) -> io::Result<()> {
    let opener = create.opener;
    let open = call_to(opener, OpenUrl::ID, 5);
    match name {
        "call-foreign-object" => peer.send(
            FrameHeader {
                object: 9,
                generation: 0,
                ..open
            },
            &[],
        )?,
        "call-future-generation" => {
            let generation = opener.2 + 1;
            peer.send(FrameHeader { generation, ..open }, &[])?;
        }
        "call-released-object" => {
            peer.send(release_of(opener, 1), &[])?;
            peer.send(open, &encode(&"file:///etc/passwd")?)?;
            expect_error(&peer.next(kind::REPLY)?, "the called actor has stopped")?;
            return go_on(peer, create);
        }
        "call-unknown-method" => {
            peer.send(FrameHeader { method: 5, ..open }, &[])?;
            expect_error(&peer.next(kind::REPLY)?, "no method 0x00000005")?;
            return go_on(peer, create);
        }
        "call-garbage" => peer.send(open, &[])?,
        "call-utf8" => peer.send(open, &[4, b'f', 0xff, 0xfe, 0xfd])?,
        "call-with-more-behind" => peer.send(open, &encode(&("wait", [0_u8; 4]))?)?,
        "call-of-gigabytes" => peer.send(open, &encode(&(1_u64 << 40))?)?,
        "call-same-id" => {
            let wait = encode(&"wait")?;
            peer.send(open, &wait)?;
            peer.send(open, &wait)?;
        }
        "call-without-its-trace" => peer.send(
            FrameHeader {
                flags: TRACED,
                ..open
            },
            &[1; 3],
        )?,
        "cancel-of-nothing" => {
            for call in [0, 5, 1 << 32, u64::MAX] {
                peer.send(
                    FrameHeader {
                        call,
                        ..of(kind::CANCEL)
                    },
                    &[],
                )?;
            }
            return go_on(peer, create);
        }
        _ => return unknown(name),
    }
    peer.listen()
}

/// The application answers a call that makes no sense with an error, and goes on.
fn expect_error(reply: &Frame, says: &str) -> io::Result<()> {
    let error: Error = postcard::from_bytes(&reply.body).map_err(io::Error::other)?;
    match reply.header.flags & ERROR != 0 && error.to_string().contains(says) {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "the application answers: {error}"
        ))),
    }
}

fn release_of(object: WireHandle, count: u64) -> FrameHeader {
    FrameHeader {
        object: object.1,
        generation: object.2,
        call: count,
        ..of(kind::RELEASE)
    }
}

fn release(name: &str, peer: &mut Peer, create: &Create) -> io::Result<()> {
    let opener = create.opener;
    match name {
        "release-of-nothing" => peer.send(release_of((0, 40, 1, 0), 1), &[])?,
        "release-too-many" => peer.send(release_of(opener, u64::MAX), &[])?,
        "release-twice" => {
            peer.send(release_of(opener, 1), &[])?;
            peer.send(release_of(opener, 1), &[])?;
        }
        "release-stale-generation" => {
            let stale = (opener.0, opener.1, opener.2.wrapping_sub(1), 0);
            peer.send(release_of(stale, 1), &[])?;
        }
        "release-none" => {
            for _ in 0..1000 {
                peer.send(release_of(opener, 0), &[])?;
            }
            return go_on(peer, create);
        }
        "release-watched-none" => {
            // Takes back a watch that it never had, and gives nothing back.
            for _ in 0..1000 {
                peer.send(watched(opener, 0), &[])?;
            }
            return go_on(peer, create);
        }
        "release-watched-twice" => {
            peer.send(watched(opener, 1), &[])?;
            peer.send(watched(opener, 1), &[])?;
        }
        _ => return unknown(name),
    }
    peer.listen()
}

/// The same by one that goes on watching the object.
fn watched(object: WireHandle, count: u64) -> FrameHeader {
    FrameHeader {
        flags: WATCHED,
        ..release_of(object, count)
    }
}

fn death_of(object: u32) -> FrameHeader {
    FrameHeader {
        object,
        generation: 1,
        ..of(kind::DEATH)
    }
}

fn death(name: &str, peer: &mut Peer, create: &Create) -> io::Result<()> {
    let stopped = encode(&Error::new(ErrorKind::ActorStopped))?;
    if name == "death-of-strangers" {
        for object in [1, 7, u32::MAX] {
            peer.send(death_of(object), &stopped)?;
        }
        return go_on(peer, create);
    }
    let source = Created::source(peer, 1);
    peer.answer(create.call, &source)?;
    match name {
        "death-garbage" => {
            peer.send(death_of(1), &[0xff; 20])?;
            peer.listen()
        }
        "death-of-the-living" => {
            // Dead, dead again, and answering all the same.
            peer.send(death_of(1), &stopped)?;
            peer.send(death_of(1), &stopped)?;
            peer.serve()
        }
        "death-as-another" => {
            let exit = portcullis::engine::error::HostExit {
                pid: 1,
                signal: Some(9),
                ..Default::default()
            };
            peer.send(
                death_of(1),
                &encode(&Error::new(ErrorKind::HostLost(exit)))?,
            )?;
            peer.serve()
        }
        _ => unknown(name),
    }
}

fn flood(name: &str, peer: &mut Peer, create: &Create) -> io::Result<()> {
    let wait = encode(&"wait")?;
    let open = |call| call_to(create.opener, OpenUrl::ID, call);
    match name {
        "flood-unread" => {
            let pings = bytes(of(kind::PING), &[]).repeat(4096);
            loop {
                peer.socket.write_all(&pings)?;
            }
        }
        "flood-read" => {
            let pings = bytes(of(kind::PING), &[]).repeat(1000);
            for _ in 0..FLOOD / 1000 {
                peer.socket.write_all(&pings)?;
                for _ in 0..1000 {
                    peer.receive()?;
                }
            }
            go_on(peer, create)
        }
        "flood-calls" => {
            for call in 0..6000 {
                peer.send(open(call), &wait)?;
            }
            peer.listen()
        }
        "flood-bytes" => {
            let long = encode(&format!("wait{}", " ".repeat(1 << 20)))?;
            for call in 0..100 {
                peer.send(open(call), &long)?;
            }
            peer.listen()
        }
        "flood-cancels" => {
            let cancel = |call| FrameHeader {
                call,
                ..of(kind::CANCEL)
            };
            let cancels: Vec<u8> = (0..FLOOD)
                .flat_map(|call| bytes(cancel(call), &[]))
                .collect();
            peer.socket.write_all(&cancels)?;
            go_on(peer, create)
        }
        "flood-deaths" => {
            let stopped = encode(&Error::new(ErrorKind::ActorStopped))?;
            let deaths: Vec<u8> = (0..FLOOD as u32)
                .flat_map(|object| bytes(death_of(object), &stopped))
                .collect();
            peer.socket.write_all(&deaths)?;
            go_on(peer, create)
        }
        "flood-cancelled-calls" => {
            // Called and given up before its actor has its turn, again and again: nothing of it stays.
            for call in 0..20_000 {
                let mut both = bytes(open(call), &wait);
                let header = FrameHeader {
                    call,
                    ..of(kind::CANCEL)
                };
                both.extend(bytes(header, &[]));
                peer.socket.write_all(&both)?;
                peer.next(kind::REPLY)?;
            }
            go_on(peer, create)
        }
        _ => unknown(name),
    }
}
