//! Sequence parameter sets: what the decoder must know before it lets a stream allocate pictures.
//!
//! The codec library parses them too, but says neither how far pictures are reordered nor, before it allocates, how
//! large they are.

use portcullis_engine::{Error, Result};

use super::super::bits::Bits;
use super::super::picture::Extra;

/// Profiles whose parameter set carries the chroma format, bit depths and scaling lists.
const HIGH_PROFILES: &[u32] = &[100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

/// The fields of a sequence parameter set that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sps {
    pub(super) id: u32,
    /// Coded size in macroblocks.
    pub(super) mb_width: u32,
    pub(super) mb_height: u32,
    /// The display window inside of the coded picture, in luma pixels.
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) frame_mbs_only: bool,
    pub(super) log2_max_frame_num: u32,
    pub(super) poc_type: u32,
    pub(super) log2_max_poc_lsb: u32,
    pub(super) delta_poc_always_zero: bool,
    pub(super) gaps_allowed: bool,
    /// How many pictures can precede one in decoding order and follow it in output order.
    pub(super) reorder_depth: usize,
    /// Whether the set says so; else it is the most that the level allows.
    pub(super) reorder_stated: bool,
    /// 0 for grey, 1 for 4:2:0, 2 for 4:2:2, 3 for 4:4:4.
    pub(super) chroma: u32,
    /// Bits of a luma value.
    pub(super) bits: u32,
    pub(super) level: u32,
    pub(super) extra: Extra,
}

impl Sps {
    /// Parses the payload behind the NAL header, with emulation prevention removed.
    ///
    /// # Errors
    /// `UnsupportedCodec` that names the feature, or `Malformed` with the position inside of the parameter set.
    pub(super) fn parse(rbsp: &[u8]) -> Result<Self> {
        match Self::read(rbsp)? {
            (sps, None) => Ok(sps),
            (_, Some(what)) => Err(Error::unsupported_codec("h264", what)),
        }
    }

    /// As [`Self::parse`], of a stream that need not be decoded: with the feature that the decoder does not have.
    pub(super) fn read(rbsp: &[u8]) -> Result<(Self, Option<&'static str>)> {
        let mut bits = Bits::new(rbsp);
        let mut unsupported = None;
        let sps = parse(&mut bits, &mut unsupported)
            .unwrap_or_else(|| Err(Error::malformed(0, "sequence parameter set ends early")));
        match (sps, unsupported) {
            (Ok(sps), unsupported) => Ok((sps, unsupported)),
            (Err(_), Some(what)) => Err(Error::unsupported_codec("h264", what)),
            (Err(error), None) => Err(error),
        }
    }

    /// The set's id alone, for one that cannot be parsed.
    pub(super) fn id(rbsp: &[u8]) -> Option<u32> {
        let mut bits = Bits::new(rbsp);
        bits.skip(24)?;
        bits.ue().filter(|id| *id <= 31)
    }

    /// Macroblocks of one picture.
    pub(super) fn macroblocks(&self) -> u64 {
        u64::from(self.mb_width) * u64::from(self.mb_height)
    }

    /// Coded size in pixels: what the decoder allocates.
    pub(super) fn coded_size(&self) -> (u32, u32) {
        (
            self.mb_width.saturating_mul(16),
            self.mb_height.saturating_mul(16),
        )
    }
}

fn malformed<T>(what: &'static str) -> Option<Result<T>> {
    Some(Err(Error::malformed(0, what)))
}

/// Goes on behind a feature that the decoder does not have and notes the first.
fn parse(bits: &mut Bits<'_>, unsupported: &mut Option<&'static str>) -> Option<Result<Sps>> {
    let profile = bits.bits(8)?;
    let constraints = bits.bits(8)?;
    let level = bits.bits(8)?;
    let id = bits.ue()?;
    if id > 31 {
        return malformed("sequence parameter set id is above 31");
    }
    let (mut chroma, mut bit_depth) = (1, 8);
    if HIGH_PROFILES.contains(&profile) {
        chroma = bits.ue()?;
        match chroma {
            0 => *unsupported = Some("monochrome"),
            1 => {}
            2 => *unsupported = Some("4:2:2 chroma"),
            3 => {
                *unsupported = Some("4:4:4 chroma");
                bits.bit()?; // separate_colour_plane_flag
            }
            _ => return malformed("chroma_format_idc is above 3"),
        }
        let (luma, chroma) = (bits.ue()?, bits.ue()?);
        if luma > 6 || chroma > 6 {
            return malformed("bit depth is above 14");
        }
        if luma > 0 || chroma > 0 {
            unsupported.get_or_insert("more than 8 bits per sample");
        }
        bit_depth = luma + 8;
        bits.bit()?; // qpprime_y_zero_transform_bypass_flag
        if bits.bit()? {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if bits.bit()? {
                    skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    let log2_max_frame_num = bits.ue()?.checked_add(4)?;
    if log2_max_frame_num > 16 {
        return malformed("log2_max_frame_num is above 16");
    }
    let poc_type = bits.ue()?;
    let (mut log2_max_poc_lsb, mut delta_poc_always_zero) = (0, false);
    match poc_type {
        0 => {
            log2_max_poc_lsb = bits.ue()?.checked_add(4)?;
            if log2_max_poc_lsb > 16 {
                return malformed("log2_max_pic_order_cnt_lsb is above 16");
            }
        }
        1 => {
            delta_poc_always_zero = bits.bit()?;
            bits.se()?;
            bits.se()?;
            let cycle = bits.ue()?;
            if cycle > 255 {
                return malformed("picture order count cycle is above 255");
            }
            for _ in 0..cycle {
                bits.se()?;
            }
        }
        2 => {}
        _ => return malformed("pic_order_cnt_type is above 2"),
    }
    let max_references = bits.ue()?;
    if max_references > 16 {
        // The library keeps as many pictures as this says.
        return malformed("max_num_ref_frames is above 16");
    }
    let gaps_allowed = bits.bit()?;
    let mb_width = bits.ue()?.checked_add(1)?;
    let map_height = bits.ue()?.checked_add(1)?;
    let frame_mbs_only = bits.bit()?;
    let mb_height = map_height.checked_mul(if frame_mbs_only { 1 } else { 2 })?;
    if mb_width > 4096 || mb_height > 4096 {
        return malformed("picture is larger than 65536 pixels a side");
    }
    if !frame_mbs_only && bits.bit()? {
        unsupported.get_or_insert("interlaced coding (MBAFF)");
    }
    bits.bit()?; // direct_8x8_inference_flag
    let (mut left, mut right, mut top, mut bottom) = (0, 0, 0, 0);
    if bits.bit()? {
        let horizontal = if matches!(chroma, 1 | 2) { 2 } else { 1 };
        let vertical = if chroma == 1 { 2 } else { 1 } * if frame_mbs_only { 1 } else { 2 };
        left = bits.ue()?.checked_mul(horizontal)?;
        right = bits.ue()?.checked_mul(horizontal)?;
        top = bits.ue()?.checked_mul(vertical)?;
        bottom = bits.ue()?.checked_mul(vertical)?;
    }
    let width = (mb_width * 16).checked_sub(left.checked_add(right)?);
    let height = (mb_height * 16).checked_sub(top.checked_add(bottom)?);
    let (Some(width @ 1..), Some(height @ 1..)) = (width, height) else {
        return malformed("display window lies outside of the picture");
    };
    // What follows is advice; a parameter set that ends inside of it is still good.
    let usage = if bits.bit() == Some(true) {
        read_usage(bits)
    } else {
        Usage::default()
    };
    let intra_only = matches!(profile, 44 | 86 | 100 | 110 | 122 | 244) && constraints & 0x10 != 0;
    let never = profile == 66 || poc_type == 2 || intra_only;
    let reorder_stated = usage.reorder_frames.is_some() || never;
    let reorder_depth = match usage.reorder_frames {
        Some(frames) => frames.min(16) as usize,
        None if never => 0,
        None => max_dpb_frames(level, constraints, mb_width * mb_height),
    };
    Some(Ok(Sps {
        id,
        mb_width,
        mb_height,
        left,
        top,
        width,
        height,
        frame_mbs_only,
        log2_max_frame_num,
        poc_type,
        log2_max_poc_lsb,
        delta_poc_always_zero,
        gaps_allowed,
        reorder_depth,
        reorder_stated,
        chroma,
        bits: bit_depth,
        level,
        extra: Extra {
            pixel_aspect: usage.pixel_aspect,
            full_range: usage.full_range,
        },
    }))
}

fn skip_scaling_list(bits: &mut Bits<'_>, size: usize) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.se()? + 256).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

/// Video usability information, as far as it is used here.
#[derive(Debug, Default)]
struct Usage {
    pixel_aspect: Option<(u32, u32)>,
    full_range: Option<bool>,
    reorder_frames: Option<u32>,
}

fn read_usage(bits: &mut Bits<'_>) -> Usage {
    let mut usage = Usage::default();
    // What was read before the end counts.
    let _ = read_usage_fields(bits, &mut usage);
    usage
}

fn read_usage_fields(bits: &mut Bits<'_>, usage: &mut Usage) -> Option<()> {
    const ASPECTS: [(u32, u32); 17] = [
        (0, 0),
        (1, 1),
        (12, 11),
        (10, 11),
        (16, 11),
        (40, 33),
        (24, 11),
        (20, 11),
        (32, 11),
        (80, 33),
        (18, 11),
        (15, 11),
        (64, 33),
        (160, 99),
        (4, 3),
        (3, 2),
        (2, 1),
    ];
    if bits.bit()? {
        let aspect = match bits.bits(8)? {
            255 => (bits.bits(16)?, bits.bits(16)?),
            index => ASPECTS.get(index as usize).copied().unwrap_or_default(),
        };
        usage.pixel_aspect = (aspect.0 > 0 && aspect.1 > 0).then_some(aspect);
    }
    if bits.bit()? {
        bits.bit()?; // overscan_appropriate_flag
    }
    if bits.bit()? {
        bits.bits(3)?; // video_format
        usage.full_range = Some(bits.bit()?);
        if bits.bit()? {
            bits.skip(24)?;
        }
    }
    if bits.bit()? {
        bits.ue()?;
        bits.ue()?;
    }
    if bits.bit()? {
        bits.skip(32 + 32 + 1)?;
    }
    let nal = bits.bit()?;
    if nal {
        skip_hrd(bits)?;
    }
    let vcl = bits.bit()?;
    if vcl {
        skip_hrd(bits)?;
    }
    if nal || vcl {
        bits.bit()?; // low_delay_hrd_flag
    }
    bits.bit()?; // pic_struct_present_flag
    if bits.bit()? {
        bits.bit()?; // motion_vectors_over_pic_boundaries_flag
        for _ in 0..4 {
            bits.ue()?;
        }
        usage.reorder_frames = Some(bits.ue()?);
    }
    Some(())
}

fn skip_hrd(bits: &mut Bits<'_>) -> Option<()> {
    let count = bits.ue()?;
    if count > 31 {
        return None;
    }
    bits.skip(8)?;
    for _ in 0..=count {
        bits.ue()?;
        bits.ue()?;
        bits.bit()?;
    }
    bits.skip(20)
}

/// The size of the decoded picture buffer by level: the most that a stream may reorder when it does not say less.
fn max_dpb_frames(level: u32, constraints: u32, macroblocks: u32) -> usize {
    let level_1b = level == 11 && constraints & 0x10 != 0;
    let buffer = match level {
        _ if level_1b => 396,
        0..=10 => 396,
        11 => 900,
        12 | 13 | 20 => 2_376,
        21 => 4_752,
        22 | 30 => 8_100,
        31 => 18_000,
        32 => 20_480,
        40 | 41 => 32_768,
        42 => 34_816,
        50 => 110_400,
        51 | 52 => 184_320,
        _ => 696_320,
    };
    (buffer / macroblocks.max(1)).min(16) as usize
}

#[cfg(test)]
mod tests {
    use portcullis_engine::ErrorKind;

    use super::*;

    /// The parameter set of a 320x180 Main-profile stream with two reordered pictures, as x264 writes it.
    const MAIN: &[u8] = &[
        0x4d, 0x40, 0x0d, 0xec, 0xa0, 0xa0, 0xcf, 0xc4, 0xe0, 0x22, 0x00, 0x00, 0x03, 0x00, 0x02,
        0x00, 0x00, 0x03, 0x00, 0x78, 0x1e, 0x28, 0x53, 0x2c,
    ];

    #[test]
    fn every_prefix_and_bit_flip_is_answered() {
        for len in 0..MAIN.len() {
            let _ = Sps::parse(&MAIN[..len]);
        }
        for bit in 0..MAIN.len() * 8 {
            let mut bytes = MAIN.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = Sps::parse(&bytes);
        }
    }

    #[test]
    fn features_that_no_decoder_has_are_named() {
        // High 10, level 4.0, id 0, 4:2:0, 10 bit.
        let high10 = [110, 0, 40, 0b1010_0110, 0b1110_0000];
        let error = Sps::parse(&high10).expect_err("10 bit");
        assert_eq!(
            *error.kind(),
            ErrorKind::UnsupportedCodec {
                codec: "h264".into(),
                what: "more than 8 bits per sample".into()
            }
        );
    }
}
