//! MPEG-4 descriptors: what an `esds` box says of a stream's codec.

use bytes::Bytes;
use portcullis_engine::{Error, Result, Subtype};

use super::data::Data;

/// An elementary stream's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ElementaryStream {
    /// The object type indication.
    pub(super) object_type: u8,
    /// Average bits per second, or the greatest where no average is given.
    pub(super) bit_rate: u32,
    /// Initialisation data of the codec.
    pub(super) specific: Bytes,
}

impl ElementaryStream {
    /// Reads the content of an `esds` box.
    pub(super) fn parse(mut data: Data) -> Result<Self> {
        data.version_and_flags()?;
        let mut stream = Self::default();
        while let Some((tag, mut descriptor)) = next_descriptor(&mut data)? {
            if tag != 3 {
                continue;
            }
            descriptor.skip(2)?;
            let flags = descriptor.u8()?;
            if flags & 0x80 != 0 {
                descriptor.skip(2)?;
            }
            if flags & 0x40 != 0 {
                let len = descriptor.u8()?;
                descriptor.skip(usize::from(len))?;
            }
            if flags & 0x20 != 0 {
                descriptor.skip(2)?;
            }
            while let Some((tag, config)) = next_descriptor(&mut descriptor)? {
                if tag == 4 {
                    stream.read_config(config)?;
                }
            }
        }
        Ok(stream)
    }

    fn read_config(&mut self, mut config: Data) -> Result<()> {
        self.object_type = config.u8()?;
        config.skip(4)?;
        let (greatest, average) = (config.u32()?, config.u32()?);
        self.bit_rate = if average > 0 { average } else { greatest };
        while let Some((tag, specific)) = next_descriptor(&mut config)? {
            if tag == 5 {
                self.specific = specific.to_owned_bytes();
            }
        }
        Ok(())
    }

    /// The codec that the object type names.
    pub(super) fn subtype(&self) -> Option<Subtype> {
        Some(match self.object_type {
            0x20 => Subtype::MPEG4_VIDEO,
            0x21 => Subtype::H264,
            0x23 => Subtype::HEVC,
            0x40 | 0x66..=0x68 => Subtype::AAC,
            0x60..=0x65 => Subtype::MPEG2_VIDEO,
            0x69 | 0x6b => Subtype::MP3,
            0x6a => Subtype::named("mpeg1video"),
            0x6c => Subtype::MJPEG,
            0x6d => Subtype::PNG,
            0x6e => Subtype::named("jpeg2000"),
            0xa3 => Subtype::named("vc1"),
            0xa4 => Subtype::named("dirac"),
            0xa5 => Subtype::AC3,
            0xa6 => Subtype::EAC3,
            0xa9..=0xac => Subtype::named("dts"),
            0xad => Subtype::OPUS,
            0xb1 => Subtype::VP9,
            0xdd => Subtype::VORBIS,
            0xe1 => Subtype::named("qcelp"),
            _ => return None,
        })
    }
}

/// The next descriptor: its tag and content. A descriptor that claims more than there is is malformed.
fn next_descriptor(data: &mut Data) -> Result<Option<(u8, Data)>> {
    if data.is_empty() {
        return Ok(None);
    }
    let at = data.position();
    let tag = data.u8()?;
    let mut len = 0_usize;
    for _ in 0..4 {
        let byte = data.u8()?;
        len = len << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    if len > data.len() {
        return Err(Error::malformed(
            at,
            format!(
                "descriptor {tag} claims {len} bytes, {} are left",
                data.len()
            ),
        ));
    }
    Ok(Some((tag, data.take(len)?)))
}

/// What an AudioSpecificConfig says that the sample entry may say wrongly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AudioConfig {
    /// Audio object type.
    pub(super) object_type: u32,
    /// Frames per second that a decoder with all extensions puts out.
    pub(super) sample_rate: Option<u32>,
    /// Channels, where the configuration number says.
    pub(super) channels: Option<u32>,
}

impl AudioConfig {
    /// Reads an AudioSpecificConfig; `None` where it is too short.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut bits = Bits { bytes, at: 0 };
        let mut object_type = bits.object_type()?;
        let mut sample_rate = bits.rate()?;
        let channels = bits.take(4)?;
        if matches!(object_type, 5 | 29) {
            let extension = object_type;
            sample_rate = bits.rate()?;
            bits.object_type()?;
            object_type = extension;
        } else if let Some(rate) = bits.backward_compatible_extension(object_type) {
            (object_type, sample_rate) = (5, rate);
        }
        Some(Self {
            object_type,
            sample_rate,
            channels: match channels {
                1..=6 => Some(channels),
                7 | 12 | 14 => Some(8),
                11 => Some(7),
                _ => None,
            },
        })
    }

    /// The profile as ffprobe names it.
    pub(super) fn profile(&self) -> Option<&'static str> {
        Some(match self.object_type {
            1 => "Main",
            2 => "LC",
            3 => "SSR",
            4 => "LTP",
            5 => "HE-AAC",
            23 => "LD",
            29 => "HE-AACv2",
            39 => "ELD",
            42 => "xHE-AAC",
            _ => return None,
        })
    }
}

const RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    fn object_type(&mut self) -> Option<u32> {
        match self.take(5)? {
            31 => Some(32 + self.take(6)?),
            short => Some(short),
        }
    }

    /// The rate with spectral band replication that is announced behind a plain configuration, where it is.
    fn backward_compatible_extension(&mut self, object_type: u32) -> Option<Option<u32>> {
        // Only what has the short GASpecificConfig; the others never occur with it.
        let core_flags = self.take(3)?;
        if object_type != 2 || core_flags & 3 != 0 {
            return None;
        }
        if self.take(11)? != 0x2b7 || self.object_type()? != 5 || self.take(1)? == 0 {
            return None;
        }
        self.rate()
    }

    /// The outer option is `None` at the end of the bytes, the inner one for a reserved index.
    fn rate(&mut self) -> Option<Option<u32>> {
        match self.take(4)? {
            15 => Some(Some(self.take(24)?)),
            index => Some(RATES.get(index as usize).copied()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_audio_configurations() {
        let plain = AudioConfig::parse(&[0x11, 0x90]).unwrap();
        assert_eq!((plain.sample_rate, plain.channels), (Some(48_000), Some(2)));
        assert_eq!(plain.profile(), Some("LC"));
        let doubled = AudioConfig::parse(&[0x2b, 0x11, 0x88, 0]).unwrap();
        assert_eq!(doubled.object_type, 5);
        let announced = AudioConfig::parse(&[0x13, 0x10, 0x56, 0xe5, 0x98]).unwrap();
        assert_eq!(announced.sample_rate, Some(48_000));
        let denied = AudioConfig::parse(&[0x11, 0x90, 0x56, 0xe5, 0]).unwrap();
        assert_eq!((denied.sample_rate, denied.object_type), (Some(48_000), 2));
        assert_eq!(AudioConfig::parse(&[0x11]), None);
    }

    #[test]
    fn a_descriptor_must_fit() {
        let error = ElementaryStream::parse(Data::new(&b"\0\0\0\0\x03\xff\xff\xff\x7f\0\0"[..], 0))
            .unwrap_err();
        assert!(error.to_string().contains("byte 4"), "{error}");
    }
}
