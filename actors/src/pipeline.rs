//! The actors of a pipeline and the messages between them.
//!
//! Samples do not pass through the session: each node pulls from the port of its upstream neighbour. A waiting
//! [`Pull`](port::Pull) is a credit, so nothing is ever queued without a bound, and a link to another process carries
//! batches.

pub mod byte_stream;
pub mod opener;
pub mod port;
pub mod resolver;
pub mod session;
pub mod sink;
pub mod source;
pub mod transform;

mod events;
mod input;
mod lifetime;
#[cfg(test)]
mod tests;

/// A hash over the built-in interfaces: both sides of a link must have the same.
pub(crate) fn interface_table() -> u64 {
    use crate::bridge::Interface;
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |words: &[u32]| {
        for word in words {
            hash = (hash ^ u64::from(*word)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    add(port::Port::METHODS);
    add(byte_stream::ByteStream::METHODS);
    add(opener::Opener::METHODS);
    add(resolver::SourceResolver::METHODS);
    add(source::SourceControl::METHODS);
    add(transform::TransformControl::METHODS);
    add(sink::SinkControl::METHODS);
    add(session::SessionControl::METHODS);
    add(crate::host::PmpHost::METHODS);
    hash
}
