//! The handshake: one fixed hello in each direction before any frame.
//!
//! Both sides speak first, so neither waits for the other; each compares what it read with what it said and both come
//! to the same limits (the smaller of each pair). Nothing of the hello is trusted: sizes out of bounds are refused by name.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::TransportError;
use crate::frame::MAX_DESCRIPTORS;

/// The version of the frames and of this handshake. Another major version is refused.
pub const PROTOCOL_MAJOR: u16 = 1;

/// The newest minor version that this side speaks; the smaller of both is used.
pub const PROTOCOL_MINOR: u16 = 0;

/// How long the peer has to say hello.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);

/// Bytes of an encoded [`Hello`].
pub const HELLO_LEN: usize = 128;

const MAGIC: [u8; 8] = *b"PORTCUL\x01";

/// What a link can do beyond carrying bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// Nothing but bytes.
    pub const NONE: Self = Self(0);
    /// Samples may lie in memory that both processes map.
    pub const SHARED_MEMORY: Self = Self(1);
    /// Frames may carry descriptors.
    pub const DESCRIPTORS: Self = Self(1 << 1);
    /// Two rings in shared memory carry the bytes.
    pub const RINGS: Self = Self(1 << 2);
    /// All that this version knows.
    pub const ALL: Self = Self(0b111);

    /// Whether every feature of `other` is here.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The features of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The features of both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The features here that `other` lacks.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The bits, as on the wire.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// What bounds a link. Of each pair of limits the smaller is used; one out of its range is refused by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkLimits {
    /// Bytes of the largest frame body: of a message or reply, without what travels in shared memory. 1 KiB to 64 MiB.
    pub max_frame: u32,
    /// Objects that each side may export to the other, and requests to one of them that wait by design. 1 to 1,048,576.
    pub max_objects: u32,
    /// Calls in flight over the whole link, per direction: further ones wait on their own side. 1 to 1,048,576.
    pub call_window: u32,
    /// Calls in flight to one object, per direction. 1 to 1,048,576.
    pub object_window: u32,
    /// Bytes of calls in flight, per direction; a larger request is refused. 1 KiB to 1 GiB.
    pub byte_window: u32,
    /// Mebibytes of sample pool that each side may make the other map; without any, samples travel inside of messages. 0 to
    /// 1,048,576.
    pub pool_mebibytes: u32,
    /// Descriptors that one message may carry; without any there is no shared memory either. 0 to 16.
    pub max_descriptors: u32,
}

impl LinkLimits {
    /// The highest of each: of a side that leaves it to the other.
    pub const MOST: Self = Self {
        max_frame: 64 << 20,
        max_objects: 1 << 20,
        call_window: 1 << 20,
        object_window: 1 << 20,
        byte_window: 1 << 30,
        pool_mebibytes: 1 << 20,
        max_descriptors: MAX_DESCRIPTORS as u32,
    };
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            max_frame: 16 << 20,
            max_objects: 4096,
            call_window: 1024,
            object_window: 64,
            byte_window: 4 << 20,
            pool_mebibytes: 256,
            max_descriptors: MAX_DESCRIPTORS as u32,
        }
    }
}

/// A limit's name, its bounds and where it is: one table for checking and for taking the minimum.
type LimitField = (&'static str, u32, u32, fn(&mut LinkLimits) -> &mut u32);

const LIMIT_FIELDS: [LimitField; 7] = [
    ("max_frame", 1 << 10, 64 << 20, |limits| {
        &mut limits.max_frame
    }),
    ("max_objects", 1, 1 << 20, |limits| &mut limits.max_objects),
    ("call_window", 1, 1 << 20, |limits| &mut limits.call_window),
    ("byte_window", 1 << 10, 1 << 30, |limits| {
        &mut limits.byte_window
    }),
    ("pool_mebibytes", 0, 1 << 20, |limits| {
        &mut limits.pool_mebibytes
    }),
    ("object_window", 1, 1 << 20, |limits| {
        &mut limits.object_window
    }),
    ("max_descriptors", 0, MAX_DESCRIPTORS as u32, |limits| {
        &mut limits.max_descriptors
    }),
];

/// What this side says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// What this side can do; masked by what the link can carry.
    pub features: Features,
    /// A hash over the tables of interfaces and messages, which the layer above compares.
    pub interface_table: u64,
    /// The limits that this side wants.
    pub limits: LinkLimits,
    /// The id of this process among all hosts of a topology; the application is 0. It holds unless the peer names another.
    pub host_id: u64,
    /// The id that this side gives to the peer; 0 for none. Only one side may, and the application does.
    pub names_peer: u64,
}

impl Default for Hello {
    fn default() -> Self {
        Self {
            features: Features::ALL,
            interface_table: 0,
            limits: LinkLimits::default(),
            host_id: 0,
            names_peer: 0,
        }
    }
}

/// What both sides came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// What both sides and the link can do.
    pub features: Features,
    /// The smaller limit of each pair.
    pub limits: LinkLimits,
    /// The process id that the peer claims: for messages to people only.
    pub peer_pid: u32,
    /// The id of this process among all hosts of a topology.
    pub host_id: u64,
    /// The peer's.
    pub peer_host_id: u64,
    /// The peer's [`Hello::interface_table`]: what is to be done where it differs is for the layer above.
    pub peer_interface_table: u64,
}

impl Hello {
    /// The hello as it goes over the link.
    pub fn to_bytes(&self) -> [u8; HELLO_LEN] {
        let wire = WireHello {
            magic: MAGIC,
            major: PROTOCOL_MAJOR.into(),
            minor: PROTOCOL_MINOR.into(),
            length: (HELLO_LEN as u32).into(),
            features: self.features.0.into(),
            interface_table: self.interface_table.into(),
            host_id: self.host_id.into(),
            names_peer: self.names_peer.into(),
            pid: crate::host::pid().into(),
            max_frame: self.limits.max_frame.into(),
            max_objects: self.limits.max_objects.into(),
            call_window: self.limits.call_window.into(),
            byte_window: self.limits.byte_window.into(),
            pool_mebibytes: self.limits.pool_mebibytes.into(),
            object_window: self.limits.object_window.into(),
            max_descriptors: self.limits.max_descriptors.into(),
            reserved: [0; 48],
        };
        zerocopy::transmute!(wire)
    }

    /// Compares what the peer said with ours.
    ///
    /// # Errors
    /// The first field that does not fit, with both values.
    pub fn agree(&self, theirs: [u8; HELLO_LEN]) -> Result<Agreed, TransportError> {
        let wire: WireHello = zerocopy::transmute!(theirs);
        must_equal("magic", Bytes8(MAGIC), Bytes8(wire.magic))?;
        must_equal("protocol version", PROTOCOL_MAJOR, wire.major.get())?;
        must_equal("hello length", HELLO_LEN as u32, wire.length.get())?;
        let mut limits = LinkLimits {
            max_frame: wire.max_frame.get(),
            max_objects: wire.max_objects.get(),
            call_window: wire.call_window.get(),
            byte_window: wire.byte_window.get(),
            pool_mebibytes: wire.pool_mebibytes.get(),
            object_window: wire.object_window.get(),
            max_descriptors: wire.max_descriptors.get(),
        };
        let mut ours = self.limits;
        for (name, low, high, field) in LIMIT_FIELDS {
            let value = field(&mut limits);
            for checked in [*field(&mut ours), *value] {
                if !(low..=high).contains(&checked) {
                    return Err(TransportError::HandshakeMismatch {
                        field: name,
                        ours: format!("{} (allowed {low} to {high})", field(&mut ours)),
                        theirs: value.to_string(),
                    });
                }
            }
            *value = (*value).min(*field(&mut ours));
        }
        let named = |name: u64, own: u64| if name == 0 { own } else { name };
        let host_id = named(wire.names_peer.get(), self.host_id);
        let peer_host_id = named(self.names_peer, wire.host_id.get());
        if self.names_peer != 0 && wire.names_peer.get() != 0 {
            return Err(TransportError::HandshakeMismatch {
                field: "names_peer",
                ours: self.names_peer.to_string(),
                theirs: wire.names_peer.to_string(),
            });
        }
        let features = self.features.intersection(Features(wire.features.get()));
        let features = match limits.max_descriptors {
            0 => features.without(Features::DESCRIPTORS),
            _ => features,
        };
        Ok(Agreed {
            features,
            limits,
            peer_pid: wire.pid.get(),
            host_id,
            peer_host_id,
            peer_interface_table: wire.interface_table.get(),
        })
    }
}

fn must_equal<T: PartialEq + std::fmt::Display>(
    field: &'static str,
    ours: T,
    theirs: T,
) -> Result<(), TransportError> {
    if ours == theirs {
        return Ok(());
    }
    Err(TransportError::HandshakeMismatch {
        field,
        ours: ours.to_string(),
        theirs: theirs.to_string(),
    })
}

#[derive(PartialEq)]
struct Bytes8([u8; 8]);

impl std::fmt::Display for Bytes8 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireHello {
    magic: [u8; 8],
    major: U16,
    minor: U16,
    length: U32,
    features: U64,
    interface_table: U64,
    host_id: U64,
    names_peer: U64,
    pid: U32,
    max_frame: U32,
    max_objects: U32,
    call_window: U32,
    byte_window: U32,
    pool_mebibytes: U32,
    object_window: U32,
    max_descriptors: U32,
    reserved: [u8; 48],
}

const _: () = assert!(size_of::<WireHello>() == HELLO_LEN);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Prng;

    fn field_of(result: Result<Agreed, TransportError>) -> &'static str {
        match result {
            Err(TransportError::HandshakeMismatch { field, .. }) => field,
            other => panic!("expected a mismatch, got {other:?}"),
        }
    }

    #[test]
    fn equal_sides_agree_and_the_smaller_limit_wins() {
        let mut small = Hello {
            host_id: 5,
            ..Hello::default()
        };
        small.limits.max_frame = 4096;
        small.features = Features::DESCRIPTORS;
        let large = Hello::default();
        let one = large.agree(small.to_bytes()).unwrap();
        let two = small.agree(large.to_bytes()).unwrap();
        assert_eq!(one.limits, two.limits);
        assert_eq!(one.limits.max_frame, 4096);
        assert_eq!(one.limits.max_objects, LinkLimits::default().max_objects);
        assert_eq!(one.features, Features::DESCRIPTORS);
        assert_eq!((one.host_id, one.peer_host_id), (0, 5));
        let names = Hello {
            names_peer: 7,
            ..large
        };
        let named = small.agree(names.to_bytes()).unwrap();
        assert_eq!((named.host_id, named.peer_host_id), (7, 0));
        let naming = names.agree(small.to_bytes()).unwrap();
        assert_eq!((naming.host_id, naming.peer_host_id), (0, 7));
        assert_eq!(field_of(names.agree(names.to_bytes())), "names_peer");
        assert_eq!(one.peer_pid, std::process::id());
    }

    #[test]
    fn every_mismatch_is_named() {
        let ours = Hello::default();
        let good = ours.to_bytes();
        let changed = |at: usize, value: &[u8]| {
            let mut bytes = good;
            bytes[at..at + value.len()].copy_from_slice(value);
            field_of(ours.agree(bytes))
        };
        assert_eq!(changed(0, b"HTTP/1.1"), "magic");
        assert_eq!(changed(8, &2u16.to_le_bytes()), "protocol version");
        assert_eq!(changed(12, &64u32.to_le_bytes()), "hello length");
        for (index, (name, low, high, _)) in LIMIT_FIELDS.into_iter().enumerate() {
            let at = 52 + index * 4;
            if let Some(below) = low.checked_sub(1) {
                assert_eq!(changed(at, &below.to_le_bytes()), name);
            }
            assert_eq!(changed(at, &(high + 1).to_le_bytes()), name);
        }
    }

    #[test]
    fn a_hostile_hello_never_panics_and_never_raises_a_limit() {
        let ours = Hello::default();
        let mut random = Prng::new(3);
        for _ in 0..10_000 {
            let mut bytes = ours.to_bytes();
            for _ in 0..=random.below(4) {
                bytes[random.below(HELLO_LEN as u64) as usize] = random.next() as u8;
            }
            if let Ok(agreed) = ours.agree(bytes) {
                assert!(agreed.limits.max_frame <= ours.limits.max_frame);
                assert!(agreed.limits.byte_window <= ours.limits.byte_window);
                assert!(ours.features.contains(agreed.features));
            }
        }
    }
}
