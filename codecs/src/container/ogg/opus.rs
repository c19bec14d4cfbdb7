//! Opus packets as a container sees them (RFC 7845 and RFC 6716 section 3).

use portcullis_engine::{Error, Result};

/// Opus counts time in frames of this many a second, whatever rate it was made from.
pub(crate) const RATE: u32 = 48_000;

/// What the identification header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpusHead {
    pub(crate) channels: u8,
    /// Frames to drop at the start.
    pub(crate) pre_skip: u16,
}

impl OpusHead {
    /// Parses the header; `at` is its byte position.
    pub(crate) fn parse(packet: &[u8], at: u64) -> Result<Self> {
        let fields = packet.strip_prefix(b"OpusHead").unwrap_or_default();
        let malformed = |what: &'static str| Error::malformed(at, what);
        let &[
            version,
            channels,
            skip0,
            skip1,
            _,
            _,
            _,
            _,
            _,
            _,
            family,
            ref mapping @ ..,
        ] = fields
        else {
            return Err(malformed("no OpusHead header"));
        };
        if version >> 4 != 0 {
            return Err(malformed("Opus of an unknown version"));
        }
        if channels == 0 || (family == 0 && channels > 2) {
            return Err(malformed("Opus with an impossible number of channels"));
        }
        if family != 0 {
            let &[streams, coupled, ref mapping @ ..] = mapping else {
                return Err(malformed("Opus without its channel mapping"));
            };
            let decoded = u16::from(streams) + u16::from(coupled);
            let Some(mapping) = mapping.get(..usize::from(channels)) else {
                return Err(malformed("Opus without its channel mapping"));
            };
            if streams == 0
                || coupled > streams
                || decoded > 255
                || mapping.iter().any(|&c| c != 255 && u16::from(c) >= decoded)
            {
                return Err(malformed("Opus with an impossible channel mapping"));
            }
        }
        Ok(Self {
            channels,
            pre_skip: u16::from_le_bytes([skip0, skip1]),
        })
    }
}

/// Frames of a packet at 48 kHz, from its first bytes; `None` where they break the rules.
pub(crate) fn packet_frames(packet: &[u8]) -> Option<u32> {
    let toc = *packet.first()?;
    let frame = match toc >> 3 {
        config @ 0..12 => [480, 960, 1920, 2880][usize::from(config & 3)],
        config @ 12..16 => [480, 960][usize::from(config & 1)],
        config => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let count = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1)? & 63),
    };
    Some(frame * count).filter(|&frames| (1..=5760).contains(&frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_tell_their_length() {
        assert_eq!(packet_frames(&[0b1111_1100]), Some(960));
        assert_eq!(packet_frames(&[0b0001_1001]), Some(5760));
        assert_eq!(packet_frames(&[0b1000_0011, 48]), Some(5760));
        assert_eq!(packet_frames(&[0b1000_0011, 0]), None);
        assert_eq!(packet_frames(&[0b1111_1011, 63]), None);
        assert_eq!(packet_frames(&[]), None);
    }
}
