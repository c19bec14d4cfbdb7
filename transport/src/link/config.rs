//! How a link over a Unix socket carries its bytes.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The smallest ring.
pub const MIN_RING: u32 = 64 << 10;
/// The largest ring.
pub const MAX_RING: u32 = 16 << 20;

/// What a side wants of a link over a Unix socket. Rings are used if both want them; both spin if both may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkConfig {
    /// What carries the bytes.
    pub carrier: Carrier,
    /// Whether a side that waits may keep a processor busy for a moment.
    pub spin: Spin,
    /// Bytes of the ring that this side writes: a power of two from [`MIN_RING`] to [`MAX_RING`]; others are brought
    /// there. Its memory is used only as far as it is written.
    pub ring_bytes: u32,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            carrier: Carrier::Rings,
            spin: Spin::Adaptive,
            ring_bytes: 256 << 10,
        }
    }
}

impl LinkConfig {
    /// Bytes of the ring, as allowed.
    pub(crate) fn capacity(self) -> usize {
        let bytes = self.ring_bytes.clamp(MIN_RING, MAX_RING);
        // The bounds are powers of two, so this stays between them.
        bytes.next_power_of_two() as usize
    }
}

/// What carries a link's bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Carrier {
    /// The socket.
    Socket,
    /// Two rings in shared memory, each written by one side. The socket is still there, for descriptors and to know when
    /// the peer goes.
    #[default]
    Rings,
}

/// What a side does that waits for bytes in a ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Spin {
    /// It sleeps at once: least power, and no processor is taken from others.
    Never,
    /// It looks for them for up to 60 microseconds where that pays, and only where there is a second processor.
    #[default]
    Adaptive,
}

impl FromStr for Carrier {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "socket" => Ok(Self::Socket),
            "rings" => Ok(Self::Rings),
            other => Err(format!(
                "no carrier of links is called {other}; there are socket and rings"
            )),
        }
    }
}

impl FromStr for Spin {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "never" => Ok(Self::Never),
            "adaptive" => Ok(Self::Adaptive),
            other => Err(format!(
                "no way to spin is called {other}; there are never and adaptive"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_size_becomes_one_that_a_ring_may_have() {
        for (asked, given) in [
            (0, MIN_RING),
            (100_000, 128 << 10),
            (256 << 10, 256 << 10),
            (u32::MAX, MAX_RING),
        ] {
            let config = LinkConfig {
                ring_bytes: asked,
                ..LinkConfig::default()
            };
            assert_eq!(config.capacity(), given as usize);
        }
    }

    #[test]
    fn names_are_those_of_the_serialised_form() {
        assert_eq!("socket".parse(), Ok(Carrier::Socket));
        assert_eq!("rings".parse(), Ok(Carrier::Rings));
        assert_eq!("never".parse(), Ok(Spin::Never));
        assert_eq!("adaptive".parse(), Ok(Spin::Adaptive));
        assert!("ring".parse::<Carrier>().is_err());
        assert!("".parse::<Spin>().is_err());
    }
}
