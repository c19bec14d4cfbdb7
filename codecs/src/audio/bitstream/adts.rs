//! The header of an ADTS frame (ISO/IEC 14496-3, 1.A.2.2).

use super::asc::{AudioSpecificConfig, SAMPLE_RATES};

/// One frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AdtsHeader {
    /// Object type less one: 1 is AAC-LC.
    pub(crate) profile: u32,
    /// Rate of the core coder.
    pub(crate) sample_rate: u32,
    /// Channel configuration; 0 means that a program config element says it.
    pub(crate) channel_config: u32,
    /// Bytes of the frame with this header.
    pub(crate) frame_len: usize,
    /// Bytes of the header itself, with its CRC and block positions.
    pub(crate) header_len: usize,
    /// Raw data blocks in the frame, 1 to 4, of 1024 values each.
    pub(crate) blocks: u32,
}

impl AdtsHeader {
    /// Bytes that [`AdtsHeader::parse`] needs.
    pub(crate) const LEN: usize = 7;

    /// Reads a header at the start of `bytes`; `None` where there is none.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; Self::LEN] = bytes.first_chunk()?;
        // Sync word and layer 0; the version bit may be either.
        if b[0] != 0xff || b[1] & 0xf6 != 0xf0 {
            return None;
        }
        let without_crc = b[1] & 1 != 0;
        let sample_rate = *SAMPLE_RATES.get(usize::from(b[2] >> 2 & 0xf))?;
        let frame_len =
            usize::from(b[3] & 3) << 11 | usize::from(b[4]) << 3 | usize::from(b[5]) >> 5;
        let extra_blocks = usize::from(b[6] & 3);
        // With a CRC, the positions of all blocks but the first lie before it.
        let header_len = if without_crc { 7 } else { 9 + 2 * extra_blocks };
        if frame_len <= header_len {
            return None;
        }
        Some(Self {
            profile: u32::from(b[2] >> 6),
            sample_rate,
            channel_config: u32::from(b[2] & 1) << 2 | u32::from(b[3] >> 6),
            frame_len,
            header_len,
            blocks: extra_blocks as u32 + 1,
        })
    }

    /// Frames of PCM that the frame decodes to.
    pub(crate) fn samples(&self) -> u64 {
        u64::from(self.blocks) * 1024
    }

    /// The same as the config that a container would carry.
    pub(crate) fn config(&self) -> AudioSpecificConfig {
        AudioSpecificConfig {
            object: self.profile + 1,
            sample_rate: self.sample_rate,
            channel_config: self.channel_config,
            sbr: false,
            ps: false,
            short_frames: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_an_encoder_wrote() {
        let header = AdtsHeader::parse(&[0xff, 0xf1, 0x4c, 0x80, 0x11, 0xff, 0xfc]).expect("valid");
        assert_eq!(header.sample_rate, 48_000);
        assert_eq!(header.channel_config, 2);
        assert_eq!((header.frame_len, header.header_len), (143, 7));
        assert_eq!(header.config().unsupported(), None);
    }

    #[test]
    fn refuses_layers_reserved_rates_and_frames_shorter_than_their_header() {
        for bytes in [
            [0xff, 0xfb, 0x4c, 0x80, 0x11, 0xff, 0xfc],
            [0xff, 0xf1, 0x74, 0x80, 0x11, 0xff, 0xfc],
            [0xff, 0xf1, 0x4c, 0x80, 0x00, 0x1f, 0xfc],
        ] {
            assert_eq!(AdtsHeader::parse(&bytes), None);
        }
    }
}
