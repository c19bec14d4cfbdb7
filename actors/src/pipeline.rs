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

/// Raise it when a type changes its wire form that is inside of a message, or inside of its reply, but not named there.
const SCHEMA: u32 = 1;

/// A hash over the built-in interfaces: both sides of a link must have the same.
///
/// It covers this crate's version, and of each interface the names, its messages, and the messages' own fields.
pub(crate) fn interface_table() -> u64 {
    interface_table_of(env!("CARGO_PKG_VERSION"), SCHEMA)
}

fn interface_table_of(version: &str, schema: u32) -> u64 {
    use crate::bridge::{Interface, wire_id};
    fn add<I: Interface>(hash: u64) -> u64 {
        let ends = [u32::MAX];
        let parts: [&[u32]; 4] = [&[I::ID], I::METHODS, I::SHAPES, &ends];
        add_words(hash, &parts.concat())
    }
    fn add_words(hash: u64, words: &[u32]) -> u64 {
        let step = |hash: u64, word: &u32| (hash ^ u64::from(*word)).wrapping_mul(0x0100_0000_01b3);
        words.iter().fold(hash, step)
    }
    let hash = add_words(0xcbf2_9ce4_8422_2325, &[wire_id(version), schema]);
    let hash = add::<port::Port>(hash);
    let hash = add::<byte_stream::ByteStream>(hash);
    let hash = add::<opener::Opener>(hash);
    let hash = add::<resolver::SourceResolver>(hash);
    let hash = add::<source::SourceControl>(hash);
    let hash = add::<transform::TransformControl>(hash);
    let hash = add::<sink::SinkControl>(hash);
    let hash = add::<session::SessionControl>(hash);
    add::<crate::host::PmpHost>(hash)
}

#[cfg(test)]
mod table_tests {
    use super::*;
    use crate::bridge::Remote;
    use serde::{Deserialize, Serialize};

    #[test]
    fn another_version_or_schema_is_another_table() {
        let tables = [
            interface_table_of("1.0.0", 1),
            interface_table_of("1.0.1", 1),
            interface_table_of("1.0.0", 2),
        ];
        assert!(tables[0] != tables[1] && tables[0] != tables[2]);
        assert_eq!(tables[0], interface_table_of("1.0.0", 1));
    }

    #[test]
    fn a_message_with_other_fields_or_another_reply_has_another_shape() {
        #[derive(Serialize, Deserialize, portcullis_derive::Remote)]
        struct One(u32, Vec<u8>);
        #[derive(Serialize, Deserialize, portcullis_derive::Remote)]
        struct Same(u32, Vec<u8>);
        #[derive(Serialize, Deserialize, portcullis_derive::Remote)]
        struct Field(u64, Vec<u8>);
        #[derive(Serialize, Deserialize, portcullis_derive::Remote)]
        #[remote(reply = bool)]
        struct Reply(u32, Vec<u8>);
        assert_eq!(One::SHAPE, Same::SHAPE);
        assert_ne!(One::SHAPE, Field::SHAPE);
        assert_ne!(One::SHAPE, Reply::SHAPE);
        assert_ne!(One::SHAPE, 0);
    }
}
