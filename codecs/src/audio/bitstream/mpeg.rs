//! The header of an MPEG audio frame, layers I to III (ISO/IEC 11172-3 and 13818-3, and the unofficial MPEG 2.5).

const BIT_RATES_1: [[u32; 15]; 3] = [
    [
        0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448,
    ],
    [
        0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384,
    ],
    [
        0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320,
    ],
];
const BIT_RATES_2: [[u32; 15]; 2] = [
    [
        0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256,
    ],
    [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

/// One frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MpegHeader {
    /// MPEG-1; otherwise MPEG-2 or 2.5 with half or a quarter of its rates.
    pub(crate) mpeg1: bool,
    /// 1 to 3.
    pub(crate) layer: u32,
    /// Bits per second; 0 in the free format.
    pub(crate) bit_rate: u32,
    /// Audio frames per second.
    pub(crate) sample_rate: u32,
    /// 1 or 2.
    pub(crate) channels: u32,
    /// Whether a CRC of two bytes follows the header.
    pub(crate) crc: bool,
    /// One slot more than the bit rate says.
    pub(crate) padding: bool,
    /// Bytes of the frame with this header; 0 in the free format.
    pub(crate) frame_len: usize,
}

impl MpegHeader {
    /// Bytes that [`MpegHeader::parse`] needs.
    pub(crate) const LEN: usize = 4;

    /// Reads a header at the start of `bytes`; `None` where there is none.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; Self::LEN] = bytes.first_chunk()?;
        if b[0] != 0xff || b[1] & 0xe0 != 0xe0 {
            return None;
        }
        let (mpeg1, shift) = match b[1] >> 3 & 3 {
            0 => (false, 2),
            2 => (false, 1),
            3 => (true, 0),
            _ => return None,
        };
        let layer = match b[1] >> 1 & 3 {
            0 => return None,
            code => 4 - u32::from(code),
        };
        let rates = if mpeg1 {
            &BIT_RATES_1[layer as usize - 1]
        } else {
            &BIT_RATES_2[usize::from(layer != 1)]
        };
        let bit_rate = rates.get(usize::from(b[2] >> 4))? * 1000;
        let sample_rate = [44_100, 48_000, 32_000].get(usize::from(b[2] >> 2 & 3))? >> shift;
        let padding = b[2] >> 1 & 1 != 0;
        let slots_per_rate = match (layer, mpeg1) {
            (1, _) => 12,
            (3, false) => 72,
            _ => 144,
        };
        let slot = if layer == 1 { 4 } else { 1 };
        let frame_len = if bit_rate == 0 {
            0
        } else {
            (slots_per_rate * bit_rate / sample_rate + u32::from(padding)) as usize * slot
        };
        Some(Self {
            mpeg1,
            layer,
            bit_rate,
            sample_rate,
            channels: if b[3] >> 6 == 3 { 1 } else { 2 },
            crc: b[1] & 1 == 0,
            padding,
            frame_len,
        })
    }

    /// Bytes of padding.
    pub(crate) fn padding_len(&self) -> usize {
        match (self.padding, self.layer) {
            (false, _) => 0,
            (true, 1) => 4,
            (true, _) => 1,
        }
    }

    /// Whether both can be headers of one stream of the free format.
    pub(crate) fn is_free_like(&self, other: &Self) -> bool {
        let of = |header: &Self| (header.mpeg1, header.layer, header.sample_rate);
        self.bit_rate == 0 && other.bit_rate == 0 && of(self) == of(other)
    }

    /// Frames of PCM that the frame decodes to.
    pub(crate) fn samples(&self) -> u64 {
        match (self.layer, self.mpeg1) {
            (1, _) => 384,
            (3, false) => 576,
            _ => 1152,
        }
    }

    /// Where the sound's own bytes begin, in layer III.
    pub(crate) fn sound_at(&self) -> usize {
        Self::LEN + if self.crc { 2 } else { 0 } + self.side_info_len()
    }

    /// Bytes of side information behind the header and its CRC, in layer III.
    pub(crate) fn side_info_len(&self) -> usize {
        match (self.mpeg1, self.channels) {
            (true, 1) => 17,
            (true, _) => 32,
            (false, 1) => 9,
            (false, _) => 17,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_lengths_of_all_versions() {
        let of = |bytes: [u8; 4]| MpegHeader::parse(&bytes).expect("valid");
        let one = of([0xff, 0xfb, 0x74, 0xc4]);
        assert_eq!(
            (one.sample_rate, one.channels, one.frame_len),
            (48_000, 1, 288)
        );
        let two = of([0xff, 0xf3, 0x40, 0xc4]);
        assert_eq!((two.sample_rate, two.samples()), (22_050, 576));
        let half = of([0xff, 0xe3, 0x48, 0x00]);
        assert_eq!((half.sample_rate, half.channels), (8_000, 2));
    }

    #[test]
    fn reserved_values_are_no_header() {
        for bytes in [
            [0xff, 0xeb, 0x74, 0xc4],
            [0xff, 0xf9, 0x74, 0xc4],
            [0xff, 0xfb, 0xf4, 0xc4],
            [0xff, 0xfb, 0x7c, 0xc4],
            [0xff, 0x1b, 0x74, 0xc4],
        ] {
            assert_eq!(MpegHeader::parse(&bytes), None, "{bytes:x?}");
        }
    }
}
