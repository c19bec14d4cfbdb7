//! AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1): what an AAC stream in MP4 or Matroska says of itself.

use std::borrow::Cow;

use super::bits::BitReader;

/// Rates by index; 13 and 14 are reserved, 15 means that the rate follows.
pub(crate) const SAMPLE_RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];

const OBJECT_LC: u32 = 2;
const OBJECT_SBR: u32 = 5;
const OBJECT_PS: u32 = 29;
const SYNC_EXTENSION: u32 = 0x2b7;

/// What decides whether and how an AAC stream can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AudioSpecificConfig {
    /// Audio object type of the core coder: 2 is AAC-LC.
    pub(crate) object: u32,
    /// Rate of the core coder.
    pub(crate) sample_rate: u32,
    /// Channel configuration: 1 to 7; 0 means that a program config element says it.
    pub(crate) channel_config: u32,
    /// Spectral band replication is signalled.
    pub(crate) sbr: bool,
    /// Parametric stereo is signalled.
    pub(crate) ps: bool,
    /// Frames of 960 instead of 1024 values.
    pub(crate) short_frames: bool,
}

impl AudioSpecificConfig {
    /// Reads a config; `None` where it ends early or uses a reserved rate.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut bits = BitReader::new(bytes);
        let mut object = object_type(&mut bits)?;
        let sample_rate = sample_rate(&mut bits)?;
        let channel_config = bits.read(4)?;
        let (mut sbr, mut ps) = (false, false);
        if object == OBJECT_SBR || object == OBJECT_PS {
            sbr = true;
            ps = object == OBJECT_PS;
            let _extension_rate = self::sample_rate(&mut bits)?;
            object = object_type(&mut bits)?;
        }
        let mut short_frames = false;
        if is_general_audio(object) {
            short_frames = bits.flag()?;
            if bits.flag()? {
                bits.read(14)?;
            }
            let _extension = bits.flag()?;
            // A program config element would follow for configuration 0: it is refused, so nothing after it matters.
            if channel_config != 0 && object == OBJECT_LC && !sbr {
                (sbr, ps) = backward_compatible_extension(&mut bits).unwrap_or_default();
            }
        }
        Some(Self {
            object,
            sample_rate,
            channel_config,
            sbr,
            ps,
            short_frames,
        })
    }

    /// What of this stream the decoder lacks; `None` for plain AAC-LC, mono or stereo.
    pub(crate) fn unsupported(&self) -> Option<Cow<'static, str>> {
        if self.ps {
            return Some("HE-AAC v2 (parametric stereo)".into());
        }
        if self.sbr {
            return Some("HE-AAC (spectral band replication)".into());
        }
        if self.object != OBJECT_LC {
            return Some(object_name(self.object));
        }
        if self.short_frames {
            return Some("frames of 960 samples".into());
        }
        match self.channel_config {
            1 | 2 => None,
            0 => Some("channels given by a program config element".into()),
            6 => Some("5.1 channels".into()),
            config => Some(format!("channel configuration {config}").into()),
        }
    }

    /// Channels of the configuration, where it names them.
    pub(crate) fn channels(&self) -> Option<u32> {
        match self.channel_config {
            config @ 1..=6 => Some(config),
            7 => Some(8),
            _ => None,
        }
    }
}

fn object_type(bits: &mut BitReader<'_>) -> Option<u32> {
    match bits.read(5)? {
        31 => Some(32 + bits.read(6)?),
        short => Some(short),
    }
}

fn sample_rate(bits: &mut BitReader<'_>) -> Option<u32> {
    match bits.read(4)? {
        15 => bits.read(24).filter(|rate| *rate != 0),
        index => SAMPLE_RATES.get(index as usize).copied(),
    }
}

fn is_general_audio(object: u32) -> bool {
    matches!(object, 1..=4 | 6 | 7 | 17 | 19..=23)
}

/// HE-AAC signalled behind an LC config, so that old decoders do not see it.
fn backward_compatible_extension(bits: &mut BitReader<'_>) -> Option<(bool, bool)> {
    if bits.left() < 16 || bits.read(11)? != SYNC_EXTENSION {
        return None;
    }
    if object_type(bits)? != OBJECT_SBR || !bits.flag()? {
        return None;
    }
    let _extension_rate = sample_rate(bits)?;
    let ps = bits.left() >= 12 && bits.read(11)? == 0x548 && bits.flag()?;
    Some((true, ps))
}

fn object_name(object: u32) -> Cow<'static, str> {
    match object {
        1 => "AAC Main".into(),
        3 => "AAC SSR".into(),
        4 => "AAC LTP".into(),
        6 => "AAC Scalable".into(),
        17 | 19 => "error resilient AAC".into(),
        23 => "AAC LD".into(),
        39 => "AAC ELD".into(),
        42 => "xHE-AAC (USAC)".into(),
        other => format!("audio object type {other}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lc_stereo() {
        let config = AudioSpecificConfig::parse(&[0x11, 0x90]).expect("valid");
        assert_eq!((config.object, config.sample_rate), (2, 48_000));
        assert_eq!(config.channels(), Some(2));
        assert_eq!(config.unsupported(), None);
    }

    #[test]
    fn he_aac_is_named_however_it_is_signalled() {
        // Explicit: object type 5, 24 kHz core, stereo, 48 kHz, LC.
        let explicit = AudioSpecificConfig::parse(&[0x2b, 0x11, 0x88, 0x00]).expect("valid");
        assert!(explicit.sbr);
        // Behind an LC config.
        let behind = AudioSpecificConfig::parse(&[0x13, 0x10, 0x56, 0xe5, 0x98]).expect("valid");
        assert!(behind.sbr && !behind.ps, "{behind:?}");
        assert!(behind.unsupported().expect("refused").contains("HE-AAC"));
    }

    #[test]
    fn short_or_reserved_configs_are_none() {
        for bytes in [&[][..], &[0x11], &[0x16, 0x90], &[0x17, 0x80]] {
            assert_eq!(AudioSpecificConfig::parse(bytes), None, "{bytes:?}");
        }
    }
}
