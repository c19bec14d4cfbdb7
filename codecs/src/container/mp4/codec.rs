//! Codec names and private data of the formats that MP4 and QuickTime carry.

use bytes::Bytes;
use portcullis_engine::{Error, Result, Subtype};

use super::data::{Data, FourCc};

/// The subtype of `fpcm` until its `pcmC` says which layout.
pub(super) const FLOAT_PCM: Subtype = Subtype::PCM_F32BE;

/// The codec of a video sample description.
pub(super) fn of_video(kind: FourCc) -> Subtype {
    match &kind {
        b"avc1" | b"avc2" | b"avc3" | b"avc4" | b"dva1" | b"dvav" => Subtype::H264,
        b"hev1" | b"hvc1" | b"dvh1" | b"dvhe" => Subtype::HEVC,
        b"vvc1" | b"vvi1" => Subtype::named("vvc"),
        b"vp08" | b"VP80" => Subtype::VP8,
        b"vp09" => Subtype::VP9,
        b"av01" => Subtype::AV1,
        b"mp4v" => Subtype::MPEG4_VIDEO,
        b"mp2v" | b"m2v1" | b"hdv1" | b"hdv2" | b"hdv3" | b"mx5p" | b"xdvb" | b"xdvc" => {
            Subtype::MPEG2_VIDEO
        }
        b"mp1v" | b"m1v1" => Subtype::named("mpeg1video"),
        b"jpeg" | b"mjpa" | b"dmb1" | b"AVDJ" => Subtype::MJPEG,
        b"mjpb" => Subtype::named("mjpegb"),
        b"png " => Subtype::PNG,
        b"gif " => Subtype::named("gif"),
        b"raw " | b"yuv2" | b"2vuy" | b"v308" => Subtype::RAW_VIDEO,
        b"s263" | b"h263" | b"H263" => Subtype::named("h263"),
        b"apcn" | b"apch" | b"apcs" | b"apco" | b"ap4h" | b"ap4x" => Subtype::named("prores"),
        b"AVdn" | b"AVdh" => Subtype::named("dnxhd"),
        b"SVQ1" => Subtype::named("svq1"),
        b"SVQ3" => Subtype::named("svq3"),
        b"rle " => Subtype::named("qtrle"),
        b"cvid" => Subtype::named("cinepak"),
        b"dvc " | b"dvcp" | b"dv5n" | b"dv5p" | b"dvhp" | b"dvhq" => Subtype::named("dvvideo"),
        b"vc-1" | b"ovc1" => Subtype::named("vc1"),
        b"mjp2" => Subtype::named("jpeg2000"),
        _ => by_four_cc(kind),
    }
}

/// The codec of a sound description; `flags` are those of QuickTime's `lpcm`.
pub(super) fn of_audio(kind: FourCc, bits: u32, flags: Option<u32>) -> Subtype {
    match &kind {
        b"mp4a" => Subtype::AAC,
        b"Opus" => Subtype::OPUS,
        b"fLaC" => Subtype::FLAC,
        b"alac" => Subtype::ALAC,
        b"ac-3" | b"sac3" => Subtype::AC3,
        b"ec-3" => Subtype::EAC3,
        b".mp3" | b"ms\0\x55" | b"MP3 " => Subtype::MP3,
        b"mp4v" => Subtype::AAC,
        b"dtsc" | b"dtsh" | b"dtsl" | b"dtse" => Subtype::named("dts"),
        b"samr" => Subtype::named("amr_nb"),
        b"sawb" => Subtype::named("amr_wb"),
        b"ima4" => Subtype::named("adpcm_ima_qt"),
        b"mlpa" => Subtype::named("truehd"),
        b"ac-4" => Subtype::named("ac4"),
        b"ulaw" => Subtype::PCM_MULAW,
        b"alaw" => Subtype::PCM_ALAW,
        b"sowt" => pcm(bits, false, true, true),
        b"twos" | b"NONE" | b"ipcm" => pcm(bits, false, false, true),
        b"raw " => pcm(bits, false, false, bits == 16),
        b"in24" => Subtype::PCM_S24BE,
        b"in32" => Subtype::PCM_S32BE,
        b"fl32" | b"fpcm" => FLOAT_PCM,
        b"fl64" => Subtype::named("pcm_f64be"),
        b"lpcm" => {
            let flags = flags.unwrap_or(0);
            pcm(bits, flags & 1 != 0, flags & 2 == 0, flags & 4 != 0)
        }
        _ => by_four_cc(kind),
    }
}

/// The codec of a text or data track.
pub(super) fn of_text(kind: FourCc) -> Subtype {
    match &kind {
        b"tx3g" | b"text" => Subtype::MOV_TEXT,
        b"c608" => Subtype::named("eia_608"),
        b"c708" => Subtype::named("eia_708"),
        b"wvtt" => Subtype::named("webvtt"),
        b"stpp" => Subtype::named("ttml"),
        b"mp4s" => Subtype::named("dvd_subtitle"),
        _ => by_four_cc(kind),
    }
}

fn by_four_cc(kind: FourCc) -> Subtype {
    Subtype::named(super::data::name(kind).trim_end())
}

/// PCM of this layout.
pub(super) fn pcm(bits: u32, float: bool, little: bool, signed: bool) -> Subtype {
    match (bits, float, little) {
        (32, true, true) => Subtype::PCM_F32,
        (32, true, false) => Subtype::PCM_F32BE,
        (64, true, true) => Subtype::PCM_F64,
        (64, true, false) => Subtype::named("pcm_f64be"),
        (0..=8, ..) if signed => Subtype::PCM_S8,
        (0..=8, ..) => Subtype::PCM_U8,
        (9..=16, _, true) => Subtype::PCM_S16,
        (9..=16, _, false) => Subtype::PCM_S16BE,
        (17..=24, _, true) => Subtype::PCM_S24,
        (17..=24, _, false) => Subtype::PCM_S24BE,
        (_, _, true) => Subtype::PCM_S32,
        (_, _, false) => Subtype::PCM_S32BE,
    }
}

/// Bytes of one value of one channel, if this is PCM.
pub(super) fn pcm_bytes(subtype: Subtype) -> Option<u32> {
    Some(match subtype.name() {
        "pcm_u8" | "pcm_s8" | "pcm_alaw" | "pcm_mulaw" => 1,
        "pcm_s16le" | "pcm_s16be" => 2,
        "pcm_s24le" | "pcm_s24be" => 3,
        "pcm_s32le" | "pcm_s32be" | "pcm_f32le" | "pcm_f32be" => 4,
        "pcm_f64le" | "pcm_f64be" => 8,
        _ => return None,
    })
}

/// The same PCM in the byte order that a QuickTime `enda` box names.
pub(super) fn with_byte_order(subtype: Subtype, little: bool) -> Subtype {
    match pcm_bytes(subtype) {
        Some(2..) => {
            let stem = subtype.name().trim_end_matches("le").trim_end_matches("be");
            Subtype::named(&format!("{stem}{}", if little { "le" } else { "be" }))
        }
        _ => subtype,
    }
}

/// Refuses an `avcC` whose parameter sets do not fit.
pub(super) fn check_avcc(mut data: Data) -> Result<()> {
    let at = data.position();
    if data.u8()? != 1 {
        return Err(Error::malformed(at, "an avcC of an unknown version"));
    }
    data.skip(4)?;
    let sets = data.u8()? & 31;
    parameter_sets(&mut data, sets.into(), "sequence")?;
    let sets = data.u8()?;
    parameter_sets(&mut data, sets.into(), "picture")
}

/// Refuses an `hvcC` whose parameter sets do not fit.
pub(super) fn check_hvcc(mut data: Data) -> Result<()> {
    data.skip(22)?;
    for _ in 0..data.u8()? {
        data.skip(1)?;
        let sets = data.u16()?;
        parameter_sets(&mut data, sets.into(), "HEVC")?;
    }
    Ok(())
}

fn parameter_sets(data: &mut Data, count: u32, which: &'static str) -> Result<()> {
    for set in 0..count {
        let at = data.position();
        let len = usize::from(data.u16()?);
        if len > data.len() {
            return Err(Error::malformed(
                at,
                format!(
                    "{which} parameter set {set} claims {len} bytes, {} are left",
                    data.len()
                ),
            ));
        }
        data.skip(len)?;
    }
    Ok(())
}

/// The `OpusHead` packet of a `dOps` box: the same fields in the other byte order.
pub(super) fn opus_head(mut data: Data) -> Result<Bytes> {
    let at = data.position();
    if data.u8()? != 0 {
        return Err(Error::malformed(at, "a dOps box of an unknown version"));
    }
    let channels = data.u8()?;
    let (pre_skip, rate, gain) = (data.u16()?, data.u32()?, data.i16()?);
    let mut head = b"OpusHead\x01".to_vec();
    head.push(channels);
    head.extend_from_slice(&pre_skip.to_le_bytes());
    head.extend_from_slice(&rate.to_le_bytes());
    head.extend_from_slice(&gain.to_le_bytes());
    let at = data.position();
    let family = data.u8()?;
    head.push(family);
    if channels == 0 || (family == 0 && channels > 2) {
        return Err(Error::malformed(at, format!("{channels} Opus channels")));
    }
    if family != 0 {
        let map = data.take(2 + usize::from(channels))?;
        head.extend_from_slice(map.bytes());
    }
    Ok(head.into())
}

/// STREAMINFO of a `dfLa` box.
pub(super) fn flac_info(mut data: Data) -> Result<Bytes> {
    data.version_and_flags()?;
    let at = data.position();
    let header = data.u32()?;
    if header >> 24 & 0x7f != 0 || header & 0x00ff_ffff != 34 {
        return Err(Error::malformed(
            at,
            "a dfLa box that does not begin with STREAMINFO",
        ));
    }
    Ok(data.take(34)?.to_owned_bytes())
}

/// The profile of an `avcC` as ffprobe names it.
pub(super) fn h264_profile(avcc: &[u8]) -> Option<&'static str> {
    let constraints = *avcc.get(2)?;
    let intra = constraints & 0x10 != 0;
    Some(match avcc.get(1)? {
        44 => "CAVLC 4:4:4",
        66 if constraints & 0x40 != 0 => "Constrained Baseline",
        66 => "Baseline",
        77 => "Main",
        88 => "Extended",
        100 => "High",
        110 if intra => "High 10 Intra",
        110 => "High 10",
        122 if intra => "High 4:2:2 Intra",
        122 => "High 4:2:2",
        144 => "High 4:4:4",
        244 if intra => "High 4:4:4 Intra",
        244 => "High 4:4:4 Predictive",
        118 => "Multiview High",
        128 => "Stereo High",
        _ => return None,
    })
}

/// The profile of an `hvcC` as ffprobe names it.
pub(super) fn hevc_profile(hvcc: &[u8]) -> Option<&'static str> {
    Some(match hvcc.get(1)? & 31 {
        1 => "Main",
        2 => "Main 10",
        3 => "Main Still Picture",
        4 => "Rext",
        9 => "SCC",
        _ => return None,
    })
}

/// An AV1 profile as ffprobe names it.
pub(super) fn av1_profile(profile: Option<u8>) -> Option<&'static str> {
    Some(match profile? {
        0 => "Main",
        1 => "High",
        2 => "Professional",
        _ => return None,
    })
}

/// Whether each payload of the codec decodes to the same number of frames, so that a shorter last sample means padding.
pub(super) fn has_fixed_packets(subtype: Subtype) -> bool {
    [
        Subtype::AAC,
        Subtype::MP3,
        Subtype::MP2,
        Subtype::OPUS,
        Subtype::AC3,
        Subtype::EAC3,
    ]
    .contains(&subtype)
}
