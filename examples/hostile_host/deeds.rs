//! What each attack does.

mod hello;
mod memory;
mod rings;
mod talk;

use std::io;

use crate::peer::Peer;

/// Does the deed of this name; returns when the application has closed.
pub(crate) fn run(name: &str, peer: &mut Peer) -> io::Result<()> {
    let area = name.split('-').next().unwrap_or_default();
    let ended = match area {
        "hello" | "table" | "facts" => hello::run(name, peer),
        "descriptors" | "segment" | "slot" | "slots" => memory::run(name, peer),
        "rings" => rings::run(name, peer),
        _ => talk::run(name, peer),
    };
    match ended {
        // The application has ended the link, in the middle of whatever was being said or before.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(())
        }
        ended => ended,
    }
}

fn unknown(name: &str) -> io::Result<()> {
    Err(io::Error::other(format!("there is no attack {name}")))
}
