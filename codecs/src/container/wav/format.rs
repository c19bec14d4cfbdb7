//! The fmt chunk: what a WAV file's data is.

use bytes::Bytes;
use portcullis_engine::{Error, Key, MediaType, Result, Subtype, keys};

/// Speakers of a WAVE_FORMAT_EXTENSIBLE file, as its bit mask.
const CHANNEL_MASK: Key<u32> = Key::new("channel_mask");
/// More channels than any speaker layout has; the field could claim 65,535.
const MAX_CHANNELS: u32 = 64;
const EXTENSIBLE: u16 = 0xfffe;
/// The end of every subformat GUID that stands for a format tag.
const GUID_OF_TAG: [u8; 12] = [0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];
/// The same for ambisonic B-format, whose channels are plain PCM or float.
const GUID_OF_B_FORMAT: [u8; 12] = [
    0x21, 0x07, 0xd3, 0x11, 0x86, 0x44, 0xc8, 0xc1, 0xca, 0, 0, 0,
];

/// A checked fmt chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format {
    subtype: Subtype,
    pub(super) rate: u32,
    channels: u32,
    /// Bytes that belong together: a frame of PCM or a compressed block.
    pub(super) block: u32,
    /// Frames of PCM in a block; 0 where only the bit rate tells.
    frames_per_block: u32,
    bytes_per_second: u32,
    bits: Option<u32>,
    mask: Option<u32>,
    tag: u16,
    extra: Bytes,
    /// Values of 24 bits in four bytes, which of them is not said: see [`Self::look_at`].
    loose: bool,
    low: bool,
}

impl Format {
    /// Checks the chunk's content; `at` is where the chunk begins.
    pub(super) fn parse(bytes: &[u8], at: u64) -> Result<Self> {
        let malformed = |what: String| Err(Error::malformed(at, what));
        let word = |from: usize| {
            let pair = bytes.get(from..).and_then(<[u8]>::first_chunk);
            pair.map_or(0, |pair| u16::from_le_bytes(*pair))
        };
        let long = |from: usize| u32::from(word(from)) | u32::from(word(from + 2)) << 16;
        let mut tag = word(0);
        let channels = u32::from(word(2));
        let rate = long(4);
        let bytes_per_second = long(8);
        let align = u32::from(word(12));
        let bits = u32::from(word(14));
        if channels == 0 {
            return malformed("a fmt chunk without channels".into());
        }
        if channels > MAX_CHANNELS {
            return Err(
                Error::limit("channels", u64::from(MAX_CHANNELS), u64::from(channels))
                    .because(format!("fmt chunk at byte {at}")),
            );
        }
        if rate == 0 {
            return malformed("a sample rate of 0".into());
        }
        let mut valid_bits = bits;
        let mut mask = None;
        let extra_len = usize::from(word(16));
        if tag == EXTENSIBLE && bytes.len() >= 40 && extra_len >= 22 {
            if word(18) != 0 {
                valid_bits = u32::from(word(18));
            }
            mask = Some(long(20)).filter(|mask| *mask != 0);
            let b_format = bytes[28..40] == GUID_OF_B_FORMAT && matches!(word(24), 1 | 3);
            if bytes[28..40] != GUID_OF_TAG && !b_format {
                return Ok(Self {
                    subtype: Subtype::named("wav_guid"),
                    rate,
                    channels,
                    block: align.max(1),
                    frames_per_block: 0,
                    bytes_per_second,
                    bits: None,
                    mask,
                    tag,
                    extra: Bytes::copy_from_slice(&bytes[18..]),
                    loose: false,
                    low: false,
                });
            }
            tag = word(24);
            if u32::from(word(26)) != 0 {
                return malformed("a subformat that is no format tag".into());
            }
        }
        let extra = bytes
            .get(18..)
            .map(|rest| Bytes::copy_from_slice(&rest[..rest.len().min(extra_len)]))
            .unwrap_or_default();
        let linear = matches!(tag, 1 | 3 | 6 | 7);
        // Values may lie in more bytes than their bits need.
        let wide = align.checked_div(channels).unwrap_or(0) * 8;
        let is_wide = tag == 1 && align % channels == 0 && wide > bits.next_multiple_of(8);
        let is_wide = is_wide && matches!(wide, 16 | 24 | 32) && bits != 0;
        let (valid_bits, bits) = match is_wide {
            true => (valid_bits.min(bits), wide),
            false => (valid_bits, bits),
        };
        let (subtype, value_bytes) = match (tag, bits) {
            (1, 1..=8) => (Subtype::PCM_U8, 1),
            (1, 9..=16) => (Subtype::PCM_S16, 2),
            (1, 17..=24) => (Subtype::PCM_S24, 3),
            (1, 25..=32) => (Subtype::PCM_S32, 4),
            (3, 32) => (Subtype::PCM_F32, 4),
            (3, 64) => (Subtype::PCM_F64, 8),
            (6, _) => (Subtype::PCM_ALAW, 1),
            (7, _) => (Subtype::PCM_MULAW, 1),
            (1 | 3, _) => return malformed(format!("PCM of {bits} bits a value")),
            (other, _) => (compressed(other), 0),
        };
        if !linear {
            return Ok(Self {
                subtype,
                rate,
                channels,
                block: align.max(1),
                frames_per_block: 0,
                bytes_per_second,
                bits: None,
                mask,
                tag,
                extra,
                loose: false,
                low: false,
            });
        }
        let block = value_bytes * channels;
        // Some writers leave the block size out; one that contradicts the rest leaves nothing to go by.
        if align != 0 && align != block {
            return malformed(format!(
                "blocks of {align} bytes for {channels} channels of {bits} bits"
            ));
        }
        Ok(Self {
            subtype,
            rate,
            channels,
            block,
            frames_per_block: 1,
            bytes_per_second: rate.saturating_mul(block),
            bits: Some(valid_bits).filter(|valid| tag == 1 && (1..bits).contains(valid)),
            mask,
            tag,
            extra: Bytes::new(),
            loose: is_wide && (valid_bits, bits) == (24, 32),
            low: false,
        })
    }

    /// Finds out from the first data where values of 24 bits lie in four bytes: on top, as the format has it, or at the
    /// bottom, as some programs write them and FFmpeg reads them.
    pub(super) fn look_at(&mut self, data: &[u8]) {
        let values = data.as_chunks::<4>().0;
        let fits = |value: &[u8; 4]| matches!(i32::from_le_bytes(*value) >> 23, 0 | -1);
        self.low =
            self.loose && values.iter().all(fits) && values.iter().any(|value| value[0] != 0);
    }

    /// Moves values up that lie at the bottom of their bytes.
    pub(super) fn raise(&self, data: &mut [u8]) {
        if self.low {
            for value in data.as_chunks_mut::<4>().0 {
                *value = (i32::from_le_bytes(*value) << 8).to_le_bytes();
            }
        }
    }

    /// Whether the data are frames of MPEG audio, which do not keep to blocks.
    pub(super) fn is_mpeg(&self) -> bool {
        matches!(self.tag, 0x50 | 0x55)
    }

    pub(super) fn media_type(&self) -> MediaType {
        let mut media_type = MediaType::audio(self.subtype, self.rate, self.channels)
            .with(&keys::BIT_RATE, u64::from(self.bytes_per_second) * 8)
            .with(&keys::CODEC_TAG, format!("0x{:04x}", self.tag));
        if let Some(bits) = self.bits {
            media_type.attributes.set(&keys::BITS, bits);
        }
        if let Some(mask) = self.mask {
            media_type.attributes.set(&CHANNEL_MASK, mask);
        }
        if !self.extra.is_empty() {
            media_type
                .attributes
                .set(&keys::PRIVATE_DATA, self.extra.clone());
        }
        media_type
    }

    /// Frames of PCM in this many bytes of data.
    pub(super) fn frames_in(&self, bytes: u64) -> u64 {
        if self.frames_per_block != 0 {
            return bytes / u64::from(self.block) * u64::from(self.frames_per_block);
        }
        match self.bytes_per_second {
            0 => 0,
            per_second => {
                (u128::from(bytes) * u128::from(self.rate) / u128::from(per_second)) as u64
            }
        }
    }

    /// Where in the data a frame of PCM lies, or the block that has it.
    pub(super) fn byte_of(&self, frame: u64) -> u64 {
        let block = u64::from(self.block);
        if self.frames_per_block != 0 {
            return (frame / u64::from(self.frames_per_block)).saturating_mul(block);
        }
        let byte = u128::from(frame) * u128::from(self.bytes_per_second) / u128::from(self.rate);
        u64::try_from(byte).unwrap_or(u64::MAX) / block * block
    }

    /// Bytes of one sample: 50 to 100 ms, as FFmpeg cuts them.
    pub(super) fn packet_bytes(&self) -> u64 {
        let tenth = (self.rate / 10).max(1);
        let frames = 1_u64 << tenth.ilog2();
        if self.frames_per_block != 0 {
            return frames * u64::from(self.block);
        }
        let blocks = (self.bytes_per_second / 10 / self.block).clamp(1, 1 << 16);
        u64::from(blocks) * u64::from(self.block)
    }
}

/// FFmpeg's names of the formats that have no decoder here.
fn compressed(tag: u16) -> Subtype {
    Subtype::named(match tag {
        0x0002 => "adpcm_ms",
        0x0011 => "adpcm_ima_wav",
        0x0022 => "truespeech",
        0x0031 => "gsm_ms",
        0x0045 => "adpcm_g726",
        0x0050 => "mp2",
        0x0055 => "mp3",
        // Its frames do not keep to blocks, so the decoder must not be given them.
        0x00ff => "aac_in_wav",
        0x0160 => "wmav1",
        0x0161 => "wmav2",
        0x2000 => "ac3_in_wav",
        _ => return Subtype::named(&format!("wav_0x{tag:04x}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fmt(tag: u16, channels: u16, rate: u32, align: u16, bits: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(tag.to_le_bytes());
        bytes.extend(channels.to_le_bytes());
        bytes.extend(rate.to_le_bytes());
        bytes.extend((rate.wrapping_mul(u32::from(align))).to_le_bytes());
        bytes.extend(align.to_le_bytes());
        bytes.extend(bits.to_le_bytes());
        bytes
    }

    #[test]
    fn impossible_formats_are_refused() {
        for bytes in [
            fmt(1, 0, 48_000, 4, 16),
            fmt(1, 65_535, 48_000, 4, 16),
            fmt(1, 2, 0, 4, 16),
            fmt(1, 2, 48_000, 4, 0),
            fmt(1, 2, 48_000, 4, 77),
            fmt(3, 2, 48_000, 4, 16),
            fmt(1, 2, 48_000, 5, 16),
            vec![1, 0],
        ] {
            assert!(Format::parse(&bytes, 12).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_missing_block_size_follows_from_the_rest() {
        let format = Format::parse(&fmt(1, 2, 48_000, 0, 24), 12).expect("valid");
        assert_eq!((format.block, format.packet_bytes()), (6, 4096 * 6));
        assert_eq!(format.frames_in(13), 2);
        let law = Format::parse(&fmt(7, 1, 8000, 1, 8), 12).expect("valid");
        assert_eq!(law.media_type().subtype, Subtype::PCM_MULAW);
    }

    #[test]
    fn compressed_blocks_are_timed_by_the_bit_rate() {
        let format = Format::parse(&fmt(0x11, 1, 8000, 256, 4), 12).expect("listed");
        assert_eq!(format.media_type().subtype, Subtype::named("adpcm_ima_wav"));
        assert_eq!(format.byte_of(format.frames_in(1024)), 1024);
    }
}
