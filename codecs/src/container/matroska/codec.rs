//! Codec ids: what a track's payload is, in the project's words.

use bytes::Bytes;
use portcullis_engine::{MajorType, MediaType, Result, Subtype, TimeBase, keys};

use super::frame_length::FrameLength;
use super::track::Entry;
use crate::container::ogg::flac::StreamInfo;
use crate::container::ogg::opus::{self, OpusHead};
use crate::container::ogg::vorbis::BlockCounter;

/// The type of a track, and what tells the length of its frames.
///
/// Private data that a codec's rules refuse is passed on as it is: the decoder refuses it, and the other tracks play.
pub(crate) fn describe(entry: &Entry) -> Result<(MediaType, FrameLength)> {
    let major = match entry.kind {
        1 => MajorType::Video,
        2 => MajorType::Audio,
        0x11 => MajorType::Subtitle,
        _ => MajorType::Data,
    };
    let (subtype, private) = subtype(entry);
    let mut media_type = MediaType::new(major, subtype);
    if !private.is_empty() {
        media_type.attributes.set(&keys::PRIVATE_DATA, private);
    }
    let mut length = FrameLength::Unknown;
    if major == MajorType::Audio {
        length = sound(entry, &mut media_type);
    }
    if let Some(profile) = profile(&media_type) {
        media_type
            .attributes
            .set(&keys::PROFILE, profile.to_owned());
    }
    Ok((media_type, length))
}

/// The payload's format, and the private data in the form that the format's decoders take.
fn subtype(entry: &Entry) -> (Subtype, Bytes) {
    let private = entry.private.clone();
    let id = entry.codec_id.as_str();
    let subtype = match id {
        "V_MPEG4/ISO/AVC" => Subtype::H264,
        "V_MPEGH/ISO/HEVC" => Subtype::HEVC,
        "V_VP8" => Subtype::VP8,
        "V_VP9" => Subtype::VP9,
        "V_AV1" => Subtype::AV1,
        "V_MPEG1" => Subtype::named("mpeg1video"),
        "V_MPEG2" => Subtype::MPEG2_VIDEO,
        "V_MPEG4/ISO/SP" | "V_MPEG4/ISO/ASP" | "V_MPEG4/ISO/AP" => Subtype::MPEG4_VIDEO,
        "V_MJPEG" => Subtype::MJPEG,
        "V_THEORA" => Subtype::named("theora"),
        "V_PRORES" => Subtype::named("prores"),
        "V_FFV1" => Subtype::named("ffv1"),
        "V_MPEGI/ISO/VVC" => Subtype::named("vvc"),
        "V_MS/VFW/FOURCC" => return bitmap_info(&private),
        "A_MPEG/L3" => Subtype::MP3,
        "A_MPEG/L2" => Subtype::MP2,
        "A_MPEG/L1" => Subtype::named("mp1"),
        "A_VORBIS" => Subtype::VORBIS,
        "A_OPUS" | "A_OPUS/EXPERIMENTAL" => Subtype::OPUS,
        "A_FLAC" => {
            let info = StreamInfo::parse_marked(&private, entry.private_at);
            return (Subtype::FLAC, info.map_or(private, |info| info.bytes));
        }
        "A_ALAC" => Subtype::ALAC,
        "A_AC3" => Subtype::AC3,
        "A_EAC3" => Subtype::EAC3,
        "A_DTS" | "A_DTS/EXPRESS" | "A_DTS/LOSSLESS" => Subtype::named("dts"),
        "A_TRUEHD" => Subtype::named("truehd"),
        "A_MLP" => Subtype::named("mlp"),
        "A_TTA1" => Subtype::named("tta"),
        "A_WAVPACK4" => Subtype::named("wavpack"),
        "A_MS/ACM" => return wave_format(&private),
        "A_PCM/INT/LIT" => match entry.bits {
            8 => Subtype::PCM_U8,
            16 => Subtype::PCM_S16,
            24 => Subtype::PCM_S24,
            32 => Subtype::PCM_S32,
            _ => Subtype::named("pcm"),
        },
        "A_PCM/INT/BIG" => match entry.bits {
            8 => Subtype::PCM_U8,
            16 => Subtype::PCM_S16BE,
            24 => Subtype::PCM_S24BE,
            32 => Subtype::PCM_S32BE,
            _ => Subtype::named("pcm"),
        },
        "A_PCM/FLOAT/IEEE" => match entry.bits {
            32 => Subtype::PCM_F32,
            64 => Subtype::PCM_F64,
            _ => Subtype::named("pcm"),
        },
        "S_TEXT/UTF8" | "S_TEXT/ASCII" => Subtype::SUBRIP,
        "S_TEXT/SSA" | "S_TEXT/ASS" | "S_SSA" | "S_ASS" => Subtype::named("ass"),
        "S_TEXT/WEBVTT" | "D_WEBVTT/SUBTITLES" | "D_WEBVTT/CAPTIONS" => Subtype::named("webvtt"),
        "S_VOBSUB" => Subtype::named("dvd_subtitle"),
        "S_DVBSUB" => Subtype::named("dvb_subtitle"),
        "S_HDMV/PGS" => Subtype::named("hdmv_pgs_subtitle"),
        "S_HDMV/TEXTST" => Subtype::named("hdmv_text_subtitle"),
        _ if id == "A_AAC" || id.starts_with("A_AAC/") => {
            let private = if private.is_empty() {
                old_aac_config(entry)
            } else {
                private
            };
            return (Subtype::AAC, private);
        }
        other => Subtype::named(&other.to_ascii_lowercase()),
    };
    (subtype, private)
}

/// Sets rate, channels and bits; answers what tells the length of a frame.
fn sound(entry: &Entry, media_type: &mut MediaType) -> FrameLength {
    // `as` saturates, and the file's numbers are finite.
    let whole = |rate: f64| rate.round().max(0.0) as u32;
    let coded = whole(entry.rate);
    let mut rate = match whole(entry.output_rate) {
        0 => coded,
        output => output,
    };
    let mut channels = entry.channels;
    let base = TimeBase::per_second(coded);
    let private = media_type.private_data().unwrap_or_default();
    let always = |frames| base.map(|base| FrameLength::Always(frames, base));
    let length = match media_type.subtype {
        Subtype::OPUS => {
            rate = opus::RATE;
            let head = OpusHead::parse(&private, entry.private_at).ok();
            if let Some(head) = &head {
                channels = u32::from(head.channels);
            }
            TimeBase::per_second(rate)
                .map(|base| FrameLength::Opus(head.map_or(0, |head| head.pre_skip), base))
        }
        Subtype::VORBIS => base
            .zip(BlockCounter::from_private_data(&private, entry.private_at).ok())
            .map(|(base, counter)| FrameLength::Vorbis(Box::new(counter), base)),
        Subtype::FLAC => base.map(FrameLength::Flac),
        Subtype::MP3 | Subtype::MP2 => base.map(FrameLength::Mpeg),
        Subtype::AAC => {
            let config = AudioSpecificConfig::parse(&private);
            let coded = config.as_ref().map_or(coded, |config| config.rate);
            let frames = config.map_or(1024, |config| config.frames);
            TimeBase::per_second(coded).map(|base| FrameLength::Always(frames, base))
        }
        Subtype::AC3 => always(1536),
        pcm if pcm.name().starts_with("pcm_") => {
            let bits = if entry.bits == 0 { 16 } else { entry.bits };
            let bytes = (bits / 8).checked_mul(channels);
            base.zip(bytes)
                .map(|(base, bytes)| FrameLength::Pcm(bytes, base))
        }
        _ => None,
    };
    let attributes = &mut media_type.attributes;
    if rate != 0 {
        attributes.set(&keys::SAMPLE_RATE, rate);
    }
    if channels != 0 {
        attributes.set(&keys::CHANNELS, channels);
    }
    let lossy = matches!(
        media_type.subtype,
        Subtype::AAC | Subtype::MP3 | Subtype::MP2 | Subtype::VORBIS | Subtype::OPUS | Subtype::AC3
    );
    if entry.bits != 0 && !lossy {
        media_type.attributes.set(&keys::BITS, entry.bits);
    }
    length.unwrap_or(FrameLength::Unknown)
}

/// Video for Windows: a `BITMAPINFOHEADER` with the four-character code, and behind it the codec's own data.
fn bitmap_info(private: &Bytes) -> (Subtype, Bytes) {
    let (Some(code), Some(rest)) = (private.get(16..20), private.get(40..)) else {
        return (Subtype::named("v_ms/vfw/fourcc"), private.clone());
    };
    let code = String::from_utf8_lossy(code).to_ascii_uppercase();
    let subtype = match code.as_str() {
        "H264" | "AVC1" | "X264" => Subtype::H264,
        "HEVC" | "HVC1" | "HEV1" | "H265" => Subtype::HEVC,
        "VP80" => Subtype::VP8,
        "VP90" => Subtype::VP9,
        "AV01" => Subtype::AV1,
        "XVID" | "DIVX" | "DX50" | "FMP4" | "MP4V" => Subtype::MPEG4_VIDEO,
        "MJPG" => Subtype::MJPEG,
        "MPG1" => Subtype::named("mpeg1video"),
        "MPG2" => Subtype::MPEG2_VIDEO,
        other => Subtype::named(&other.to_ascii_lowercase()),
    };
    (subtype, private.slice_ref(rest))
}

/// Audio of Windows: a `WAVEFORMATEX` with the format's tag, and behind it the codec's own data.
fn wave_format(private: &Bytes) -> (Subtype, Bytes) {
    let word = |at: usize| match private.get(at..at + 2) {
        Some(&[low, high]) => u16::from_le_bytes([low, high]),
        _ => 0,
    };
    let subtype = match (word(0), word(14)) {
        (1, 8) => Subtype::PCM_U8,
        (1, 16) => Subtype::PCM_S16,
        (1, 24) => Subtype::PCM_S24,
        (1, 32) => Subtype::PCM_S32,
        (3, 32) => Subtype::PCM_F32,
        (3, 64) => Subtype::PCM_F64,
        (6, _) => Subtype::PCM_ALAW,
        (7, _) => Subtype::PCM_MULAW,
        (0x50, _) => Subtype::MP2,
        (0x55, _) => Subtype::MP3,
        (0xff, _) => Subtype::AAC,
        (0x2000, _) => Subtype::AC3,
        (tag, _) => Subtype::named(&format!("a_ms/acm {tag:#06x}")),
    };
    (
        subtype,
        private
            .get(18..)
            .map_or_else(Bytes::new, |rest| private.slice_ref(rest)),
    )
}

/// Rates by index, as MPEG-4 audio numbers them.
const AAC_RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];

/// The configuration that the old AAC codec ids stand for, which had no private data.
fn old_aac_config(entry: &Entry) -> Bytes {
    let object = match entry.codec_id.rsplit('/').next() {
        Some("MAIN") => 1,
        Some("SSR") => 3,
        Some("LTP") => 4,
        _ => 2_u16,
    };
    let Some(index) = AAC_RATES
        .iter()
        .position(|&rate| (f64::from(rate) - entry.rate).abs() < 1.0)
    else {
        return Bytes::new();
    };
    let channels = match entry.channels {
        8 => 7,
        channels @ 1..=6 => channels as u16,
        _ => return Bytes::new(),
    };
    let config = object << 11 | (index as u16) << 7 | channels << 3;
    Bytes::copy_from_slice(&config.to_be_bytes())
}

/// What of an `AudioSpecificConfig` a container needs.
struct AudioSpecificConfig {
    object: u8,
    /// Rate of the coded frames, before any band replication.
    rate: u32,
    frames: u32,
}

impl AudioSpecificConfig {
    fn parse(private: &[u8]) -> Option<Self> {
        let mut at = 0;
        let mut bits = |count: usize| {
            let value = (at..at + count).try_fold(0_u32, |value, bit| {
                Some(value << 1 | u32::from(private.get(bit / 8)? >> (7 - bit % 8) & 1))
            });
            at += count;
            value
        };
        let object_type = |first: u32, bits: &mut dyn FnMut(usize) -> Option<u32>| match first {
            31 => bits(6).map(|extended| 32 + extended),
            other => Some(other),
        };
        let rate = |index: u32, bits: &mut dyn FnMut(usize) -> Option<u32>| match index {
            15 => bits(24),
            index => AAC_RATES.get(index as usize).copied(),
        };
        let first = bits(5)?;
        let object = object_type(first, &mut bits)?;
        let index = bits(4)?;
        let core = rate(index, &mut bits)?;
        bits(4)?;
        if object == 5 || object == 29 {
            // Band replication: the rate of its output, then the object that is coded.
            let index = bits(4)?;
            rate(index, &mut bits)?;
            let first = bits(5)?;
            object_type(first, &mut bits)?;
        }
        let short = bits(1).unwrap_or(0) == 1;
        Some(Self {
            object: object as u8,
            rate: core,
            frames: if short { 960 } else { 1024 },
        })
    }
}

/// The profile, where the private data has it in plain sight.
fn profile(media_type: &MediaType) -> Option<&'static str> {
    let private = media_type.private_data()?;
    Some(match media_type.subtype {
        Subtype::H264 => match (*private.get(1)?, *private.get(2)?) {
            (66, constraints) if constraints & 0x40 != 0 => "Constrained Baseline",
            (66, _) => "Baseline",
            (77, _) => "Main",
            (88, _) => "Extended",
            (100, _) => "High",
            (110, _) => "High 10",
            (122, _) => "High 4:2:2",
            (244, _) => "High 4:4:4 Predictive",
            _ => return None,
        },
        Subtype::AV1 => match *private.get(1)? >> 5 {
            0 => "Main",
            1 => "High",
            2 => "Professional",
            _ => return None,
        },
        Subtype::AAC => match AudioSpecificConfig::parse(&private)?.object {
            1 => "Main",
            2 => "LC",
            3 => "SSR",
            4 => "LTP",
            5 => "HE-AAC",
            29 => "HE-AACv2",
            _ => return None,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_aac_names_have_a_configuration() {
        let entry = |codec_id: &str| Entry {
            kind: 2,
            codec_id: codec_id.to_owned(),
            rate: 44_100.0,
            channels: 2,
            ..Entry::default()
        };
        assert_eq!(old_aac_config(&entry("A_AAC/MPEG4/LC"))[..], [0x12, 0x10]);
        let described = describe(&entry("A_AAC/MPEG2/MAIN")).map(|(media_type, _)| media_type);
        assert_eq!(
            described.ok().and_then(|t| t.get(&keys::PROFILE)),
            Some("Main".to_owned())
        );
    }

    #[test]
    fn unknown_codecs_are_named_after_their_id() {
        let entry = Entry {
            kind: 1,
            codec_id: "V_SNOW".to_owned(),
            ..Entry::default()
        };
        let described = describe(&entry).map(|(media_type, _)| media_type.subtype);
        assert_eq!(described, Ok(Subtype::named("v_snow")));
    }
}
