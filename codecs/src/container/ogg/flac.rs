//! FLAC as Ogg and Matroska carry it: STREAMINFO, and the length of a frame.

use bytes::Bytes;
use portcullis_engine::{Error, Result};

/// What STREAMINFO says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamInfo {
    pub(crate) rate: u32,
    pub(crate) channels: u32,
    pub(crate) bits: u32,
    /// Frames of the whole stream, where the encoder knew.
    pub(crate) frames: Option<u64>,
    /// The 34 bytes.
    pub(crate) bytes: Bytes,
}

impl StreamInfo {
    /// Parses the block's 34 bytes; `at` is their byte position.
    pub(crate) fn parse(bytes: &[u8], at: u64) -> Result<Self> {
        let Some(bytes) = bytes.first_chunk::<34>() else {
            return Err(Error::malformed(at, "FLAC without a whole STREAMINFO"));
        };
        let [_, _, _, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h, ..] = *bytes;
        let packed = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        let rate = (packed >> 44) as u32;
        if rate == 0 {
            return Err(Error::malformed(at, "FLAC without a sample rate"));
        }
        Ok(Self {
            rate,
            channels: (packed >> 41 & 7) as u32 + 1,
            bits: (packed >> 36 & 31) as u32 + 1,
            frames: Some(packed & 0xf_ffff_ffff).filter(|&frames| frames != 0),
            bytes: Bytes::copy_from_slice(bytes),
        })
    }

    /// STREAMINFO behind a `fLaC` marker and the block's header, as Matroska's and Ogg's first header have it.
    pub(crate) fn parse_marked(bytes: &[u8], at: u64) -> Result<Self> {
        match bytes.strip_prefix(b"fLaC") {
            Some([kind, 0, 0, 34, info @ ..]) if kind & 0x7f == 0 => Self::parse(info, at + 8),
            _ => Err(Error::malformed(at, "FLAC without STREAMINFO first")),
        }
    }
}

/// PCM frames in a FLAC frame, from its header; `None` where this is no frame.
pub(crate) fn block_frames(frame: &[u8]) -> Option<u32> {
    let &[0xff, sync, sizes, _, ref coded @ ..] = frame else {
        return None;
    };
    if sync & 0xfe != 0xf8 {
        return None;
    }
    // Behind the four bytes comes a number of 1 to 7 bytes, then the block size where the code says so.
    let number_len = match coded.first()?.leading_ones() {
        0 => 1,
        ones @ 2..=7 => ones as usize,
        _ => return None,
    };
    let size = coded.get(number_len..)?;
    Some(match sizes >> 4 {
        0 => return None,
        1 => 192,
        code @ 2..=5 => 576 << (code - 2),
        6 => u32::from(*size.first()?) + 1,
        7 => u32::from(*size.first()?) * 256 + u32::from(*size.get(1)?) + 1,
        code => 256 << (code - 8),
    })
}
