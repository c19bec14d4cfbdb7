//! The host's end of the link, as an attacker has it: the socket itself, and frames that nobody checks.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use portcullis::ErrorKind;
use portcullis::host::{HostFacts, Isolation};
use portcullis_transport::FrameHeader;
use portcullis_transport::frame::HEADER_LEN;
use portcullis_transport::handshake::HELLO_LEN;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Frame kinds, as the bridge numbers them.
pub(crate) mod kind {
    pub(crate) const CALL: u16 = 1;
    pub(crate) const REPLY: u16 = 2;
    pub(crate) const CANCEL: u16 = 3;
    pub(crate) const RELEASE: u16 = 4;
    pub(crate) const SLOTS: u16 = 5;
    pub(crate) const SEGMENT: u16 = 6;
    pub(crate) const PING: u16 = 7;
    pub(crate) const PONG: u16 = 8;
    pub(crate) const DEATH: u16 = 9;
    pub(crate) const TABLE: u16 = 10;
}

/// A reply is an error.
pub(crate) const ERROR: u16 = 1 << 15;
/// A reply says that its call was cancelled.
pub(crate) const CANCELLED: u16 = 1 << 14;
/// A call begins with a trace.
pub(crate) const TRACED: u16 = 1 << 13;
/// A release whose sender still wants to be told of the object's end.
pub(crate) const WATCHED: u16 = 1 << 12;
const TRACE_LEN: usize = 24;

/// What a call to a host that has done its deed is answered with, if its link still stands.
pub(crate) const HONEST: &str = "an honest answer";

/// A handle as it is on the wire: host, object, generation, interface.
pub(crate) type WireHandle = (u64, u32, u32, u32);

/// The socket to the application, and what it has said.
pub(crate) struct Peer {
    pub(crate) socket: UnixStream,
    isolation: Isolation,
    /// The id that the application gave this host.
    pub(crate) name: u64,
}

/// A frame of the application.
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) body: Vec<u8>,
}

/// The call after which the deed is done: the application asks for an object and gives its opener.
pub(crate) struct Create {
    pub(crate) call: u64,
    pub(crate) opener: WireHandle,
}

impl Peer {
    pub(crate) fn new(socket: UnixStream, isolation: Isolation) -> Self {
        Self {
            socket,
            isolation,
            name: 0,
        }
    }

    /// The application's hello, made into ours: it agrees with all that the other side says.
    pub(crate) fn take_hello(&mut self) -> io::Result<[u8; HELLO_LEN]> {
        let mut hello = [0; HELLO_LEN];
        self.socket.read_exact(&mut hello)?;
        let mut name = [0; 8];
        name.copy_from_slice(&hello[40..48]);
        self.name = u64::from_le_bytes(name);
        // Without rings; a host of some id that names nobody.
        hello[16] &= !4;
        hello[32..40].copy_from_slice(&1_u64.to_le_bytes());
        hello[40..48].fill(0);
        Ok(hello)
    }

    /// Shakes hands as an honest host does.
    pub(crate) fn shake_hands(&mut self) -> io::Result<()> {
        let hello = self.take_hello()?;
        self.socket.write_all(&hello)
    }

    /// What an honest host says of itself; that all layers are in force is a lie, which the application cannot see.
    pub(crate) fn facts(&self) -> io::Result<HostFacts> {
        let mut isolation = serde_json::to_value(&self.isolation)?;
        for layer in isolation["layers"].as_array_mut().into_iter().flatten() {
            layer["state"] = "in_force".into();
        }
        Ok(HostFacts {
            pid: std::process::id(),
            classes: Vec::new(),
            components: Vec::new(),
            isolation: serde_json::from_value(isolation)?,
        })
    }

    /// Behaves until the application has asked for an object.
    pub(crate) fn behave(&mut self) -> io::Result<Create> {
        self.shake_hands()?;
        let configure = self.next_call()?;
        let facts = self.facts()?;
        self.answer(configure.header.call, &facts)?;
        self.next_create()
    }

    pub(crate) fn next_create(&mut self) -> io::Result<Create> {
        let frame = self.next_call()?;
        let (_, _, opener): (String, String, Option<WireHandle>) = read_front(&frame.body)?;
        Ok(Create {
            call: frame.header.call,
            opener: opener.unwrap_or_default(),
        })
    }

    pub(crate) fn receive(&mut self) -> io::Result<Frame> {
        let mut header = [0; HEADER_LEN];
        self.socket.read_exact(&mut header)?;
        let header = FrameHeader::from_bytes(header);
        let mut body = vec![0; header.len as usize];
        self.socket.read_exact(&mut body)?;
        if header.flags & TRACED != 0 {
            body.drain(..TRACE_LEN.min(body.len()));
        }
        Ok(Frame { header, body })
    }

    /// The next frame of this kind; pings are answered.
    pub(crate) fn next(&mut self, kind: u16) -> io::Result<Frame> {
        loop {
            let frame = self.receive()?;
            if frame.header.kind == kind {
                return Ok(frame);
            }
            if frame.header.kind == kind::PING {
                self.send(of(kind::PONG), &[])?;
            }
        }
    }

    pub(crate) fn next_call(&mut self) -> io::Result<Frame> {
        self.next(kind::CALL)
    }

    /// Sends a frame whose length is right.
    pub(crate) fn send(&mut self, header: FrameHeader, body: &[u8]) -> io::Result<()> {
        self.socket.write_all(&bytes(header, body))
    }

    /// Sends a frame and descriptors with it, which its header need not announce.
    pub(crate) fn send_with(
        &mut self,
        header: FrameHeader,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        send_bytes(&self.socket, &bytes(header, body), descriptors)
    }

    pub(crate) fn answer(&mut self, call: u64, reply: &impl Serialize) -> io::Result<()> {
        let body = encode(reply)?;
        self.send(reply_to(call), &body)
    }

    pub(crate) fn answer_honestly(&mut self, call: u64) -> io::Result<()> {
        let error = portcullis::Error::new(ErrorKind::InvalidRequest(HONEST.into()));
        let header = FrameHeader {
            flags: ERROR,
            ..reply_to(call)
        };
        self.send(header, &encode(&error)?)
    }

    /// Does nothing wrong any more, until the application has enough of it.
    pub(crate) fn serve(&mut self) -> io::Result<()> {
        loop {
            let call = self.next_call()?;
            self.answer_honestly(call.header.call)?;
        }
    }

    /// Reads and says nothing, until the application closes.
    pub(crate) fn listen(&mut self) -> io::Result<()> {
        io::copy(&mut self.socket, &mut io::sink()).map(drop)
    }

    /// Says that nothing more comes, and lives on.
    pub(crate) fn shut(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)?;
        self.listen()
    }
}

/// Sends bytes, and descriptors with the first of them.
pub(crate) fn send_bytes(
    socket: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = vec![std::mem::MaybeUninit::uninit(); 8 << 10];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(
        socket.as_fd(),
        &[io::IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    let mut socket = socket;
    socket.write_all(&bytes[sent..])
}

/// A header of this kind and nothing else.
pub(crate) fn of(kind: u16) -> FrameHeader {
    FrameHeader {
        kind,
        ..FrameHeader::default()
    }
}

pub(crate) fn reply_to(call: u64) -> FrameHeader {
    FrameHeader {
        call,
        ..of(kind::REPLY)
    }
}

/// A frame as it goes over the socket.
pub(crate) fn bytes(mut header: FrameHeader, body: &[u8]) -> Vec<u8> {
    header.len = body.len() as u32;
    let mut frame = header.to_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

pub(crate) fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_allocvec(value).map_err(io::Error::other)
}

fn read_front<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    postcard::take_from_bytes(body)
        .map(|(value, _)| value)
        .map_err(io::Error::other)
}
