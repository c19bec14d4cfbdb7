//! NAL units: out of length-prefixed samples and Annex B, and the heads of those that matter.

use portcullis_engine::{Error, Result};

use super::super::bits::Bits;
use super::sps::Sps;

/// How NAL units lie in a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Each behind a length of so many bytes (1 to 4).
    Length(usize),
    /// Each behind a start code.
    StartCode,
}

/// The decoder configuration record of MP4 and Matroska.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Avcc<'a> {
    pub(super) framing: Framing,
    pub(super) sps: Vec<&'a [u8]>,
    pub(super) pps: Vec<&'a [u8]>,
}

impl<'a> Avcc<'a> {
    pub(super) fn parse(record: &'a [u8]) -> Result<Self> {
        let ends = |at: usize| Error::truncated(at as u64, "avcC decoder configuration");
        let head = record.get(..6).ok_or_else(|| ends(record.len()))?;
        let length = usize::from(head[4] & 3) + 1;
        if length == 3 {
            return Err(Error::malformed(4, "avcC: NAL lengths of 3 bytes"));
        }
        let mut at = 5;
        let mut sets = |mask: u8| -> Result<Vec<&'a [u8]>> {
            let count = record.get(at).ok_or_else(|| ends(at))? & mask;
            at += 1;
            let mut found = Vec::with_capacity(usize::from(count));
            for _ in 0..count {
                let size = record.get(at..at + 2).ok_or_else(|| ends(at))?;
                let size = usize::from(u16::from_be_bytes([size[0], size[1]]));
                at += 2;
                found.push(record.get(at..at + size).ok_or_else(|| ends(at))?);
                at += size;
            }
            Ok(found)
        };
        let sps = sets(0x1f)?;
        let pps = sets(0xff)?;
        Ok(Self {
            framing: Framing::Length(length),
            sps,
            pps,
        })
    }
}

/// Calls `each` for every NAL unit of a sample; none of them contains a start code, whatever the framing.
///
/// Answers `false` where a length reaches past the sample's end; `each` was called for what lies before that.
pub(super) fn for_each_nal<'a>(
    sample: &'a [u8],
    framing: Framing,
    mut each: impl FnMut(&'a [u8]) -> Result<()>,
) -> Result<bool> {
    let Framing::Length(prefix) = framing else {
        let Some(start) = find_start_code(sample, 0) else {
            return Ok(sample.iter().all(|byte| *byte == 0));
        };
        split_start_codes(&sample[start..], &mut each)?;
        return Ok(true);
    };
    let mut rest = sample;
    while let Some((length, after)) = rest.split_at_checked(prefix) {
        let length = length
            .iter()
            .fold(0usize, |value, byte| value << 8 | usize::from(*byte));
        let Some((nal, after)) = after.split_at_checked(length) else {
            return Ok(false);
        };
        split_start_codes(nal, &mut each)?;
        rest = after;
    }
    Ok(rest.is_empty())
}

/// Calls `each` for what lies between start codes.
pub(super) fn split_start_codes<'a>(
    bytes: &'a [u8],
    each: &mut impl FnMut(&'a [u8]) -> Result<()>,
) -> Result<()> {
    let mut from = 0;
    loop {
        let next = find_start_code(bytes, from);
        let nal = &bytes[from..next.unwrap_or(bytes.len())];
        // Zeros at the end belong to the next start code or are padding.
        let end = nal
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        if end > 0 {
            each(&nal[..end])?;
        }
        match next {
            Some(at) => from = at + 3,
            None => return Ok(()),
        }
    }
}

/// The position of the next `00 00 01`.
fn find_start_code(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(third) = bytes.get(at + 2) {
        match third {
            0 => at += 1,
            1 if bytes[at] == 0 && bytes[at + 1] == 0 => return Some(at),
            _ => at += 3,
        }
    }
    None
}

/// The payload of a NAL unit without its header byte and emulation prevention, at most `max` bytes of it.
pub(super) fn payload(nal: &[u8], max: usize) -> Vec<u8> {
    let mut rbsp = Vec::with_capacity(nal.len().min(max));
    let mut zeros = 0;
    for byte in nal.iter().skip(1) {
        if rbsp.len() >= max {
            break;
        }
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        rbsp.push(*byte);
    }
    rbsp
}

/// What of a picture parameter set is needed to read the heads of slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pps {
    pub(super) id: u32,
    pub(super) sps: u32,
    pub(super) bottom_field_order: bool,
    pub(super) redundant_pictures: bool,
}

impl Pps {
    /// The set's id alone, for one that cannot be parsed.
    pub(super) fn id(rbsp: &[u8]) -> Option<u32> {
        Bits::new(rbsp).ue().filter(|id| *id <= 255)
    }

    pub(super) fn parse(rbsp: &[u8]) -> Result<Self> {
        let mut bits = Bits::new(rbsp);
        let mut read = || {
            let id = bits.ue()?;
            let sps = bits.ue()?;
            bits.bit()?; // entropy_coding_mode_flag
            let bottom_field_order = bits.bit()?;
            let groups = bits.ue()?;
            if groups > 0 {
                return Some(Err(Error::unsupported_codec(
                    "h264",
                    "flexible macroblock ordering (slice groups)",
                )));
            }
            let references = (bits.ue()?, bits.ue()?);
            if id > 255 || sps > 31 || references.0 > 31 || references.1 > 31 {
                return Some(Err(Error::malformed(
                    0,
                    "picture parameter set is out of range",
                )));
            }
            bits.skip(3)?; // weighted prediction
            for _ in 0..3 {
                bits.se()?;
            }
            bits.skip(2)?; // deblocking control, constrained intra prediction
            let redundant_pictures = bits.bit()?;
            Some(Ok(Self {
                id,
                sps,
                bottom_field_order,
                redundant_pictures,
            }))
        };
        read()
            .ok_or_else(|| Error::malformed(0, "picture parameter set ends early"))
            .flatten()
    }
}

/// The head of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SliceHead {
    pub(super) first_mb: u32,
    pub(super) intra: bool,
    pub(super) frame_num: u32,
    /// A copy that a decoder discards when the primary picture is there.
    pub(super) redundant: bool,
}

impl SliceHead {
    /// The picture parameter set that a slice refers to.
    pub(super) fn pps_id(rbsp: &[u8]) -> Option<u32> {
        let mut bits = Bits::new(rbsp);
        bits.ue()?;
        bits.ue()?;
        bits.ue()
    }

    pub(super) fn parse(rbsp: &[u8], idr: bool, pps: &Pps, sps: &Sps) -> Option<Self> {
        let mut bits = Bits::new(rbsp);
        let first_mb = bits.ue()?;
        let kind = bits.ue()?;
        bits.ue()?;
        let frame_num = bits.bits(sps.log2_max_frame_num)?;
        if !sps.frame_mbs_only && bits.bit()? {
            bits.bit()?; // bottom_field_flag: the library refuses field pictures by name
        }
        if idr {
            bits.ue()?;
        }
        if sps.poc_type == 0 {
            bits.bits(sps.log2_max_poc_lsb)?;
            if pps.bottom_field_order {
                bits.se()?;
            }
        } else if sps.poc_type == 1 && !sps.delta_poc_always_zero {
            bits.se()?;
            if pps.bottom_field_order {
                bits.se()?;
            }
        }
        let redundant = pps.redundant_pictures && bits.ue()? > 0;
        Some(Self {
            first_mb,
            intra: matches!(kind, 2 | 7),
            frame_num,
            redundant,
        })
    }
}

/// Whether a supplemental information NAL unit holds a recovery point.
pub(super) fn has_recovery_point(rbsp: &[u8]) -> bool {
    let mut rest = rbsp;
    // A message is at least two bytes; the trailing bits are one.
    while rest.len() > 2 {
        let Some((kind, after)) = message_number(rest) else {
            return false;
        };
        let Some((size, after)) = message_number(after) else {
            return false;
        };
        if kind == 6 {
            return true;
        }
        let Some(next) = after.get(size..) else {
            return false;
        };
        rest = next;
    }
    false
}

fn message_number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let full = bytes.iter().take_while(|byte| **byte == 255).count();
    let last = *bytes.get(full)?;
    Some((full * 255 + usize::from(last), &bytes[full + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nals(sample: &[u8], framing: Framing) -> (Vec<Vec<u8>>, bool) {
        let mut found = Vec::new();
        let whole = for_each_nal(sample, framing, |nal| {
            found.push(nal.to_vec());
            Ok(())
        })
        .expect("no error");
        (found, whole)
    }

    #[test]
    fn start_codes_of_three_and_four_bytes_split() {
        let sample = [0, 0, 0, 1, 9, 16, 0, 0, 1, 5, 1, 2, 0, 0, 0, 1, 6, 7, 0];
        let (found, whole) = nals(&sample, Framing::StartCode);
        assert_eq!(found, [vec![9, 16], vec![5, 1, 2], vec![6, 7]]);
        assert!(whole);
    }

    #[test]
    fn a_length_that_lies_ends_the_sample() {
        let sample = [0, 0, 0, 2, 5, 1, 0, 0, 0, 9, 1, 1];
        let (found, whole) = nals(&sample, Framing::Length(4));
        assert_eq!(found, [vec![5, 1]]);
        assert!(!whole);
    }

    #[test]
    fn a_start_code_inside_of_a_unit_splits_it() {
        let sample = [7, 5, 1, 0, 0, 1, 7, 2];
        let (found, _) = nals(&sample, Framing::Length(1));
        assert_eq!(found, [vec![5, 1], vec![7, 2]]);
    }

    #[test]
    fn emulation_prevention_is_removed() {
        assert_eq!(payload(&[7, 0, 0, 3, 1, 0, 0, 3], 64), [0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_record_without_its_end_is_truncated() {
        let record = [1, 77, 64, 13, 0xff, 0xe1, 0, 2, 0x67, 1, 1, 0, 1, 0x68];
        let avcc = Avcc::parse(&record).expect("whole");
        assert_eq!(avcc.sps, [&[0x67, 1][..]]);
        assert_eq!(avcc.pps, [&[0x68][..]]);
        for len in 0..record.len() {
            assert!(Avcc::parse(&record[..len]).is_err(), "{len} bytes");
        }
    }
}
