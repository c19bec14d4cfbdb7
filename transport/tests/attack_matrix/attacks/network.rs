//! Sockets of every family.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};

use super::{Attack, NEEDS_CAPABILITY, attack, check, done, failed};

/// Names of the application's Unix sockets: streams and datagrams, in its folder and abstract.
pub(crate) const STREAM: &str = "stream.socket";
pub(crate) const DATAGRAM: &str = "datagram.socket";

pub(crate) fn abstract_name(name: &str, user: u32) -> SocketAddr {
    SocketAddr::from_abstract_name(format!("portcullis-attacks-{user}-{name}")).unwrap()
}

/// The user of the application, from the name of its folder.
fn user(folder: &str) -> u32 {
    folder.rsplit('-').next().unwrap().parse().unwrap()
}

pub(super) const ATTACKS: &[Attack] = &[
    attack("TCP connect", |targets| {
        TcpStream::connect(("127.0.0.1", targets.tcp))?.write_all(b"stolen")
    }),
    attack("TCP listen", |_| done(TcpListener::bind("127.0.0.1:0"))),
    attack("UDP send", |targets| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        done(socket.send_to(b"stolen", ("127.0.0.1", targets.udp)))
    }),
    attack("Unix socket, abstract", |targets| {
        let address = abstract_name(STREAM, user(&targets.folder));
        UnixStream::connect_addr(&address)?.write_all(b"stolen")
    }),
    attack("Unix socket, by path", |targets| {
        UnixStream::connect(format!("{}/{STREAM}", targets.folder))?.write_all(b"stolen")
    }),
    // Of a pair, which a host may make: a datagram may name another receiver.
    attack("Unix datagram of a pair, abstract", |targets| {
        let (socket, _other) = UnixDatagram::pair()?;
        let address = abstract_name(DATAGRAM, user(&targets.folder));
        done(socket.send_to_addr(b"stolen", &address))
    }),
    attack("Unix datagram of a pair, by path", |targets| {
        let (socket, _other) = UnixDatagram::pair()?;
        done(socket.send_to(b"stolen", format!("{}/{DATAGRAM}", targets.folder)))
    }),
    attack("netlink", |_| netlink()),
    attack("packet socket", |_| {
        // SAFETY: plain numbers.
        done(check(unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0)
        }))
    })
    .of_root(NEEDS_CAPABILITY),
];

/// Asks for the list of interfaces.
fn netlink() -> io::Result<()> {
    const RTM_GETLINK: u16 = 18;
    // SAFETY: plain numbers.
    let socket = check(unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_ROUTE,
        )
    })?;
    // SAFETY: the kernel has just made it for us.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // `nlmsghdr` and `ifinfomsg`, of which everything else is zero.
    let mut request = [0u8; 32];
    request[..4].copy_from_slice(&32u32.to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    let mut reply = [0u8; 4096];
    // SAFETY: the kernel reads and writes live arrays of the lengths given.
    let received = unsafe {
        let socket = socket.as_raw_fd();
        check(libc::send(
            socket,
            request.as_ptr().cast(),
            request.len(),
            0,
        ))?;
        check(libc::recv(
            socket,
            reply.as_mut_ptr().cast(),
            reply.len(),
            0,
        ))?
    };
    if received > 16 {
        Ok(())
    } else {
        Err(failed("no interfaces"))
    }
}
