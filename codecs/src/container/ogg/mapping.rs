//! What the packets of a logical stream mean: headers, frames of a packet, what the granule position counts.

use bytes::Bytes;
use portcullis_engine::{Error, MajorType, MediaType, Result, Subtype, keys};

use super::flac::{self, StreamInfo};
use super::opus::{self, OpusHead};
use super::vorbis::{self, BlockCounter, Identification};

/// A logical stream's codec, learned from its headers.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// The type of the stream; whole once [`Self::is_ready`].
    pub(crate) media_type: MediaType,
    /// Frames a second, the unit of granule positions; 1 for a codec that is not known.
    pub(crate) rate: u32,
    /// Frames to drop at the start, which granule positions count.
    pub(crate) pre_skip: u32,
    /// Frames before a position that a decoder needs to be right there.
    pub(crate) preroll: u32,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Vorbis {
        identification: Identification,
        headers: Vec<Bytes>,
        counter: Option<BlockCounter>,
    },
    Opus {
        tags: bool,
    },
    Flac {
        /// How many headers follow; `None` where only the last one says so.
        left: Option<u16>,
        ready: bool,
    },
    Unknown,
}

impl Mapping {
    /// The mapping that the first packet of a stream names; `at` is the packet's byte position.
    pub(crate) fn begin(packet: &Bytes, at: u64) -> Result<Self> {
        if packet.starts_with(b"\x01vorbis") {
            Self::vorbis(packet, at)
        } else if packet.starts_with(b"OpusHead") {
            Self::opus(packet, at)
        } else if packet.starts_with(b"\x7fFLAC") {
            Self::flac(packet, at)
        } else {
            Ok(Self::unknown(packet))
        }
    }

    /// Whether all headers are there.
    pub(crate) fn is_ready(&self) -> bool {
        match &self.kind {
            Kind::Vorbis { counter, .. } => counter.is_some(),
            Kind::Opus { tags } => *tags,
            Kind::Flac { ready, .. } => *ready,
            Kind::Unknown => true,
        }
    }

    /// Whether packets of this codec can be delivered.
    pub(crate) fn is_known(&self) -> bool {
        !matches!(self.kind, Kind::Unknown)
    }

    /// Takes the next packet before the stream is ready; `false` where it is no header but already sound.
    ///
    /// Behind a `gap` a header may be lost; comments, which can be long, are not needed for playing.
    pub(crate) fn header(&mut self, packet: &Bytes, at: u64, gap: bool) -> Result<bool> {
        match &mut self.kind {
            Kind::Vorbis {
                identification,
                headers,
                counter,
            } => {
                if gap && headers.len() == 1 && packet.starts_with(b"\x05vorbis") {
                    headers.push(Bytes::from_static(vorbis::NO_COMMENTS));
                }
                let kind = [3, 5][headers.len().min(2) - 1];
                if packet.first() != Some(&kind) || packet.get(1..7) != Some(b"vorbis") {
                    return Err(Error::malformed(at, "a Vorbis header is missing"));
                }
                headers.push(packet.clone());
                if let [first, second, setup] = &headers[..] {
                    *counter = Some(BlockCounter::new(identification, setup, at)?);
                    let private = vorbis::lace([first, second, setup]);
                    self.media_type
                        .attributes
                        .set(&keys::PRIVATE_DATA, Bytes::from(private));
                }
            }
            Kind::Opus { tags } => {
                if gap && !packet.starts_with(b"OpusTags") {
                    *tags = true;
                    return Ok(false);
                }
                if !packet.starts_with(b"OpusTags") {
                    return Err(Error::malformed(at, "the Opus comment header is missing"));
                }
                *tags = true;
            }
            Kind::Flac { left, ready } => {
                let Some(&kind) = packet.first().filter(|&&kind| kind != 0xff) else {
                    *ready = true;
                    return Ok(false);
                };
                *left = left.map(|left| left.saturating_sub(1));
                *ready = kind & 0x80 != 0 || *left == Some(0);
            }
            Kind::Unknown => return Ok(false),
        }
        Ok(true)
    }

    /// Frames that a packet of sound stands for; `None` where it breaks the codec's rules.
    pub(crate) fn frames(&mut self, packet: &[u8]) -> Option<u32> {
        match &mut self.kind {
            Kind::Vorbis { counter, .. } => counter.as_mut()?.frames(packet),
            Kind::Opus { .. } => opus::packet_frames(packet),
            Kind::Flac { .. } => flac::block_frames(packet),
            Kind::Unknown => Some(0),
        }
    }

    /// The next packet does not follow on the one before.
    pub(crate) fn reset(&mut self) {
        if let Kind::Vorbis {
            counter: Some(counter),
            ..
        } = &mut self.kind
        {
            counter.reset();
        }
    }

    fn new(media_type: MediaType, rate: u32, kind: Kind) -> Self {
        Self {
            media_type,
            rate,
            pre_skip: 0,
            preroll: 0,
            kind,
        }
    }

    fn vorbis(packet: &Bytes, at: u64) -> Result<Self> {
        let identification = Identification::parse(packet, at)?;
        let mut media_type = MediaType::audio(
            Subtype::VORBIS,
            identification.rate,
            identification.channels,
        );
        if let Some(rate) = identification.nominal_bit_rate {
            media_type.attributes.set(&keys::BIT_RATE, rate);
        }
        let kind = Kind::Vorbis {
            identification,
            headers: vec![packet.clone()],
            counter: None,
        };
        Ok(Self {
            // A block overlaps with the one before, which a decoder must have seen.
            preroll: 2 * identification.blocks[1],
            ..Self::new(media_type, identification.rate, kind)
        })
    }

    fn opus(packet: &Bytes, at: u64) -> Result<Self> {
        let head = OpusHead::parse(packet, at)?;
        let media_type = MediaType::audio(Subtype::OPUS, opus::RATE, u32::from(head.channels))
            .with(&keys::PRIVATE_DATA, packet.clone());
        Ok(Self {
            pre_skip: u32::from(head.pre_skip),
            // RFC 7845 section 4.6: 80 ms.
            preroll: 3840,
            ..Self::new(media_type, opus::RATE, Kind::Opus { tags: false })
        })
    }

    fn flac(packet: &Bytes, at: u64) -> Result<Self> {
        let &[_, _, _, _, _, 1, _, high, low, ref marked @ ..] = &packet[..] else {
            return Err(Error::malformed(
                at,
                "FLAC mapping of another version than 1",
            ));
        };
        let info = StreamInfo::parse_marked(marked, at + 9)?;
        let media_type = MediaType::audio(Subtype::FLAC, info.rate, info.channels)
            .with(&keys::BITS, info.bits)
            .with(&keys::PRIVATE_DATA, info.bytes.clone());
        let kind = Kind::Flac {
            left: Some(u16::from_be_bytes([high, low])).filter(|&left| left != 0),
            ready: false,
        };
        Ok(Self::new(media_type, info.rate, kind))
    }

    fn unknown(packet: &Bytes) -> Self {
        const SIGNATURES: [(&[u8], MajorType, &str); 9] = [
            (b"\x80theora", MajorType::Video, "theora"),
            (b"BBCD\0", MajorType::Video, "dirac"),
            (b"OVP80", MajorType::Video, "vp8"),
            (b"\x01video", MajorType::Video, "ogm_video"),
            (b"Speex   ", MajorType::Audio, "speex"),
            (b"CELT    ", MajorType::Audio, "celt"),
            (b"\x80kate\0", MajorType::Subtitle, "kate"),
            (b"\x01text", MajorType::Subtitle, "text"),
            (b"fishead\0", MajorType::Data, "skeleton"),
        ];
        let (major, subtype) = SIGNATURES
            .iter()
            .find(|(signature, ..)| packet.starts_with(signature))
            .map_or_else(
                || {
                    let shown = packet.iter().take(8).filter(|b| b.is_ascii_alphanumeric());
                    let name: String = shown.map(|&b| char::from(b)).collect();
                    (MajorType::Data, Subtype::named(&format!("ogg {name}")))
                },
                |&(_, major, name)| (major, Subtype::named(name)),
            );
        Self::new(MediaType::new(major, subtype), 1, Kind::Unknown)
    }
}
