//! Open bitstream units: how many frames a temporal unit holds, and how large the sequence says they are.

use super::super::bits::Bits;

const SEQUENCE_HEADER: u8 = 1;
const FRAME_HEADER: u8 = 3;
const FRAME: u8 = 6;

/// What a sequence header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) max_width: u32,
    pub(super) max_height: u32,
}

impl Sequence {
    /// Pixels of the largest picture.
    pub(super) fn pixels(self) -> u64 {
        u64::from(self.max_width) * u64::from(self.max_height)
    }
}

/// Frames that begin in a temporal unit.
pub(super) fn frame_count(unit: &[u8]) -> usize {
    Obus(unit)
        .filter(|(kind, _)| matches!(*kind, FRAME | FRAME_HEADER))
        .count()
}

/// The first sequence header of a temporal unit.
pub(super) fn sequence(unit: &[u8]) -> Option<Sequence> {
    let (_, payload) = Obus(unit).find(|(kind, _)| *kind == SEQUENCE_HEADER)?;
    parse_sequence(payload)
}

/// The units of a buffer, as type and payload.
struct Obus<'a>(&'a [u8]);

impl<'a> Iterator for Obus<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.0.split_first()?;
        let extension = usize::from(head >> 2 & 1);
        let rest = rest.get(extension..)?;
        let (payload, after) = if head & 2 != 0 {
            let (size, rest) = leb128(rest)?;
            rest.split_at_checked(size)?
        } else {
            (rest, &[][..])
        };
        self.0 = after;
        Some((head >> 3 & 15, payload))
    }
}

fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, &bytes[index + 1..]));
        }
    }
    None
}

fn parse_sequence(payload: &[u8]) -> Option<Sequence> {
    let mut bits = Bits::new(payload);
    bits.skip(3)?; // seq_profile
    bits.bit()?; // still_picture
    if bits.bit()? {
        bits.skip(5)?; // reduced_still_picture_header: only seq_level_idx
    } else {
        let mut delay_bits = None;
        if bits.bit()? {
            bits.skip(64)?; // num_units_in_display_tick, time_scale
            if bits.bit()? {
                let mut zeros = 0;
                while !bits.bit()? {
                    zeros += 1;
                    if zeros > 31 {
                        return None;
                    }
                }
                bits.skip(zeros)?;
            }
            if bits.bit()? {
                delay_bits = Some(bits.bits(5)? + 1);
                bits.skip(32 + 5 + 5)?;
            }
        }
        let initial_display_delay = bits.bit()?;
        let points = bits.bits(5)? + 1;
        for _ in 0..points {
            bits.skip(12)?;
            if bits.bits(5)? > 7 {
                bits.bit()?; // seq_tier
            }
            if let Some(width) = delay_bits
                && bits.bit()?
            {
                bits.skip(2 * width + 1)?;
            }
            if initial_display_delay && bits.bit()? {
                bits.skip(4)?;
            }
        }
    }
    let width_bits = bits.bits(4)? + 1;
    let height_bits = bits.bits(4)? + 1;
    Some(Sequence {
        max_width: bits.bits(width_bits)? + 1,
        max_height: bits.bits(height_bits)? + 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_counted_and_a_size_beyond_the_end_ends_them() {
        // A delimiter, a frame header of one byte, a frame that claims 9 bytes and has 1.
        let unit = [0x12, 0, 0x1a, 1, 0xff, 0x32, 9, 0];
        assert_eq!(frame_count(&unit), 1);
        assert_eq!(frame_count(&[0x32, 1, 0]), 1);
        assert_eq!(frame_count(&[]), 0);
        assert_eq!(leb128(&[0xff; 9]), None);
    }

    #[test]
    fn a_sequence_header_says_its_size() {
        // Profile 0, no timing, one operating point of level 0, 9 + 8 size bits: 320x180.
        let mut bits = String::from("000" /* profile */);
        bits += "0"; // still
        bits += "0"; // reduced
        bits += "0"; // timing
        bits += "0"; // initial display delay
        bits += "00000"; // one point
        bits += "000000000000";
        bits += "00000"; // level
        bits += "1000"; // 9 bits of width
        bits += "0111"; // 8 bits of height
        bits += &format!("{:09b}{:08b}", 319, 179);
        while bits.len() % 8 != 0 {
            bits.push('0');
        }
        let payload: Vec<u8> = (0..bits.len() / 8)
            .map(|at| u8::from_str_radix(&bits[at * 8..at * 8 + 8], 2).expect("bits"))
            .collect();
        let mut unit = vec![0x0a, payload.len() as u8];
        unit.extend(payload);
        let found = sequence(&unit).expect("a sequence header");
        assert_eq!((found.max_width, found.max_height), (320, 180));
    }
}
