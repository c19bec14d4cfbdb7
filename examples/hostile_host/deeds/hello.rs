//! Attacks before there is a link.

use std::io::{self, Write};
use std::os::fd::AsFd;

use portcullis_transport::handshake::HELLO_LEN;

use super::unknown;
use crate::peer::{Frame, Peer, encode, kind, of, reply_to, send_bytes};

pub(crate) fn run(name: &str, peer: &mut Peer) -> io::Result<()> {
    match name {
        "hello-magic" => changed(peer, 0, b"HTTP/1.1"),
        "hello-version" => changed(peer, 8, &2_u16.to_le_bytes()),
        "hello-length" => changed(peer, 12, &64_u32.to_le_bytes()),
        "hello-table" => changed(peer, 24, &1_u64.to_le_bytes()),
        "hello-frame-small" => changed(peer, 52, &1023_u32.to_le_bytes()),
        "hello-frame-large" => changed(peer, 52, &u32::MAX.to_le_bytes()),
        "hello-objects" => changed(peer, 56, &[0; 4]),
        "hello-calls" => changed(peer, 60, &[0; 4]),
        "hello-bytes" => changed(peer, 64, &[0xff; 4]),
        "hello-pool" => changed(peer, 68, &[0xff; 4]),
        "hello-object-window" => changed(peer, 72, &[0xff; 4]),
        "hello-descriptor-limit" => changed(peer, 76, &17_u32.to_le_bytes()),
        "hello-names" => changed(peer, 40, &5_u64.to_le_bytes()),
        "hello-features" => {
            let mut hello = peer.take_hello()?;
            // All that it may ever mean, but for rings, which take another step.
            hello[16..24].copy_from_slice(&(!4_u64).to_le_bytes());
            behave_after(peer, &hello)
        }
        "hello-reserved" => {
            let mut hello = peer.take_hello()?;
            hello[80..].fill(0xff);
            behave_after(peer, &hello)
        }
        "hello-cut" => {
            let hello = peer.take_hello()?;
            peer.socket.write_all(&hello[..100])?;
            peer.shut()
        }
        "hello-silent" => peer.listen(),
        "hello-descriptors" => {
            let hello = peer.take_hello()?;
            send_bytes(&peer.socket, &hello[..50], &[io::stderr().as_fd()])?;
            peer.listen()
        }
        "table-differs" => {
            let told = asked_for_table(peer)?.body;
            let told: Vec<(String, u64)> = postcard::from_bytes(&told).map_err(io::Error::other)?;
            let other: Vec<_> = told.iter().map(|(name, hash)| (name, !hash)).collect();
            peer.send(of(kind::TABLE), &encode(&other)?)?;
            peer.listen()
        }
        "table-garbage" => {
            asked_for_table(peer)?;
            peer.send(of(kind::TABLE), &[0xff; 20])?;
            peer.listen()
        }
        "table-of-megabytes" => {
            asked_for_table(peer)?;
            peer.send(of(kind::TABLE), &vec![0; (1 << 20) + 1])?;
            peer.listen()
        }
        "table-late" => {
            asked_for_table(peer)?;
            peer.send(of(kind::PING), &[])?;
            peer.listen()
        }
        "table-unasked" => {
            peer.behave()?;
            peer.send(of(kind::TABLE), &[0])?;
            peer.listen()
        }
        "facts-none" => {
            peer.shake_hands()?;
            let call = peer.next_call()?.header.call;
            let mut facts = peer.facts()?;
            facts.isolation = None;
            peer.answer(call, &facts)?;
            peer.listen()
        }
        "facts-garbage" => {
            peer.shake_hands()?;
            let call = peer.next_call()?.header.call;
            peer.send(reply_to(call), &[0xff; 40])?;
            peer.listen()
        }
        _ => unknown(name),
    }
}

fn changed(peer: &mut Peer, at: usize, field: &[u8]) -> io::Result<()> {
    let mut hello = peer.take_hello()?;
    hello[at..at + field.len()].copy_from_slice(field);
    peer.socket.write_all(&hello)?;
    peer.listen()
}

/// Says hello with other interfaces; what the application tells of its own then.
fn asked_for_table(peer: &mut Peer) -> io::Result<Frame> {
    let mut hello = peer.take_hello()?;
    hello[24..32].fill(1);
    peer.socket.write_all(&hello)?;
    peer.receive()
}

fn behave_after(peer: &mut Peer, hello: &[u8; HELLO_LEN]) -> io::Result<()> {
    peer.socket.write_all(hello)?;
    let call = peer.next_call()?.header.call;
    let facts = peer.facts()?;
    peer.answer(call, &facts)?;
    peer.serve()
}
