//! STREAMINFO and frame headers of FLAC (RFC 9639), with their checksums.

use super::bits::BitReader;

/// The STREAMINFO metadata block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamInfo {
    /// Fewest frames of PCM in a block, the last excepted.
    pub(crate) min_block: u32,
    /// Most frames of PCM in a block.
    pub(crate) max_block: u32,
    /// Bytes of the longest frame; 0 where unknown.
    pub(crate) max_frame: u32,
    /// Audio frames per second; 0 where nothing says it.
    pub(crate) sample_rate: u32,
    /// 1 to 8.
    pub(crate) channels: u32,
    /// Bits of a value, 4 to 32.
    pub(crate) bits: u32,
    /// Frames of PCM in the stream; 0 where unknown.
    pub(crate) total: u64,
    /// MD5 of the PCM; zero where unknown.
    pub(crate) md5: [u8; 16],
}

impl StreamInfo {
    /// Bytes of the block.
    pub(crate) const LEN: usize = 34;

    /// Reads the block's fields as they are; `None` where it is short.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.first_chunk()?;
        let mut bits = BitReader::new(bytes);
        let min_block = bits.read(16)?;
        let max_block = bits.read(16)?;
        let _min_frame = bits.read(24)?;
        let max_frame = bits.read(24)?;
        let sample_rate = bits.read(20)?;
        let channels = bits.read(3)? + 1;
        let depth = bits.read(5)? + 1;
        let total = u64::from(bits.read(4)?) << 32 | u64::from(bits.read(32)?);
        let mut md5 = [0; 16];
        md5.copy_from_slice(&bytes[18..]);
        Some(Self {
            min_block,
            max_block,
            max_frame,
            sample_rate,
            channels,
            bits: depth,
            total,
            md5,
        })
    }

    /// Whether the fields can describe a stream; a zeroed block cannot.
    pub(crate) fn is_plausible(&self) -> bool {
        self.max_block >= 16 && self.bits >= 4 && self.sample_rate != 0
    }

    /// What a first frame says of its stream, for one whose block says nothing.
    pub(crate) fn of_frame(frame: &FrameHeader) -> Option<Self> {
        Some(Self {
            min_block: 16,
            max_block: 65_535,
            max_frame: 0,
            sample_rate: frame.sample_rate?,
            channels: frame.channels,
            bits: frame.bits?,
            total: 0,
            md5: [0; 16],
        })
    }

    /// The block's bytes.
    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..2].copy_from_slice(&(self.min_block as u16).to_be_bytes());
        bytes[2..4].copy_from_slice(&(self.max_block as u16).to_be_bytes());
        bytes[7..10].copy_from_slice(&self.max_frame.to_be_bytes()[1..]);
        let packed = u64::from(self.sample_rate) << 44
            | u64::from(self.channels - 1) << 41
            | u64::from(self.bits - 1) << 36
            | (self.total & 0xf_ffff_ffff);
        bytes[10..18].copy_from_slice(&packed.to_be_bytes());
        bytes[18..].copy_from_slice(&self.md5);
        bytes
    }
}

/// The header of a frame, its CRC-8 checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Whether the position is a number of PCM frames; otherwise it is a number of blocks.
    pub(crate) variable: bool,
    /// Number of the first PCM frame or of the block.
    pub(crate) number: u64,
    /// Frames of PCM in this block.
    pub(crate) block: u32,
    /// Audio frames per second, where the frame says.
    pub(crate) sample_rate: Option<u32>,
    /// 1 to 8.
    pub(crate) channels: u32,
    /// Bits of a value, where the frame says.
    pub(crate) bits: Option<u32>,
    /// Bytes of the header with its CRC.
    pub(crate) len: usize,
}

impl FrameHeader {
    /// No header is longer.
    pub(crate) const MAX_LEN: usize = 16;

    /// Reads a header at the start of `bytes`; `None` where there is none or its CRC-8 is wrong.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < 6 || bytes[0] != 0xff || bytes[1] & 0xfe != 0xf8 {
            return None;
        }
        let variable = bytes[1] & 1 != 0;
        let channels = match bytes[3] >> 4 {
            code @ 0..=7 => u32::from(code) + 1,
            8..=10 => 2,
            _ => return None,
        };
        let bits = match bytes[3] >> 1 & 7 {
            0 => None,
            1 => Some(8),
            2 => Some(12),
            4 => Some(16),
            5 => Some(20),
            6 => Some(24),
            7 => Some(32),
            _ => return None,
        };
        if bytes[3] & 1 != 0 {
            return None;
        }
        let (number, mut at) = coded_number(&bytes[4..]).map(|(n, len)| (n, 4 + len))?;
        let block = match bytes[2] >> 4 {
            0 => return None,
            1 => 192,
            code @ 2..=5 => 576 << (code - 2),
            6 => {
                at += 1;
                u32::from(*bytes.get(at - 1)?) + 1
            }
            7 => {
                at += 2;
                u32::from(be16(bytes, at - 2)?) + 1
            }
            code => 256 << (code - 8),
        };
        let sample_rate = match bytes[2] & 0xf {
            0 => None,
            code @ 1..=11 => Some(
                [
                    88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100,
                    48_000, 96_000,
                ][usize::from(code) - 1],
            ),
            12 => {
                at += 1;
                Some(u32::from(*bytes.get(at - 1)?) * 1000)
            }
            13 => {
                at += 2;
                Some(u32::from(be16(bytes, at - 2)?))
            }
            14 => {
                at += 2;
                Some(u32::from(be16(bytes, at - 2)?) * 10)
            }
            _ => return None,
        };
        if sample_rate == Some(0) || block > 65_535 {
            return None;
        }
        let crc = *bytes.get(at)?;
        if crc8(&bytes[..at]) != crc {
            return None;
        }
        Some(Self {
            variable,
            number,
            block,
            sample_rate,
            channels,
            bits,
            len: at + 1,
        })
    }

    /// Number of the block's first PCM frame, in a stream whose blocks have `fixed` frames.
    pub(crate) fn first_sample(&self, fixed: u32) -> u64 {
        if self.variable {
            self.number
        } else {
            self.number.saturating_mul(u64::from(fixed))
        }
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|pair| u16::from_be_bytes(*pair))
}

/// A number coded like UTF-8 with up to seven bytes, and its length.
fn coded_number(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let len = match first.leading_ones() {
        0 => return Some((u64::from(first), 1)),
        1 | 8 => return None,
        ones => ones as usize,
    };
    let mut value = u64::from(first) & ((1 << (7 - len)) - 1);
    for byte in bytes.get(1..len)? {
        if byte & 0xc0 != 0x80 {
            return None;
        }
        value = value << 6 | u64::from(byte & 0x3f);
    }
    Some((value, len))
}

const CRC8: [u8; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut crc = at as u8;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc << 1) ^ if crc & 0x80 != 0 { 7 } else { 0 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

/// Eight tables, so that eight bytes take one step.
const CRC16: [[u16; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut at = 0;
    while at < 256 {
        let mut crc = (at as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc << 1) ^ if crc & 0x8000 != 0 { 0x8005 } else { 0 };
            bit += 1;
        }
        tables[0][at] = crc;
        at += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut at = 0;
        while at < 256 {
            let before = tables[table - 1][at];
            tables[table][at] = (before << 8) ^ tables[0][(before >> 8) as usize];
            at += 1;
        }
        table += 1;
    }
    tables
};

/// CRC-8 of a header; over the header with its own it is 0.
pub(crate) fn crc8(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0, |crc, byte| CRC8[usize::from(crc ^ byte)])
}

/// CRC-16 of `bytes` continued from `crc`. Over a whole frame with its footer it is 0.
pub(crate) fn crc16(crc: u16, bytes: &[u8]) -> u16 {
    let mut crc = crc;
    let (eights, rest) = bytes.as_chunks::<8>();
    for b in eights {
        crc = CRC16[7][usize::from(b[0] ^ (crc >> 8) as u8)]
            ^ CRC16[6][usize::from(b[1] ^ crc as u8)]
            ^ CRC16[5][usize::from(b[2])]
            ^ CRC16[4][usize::from(b[3])]
            ^ CRC16[3][usize::from(b[4])]
            ^ CRC16[2][usize::from(b[5])]
            ^ CRC16[1][usize::from(b[6])]
            ^ CRC16[0][usize::from(b[7])];
    }
    for byte in rest {
        crc = (crc << 8) ^ CRC16[0][usize::from((crc >> 8) as u8 ^ byte)];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streaminfo_goes_there_and_back() {
        let info = StreamInfo {
            min_block: 4096,
            max_block: 4096,
            max_frame: 70_000,
            sample_rate: 96_000,
            channels: 6,
            bits: 24,
            total: 0xf_1234_5678,
            md5: [7; 16],
        };
        assert_eq!(StreamInfo::parse(&info.to_bytes()), Some(info));
    }

    #[test]
    fn crc16_in_eights_is_crc16_byte_by_byte() {
        let bytes: Vec<u8> = (0..100_u32).map(|i| (i * 37 % 251) as u8).collect();
        let slow = bytes.iter().fold(0, |crc, byte| crc16(crc, &[*byte]));
        assert_eq!(crc16(0, &bytes), slow);
        // The check value of CRC-16/UMTS.
        assert_eq!(crc16(0, b"123456789"), 0xfee8);
        assert_eq!(crc8(b"123456789"), 0xf4);
    }

    #[test]
    fn numbers_of_all_lengths() {
        assert_eq!(coded_number(&[0x7f]), Some((0x7f, 1)));
        assert_eq!(coded_number(&[0xc2, 0x80]), Some((0x80, 2)));
        assert_eq!(
            coded_number(&[0xfe, 0xbf, 0xbf, 0xbf, 0xbf, 0xbf, 0xbf]),
            Some((0xf_ffff_ffff, 7))
        );
        assert_eq!(coded_number(&[0xff, 0x80]), None);
        assert_eq!(coded_number(&[0xc2, 0x00]), None);
        assert_eq!(coded_number(&[0xe2, 0x80]), None);
    }
}
