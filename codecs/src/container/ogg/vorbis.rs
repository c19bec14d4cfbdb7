//! Vorbis packets as a container sees them: headers, and how many frames a packet stands for.

use portcullis_engine::{Error, Result};

/// A comment header without vendor and comments.
pub(crate) const NO_COMMENTS: &[u8] = b"\x03vorbis\0\0\0\0\0\0\0\0\x01";

/// What the identification header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identification {
    pub(crate) channels: u32,
    pub(crate) rate: u32,
    pub(crate) nominal_bit_rate: Option<u64>,
    /// Frames of a short and of a long block.
    pub(crate) blocks: [u32; 2],
}

impl Identification {
    /// Parses the first header; `at` is its byte position.
    pub(crate) fn parse(packet: &[u8], at: u64) -> Result<Self> {
        let Some(fields) = packet.strip_prefix(b"\x01vorbis").filter(|f| f.len() >= 23) else {
            return Err(Error::malformed(at, "no Vorbis identification header"));
        };
        let word =
            |from: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte: usize| fields[from + byte]));
        let blocks = [fields[21] & 15, fields[21] >> 4];
        if word(0) != 0 || fields[4] == 0 || word(5) == 0 {
            return Err(Error::malformed(
                at,
                "Vorbis of an unknown version, without channels or without a sample rate",
            ));
        }
        if blocks[0] < 6 || blocks[1] > 13 || blocks[0] > blocks[1] {
            return Err(Error::malformed(at, "Vorbis with impossible block sizes"));
        }
        Ok(Self {
            channels: u32::from(fields[4]),
            rate: word(5),
            nominal_bit_rate: u64::try_from(word(13) as i32).ok().filter(|&rate| rate > 0),
            blocks: blocks.map(|log| 1 << log),
        })
    }
}

/// Counts the frames of Vorbis packets: a block overlaps with the one before it.
#[derive(Clone, Debug)]
pub(crate) struct BlockCounter {
    blocks: [u32; 2],
    /// Whether each mode has long blocks.
    modes: Vec<bool>,
    before: Option<u32>,
}

impl BlockCounter {
    /// A counter from the identification header and the setup header, which begins at byte `at`.
    pub(crate) fn new(identification: &Identification, setup: &[u8], at: u64) -> Result<Self> {
        if !setup.starts_with(b"\x05vorbis") {
            return Err(Error::malformed(at, "no Vorbis setup header"));
        }
        let modes = modes(setup)
            .ok_or_else(|| Error::malformed(at, "the Vorbis setup header has no modes"))?;
        Ok(Self {
            blocks: identification.blocks,
            modes,
            before: None,
        })
    }

    /// A counter from headers that are laced as in Matroska's private data.
    pub(crate) fn from_private_data(private: &[u8], at: u64) -> Result<Self> {
        let [first, _, setup] = unlace(private)
            .ok_or_else(|| Error::malformed(at, "Vorbis private data is not three headers"))?;
        Self::new(&Identification::parse(first, at)?, setup, at)
    }

    /// Frames of a long block.
    pub(crate) fn long_block(&self) -> u32 {
        self.blocks[1]
    }

    /// Forgets the block before: the next packet stands for no frames, it only begins an overlap.
    pub(crate) fn reset(&mut self) {
        self.before = None;
    }

    /// Frames that `packet` completes; `None` where it is no audio packet.
    pub(crate) fn frames(&mut self, packet: &[u8]) -> Option<u32> {
        let first = u32::from(*packet.first()?) | u32::from(*packet.get(1).unwrap_or(&0)) << 8;
        if first & 1 != 0 {
            return None;
        }
        let bits = usize::BITS - (self.modes.len() - 1).leading_zeros();
        let mode = (first >> 1) & ((1 << bits) - 1);
        let block = self.blocks[usize::from(*self.modes.get(mode as usize)?)];
        let frames = self.before.map_or(0, |before| (before + block) / 4);
        self.before = Some(block);
        Some(frames)
    }
}

/// Laces the three headers as Matroska does, which is how private data carries them.
pub(crate) fn lace(headers: [&[u8]; 3]) -> Vec<u8> {
    let mut private = vec![2];
    for header in &headers[..2] {
        private.resize(private.len() + header.len() / 255, 255);
        private.push((header.len() % 255) as u8);
    }
    for header in headers {
        private.extend_from_slice(header);
    }
    private
}

/// The three headers in laced private data.
pub(crate) fn unlace(private: &[u8]) -> Option<[&[u8]; 3]> {
    let mut rest = private.strip_prefix(&[2])?;
    let mut lens = [0_usize; 2];
    for len in &mut lens {
        loop {
            let (&value, after) = rest.split_first()?;
            rest = after;
            *len += usize::from(value);
            if value < 255 {
                break;
            }
        }
    }
    let (first, rest) = rest.split_at_checked(lens[0])?;
    let (second, third) = rest.split_at_checked(lens[1])?;
    Some([first, second, third])
}

/// Which modes have long blocks.
///
/// The modes are the last thing in the setup header, behind code books whose length only a full parse tells. They are
/// found from the end instead, as liboggz and FFmpeg do: 41 bits a mode, of which 32 are zero, and before them the count.
fn modes(setup: &[u8]) -> Option<Vec<bool>> {
    let bit = |at: usize| usize::from(setup[at / 8] >> (at % 8) & 1);
    let value = |at: usize, len: usize| (0..len).fold(0, |sum, n| sum | bit(at + n) << n);
    let framing = (0..setup.len() * 8).rev().find(|&at| bit(at) == 1)?;
    // 7 bytes of signature, and before the modes at least a count.
    let first = 7 * 8 + 6;
    let mut found = None;
    let mut at = framing;
    for count in 1..=64_usize {
        let Some(before) = at.checked_sub(41).filter(|&at| at >= first) else {
            break;
        };
        at = before;
        if value(at + 1, 32) != 0 || value(at + 33, 8) > 63 {
            break;
        }
        if value(at - 6, 6) + 1 == count {
            found = Some((at, count));
        }
    }
    let (at, count) = found?;
    Some((0..count).map(|mode| bit(at + 41 * mode) == 1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laced_headers_come_apart_again() {
        let headers: [&[u8]; 3] = [&[1; 30], &[2; 510], &[3; 7]];
        let private = lace(headers);
        assert_eq!(unlace(&private), Some(headers));
        assert_eq!(unlace(&private[..100]), None);
        assert_eq!(unlace(&[2, 255]), None);
    }
}
