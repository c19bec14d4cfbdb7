//! Attacks with the rings that carry a link's bytes: both sides agree to have them, and then this one's are not sound.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{SealFlags, fcntl_add_seals};

use super::unknown;
use crate::objects::{sealed, sealed_with};
use crate::peer::{Peer, send_bytes};

/// The feature in the hello.
const RINGS: u8 = 4;
/// What is before a ring in its memory, and the smallest ring.
const HEADER: u64 = 4096;
const CAPACITY: u32 = 64 << 10;

const ALL: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::FUTURE_WRITE)
    .union(SealFlags::SEAL);

/// What comes after the hello.
struct Offer {
    bytes: Vec<u8>,
    memory: OwnedFd,
    alarm: OwnedFd,
}

impl Offer {
    fn sound() -> io::Result<Self> {
        let mut bytes = b"PCRINGS\n\x01\0\x20\0".to_vec();
        bytes.extend_from_slice(&CAPACITY.to_le_bytes());
        bytes.resize(32, 0);
        Ok(Self {
            bytes,
            memory: sealed(HEADER + u64::from(CAPACITY))?,
            alarm: eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    fn send(&self, peer: &Peer) -> io::Result<()> {
        let both = [self.memory.as_fd(), self.alarm.as_fd()];
        send_bytes(&peer.socket, &self.bytes, &both)
    }
}

pub(crate) fn run(name: &str, peer: &mut Peer) -> io::Result<()> {
    let mut hello = peer.take_hello()?;
    hello[16] |= RINGS;
    peer.socket.write_all(&hello)?;
    let mut offer = Offer::sound()?;
    let len = HEADER + u64::from(CAPACITY);
    match name {
        "rings-silent" => return peer.listen(),
        "rings-garbage" => offer.bytes.fill(0xff),
        "rings-format" => offer.bytes[8] = 2,
        "rings-huge" => offer.bytes[12..16].copy_from_slice(&(1_u32 << 31).to_le_bytes()),
        "rings-odd" => offer.bytes[12] = 1,
        "rings-bytes-behind" => offer.bytes.push(0),
        "rings-cut" => {
            offer.bytes.truncate(20);
            offer.send(peer)?;
            return peer.shut();
        }
        "rings-one-descriptor" => {
            send_bytes(&peer.socket, &offer.bytes, &[offer.memory.as_fd()])?;
            return peer.listen();
        }
        "rings-fifty-descriptors" => {
            send_bytes(&peer.socket, &offer.bytes, &[offer.alarm.as_fd(); 50])?;
            return peer.listen();
        }
        "rings-unsealed" => offer.memory = sealed_with(len, SealFlags::empty())?,
        "rings-shrinkable" => {
            offer.memory = sealed_with(len, ALL.difference(SealFlags::SHRINK))?;
        }
        "rings-writable" => {
            offer.memory = sealed_with(len, ALL.difference(SealFlags::FUTURE_WRITE))?;
        }
        "rings-short" => offer.memory = sealed(len - 1)?,
        "rings-pipe" => offer.memory = io::stderr().as_fd().try_clone_to_owned()?,
        "rings-alarm-pipe" => offer.alarm = io::stderr().as_fd().try_clone_to_owned()?,
        "rings-alarm-memory" => offer.alarm = sealed(len)?,
        "rings-alarm-blocks" => offer.alarm = eventfd(1, EventfdFlags::CLOEXEC)?,
        "rings-index-wild" => {
            offer.memory = sealed_with(len, SealFlags::empty())?;
            let index = u64::MAX.to_le_bytes();
            rustix::io::pwrite(&offer.memory, &index, 0)?;
            fcntl_add_seals(&offer.memory, ALL)?;
        }
        _ => return unknown(name),
    }
    offer.send(peer)?;
    peer.listen()
}
