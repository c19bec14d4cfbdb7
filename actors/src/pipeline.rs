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
pub(crate) mod memory;
#[cfg(test)]
mod tests;

use crate::bridge::InterfaceTable;

/// The built-in interfaces, which the sides of every link to a host know.
pub(crate) fn interface_table() -> InterfaceTable {
    InterfaceTable::new()
        .with::<port::Port>()
        .with::<byte_stream::ByteStream>()
        .with::<opener::Opener>()
        .with::<resolver::SourceResolver>()
        .with::<source::SourceControl>()
        .with::<transform::TransformControl>()
        .with::<sink::SinkControl>()
        .with::<session::SessionControl>()
        .with::<crate::host::PmpHost>()
}

#[cfg(test)]
mod table_tests {
    use super::*;
    use crate::bridge::Remote;
    use serde::{Deserialize, Serialize};

    #[test]
    fn no_two_built_in_messages_have_one_wire_id() {
        interface_table().check().expect("all are different");
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
