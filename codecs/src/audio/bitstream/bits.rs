//! A reader of big-endian bit fields over a slice.

/// Reads bits, most significant first; `None` past the end.
#[derive(Clone, Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `count` bits, at most 32.
    pub(crate) fn read(&mut self, count: u32) -> Option<u32> {
        debug_assert!(count <= 32);
        let end = self.at.checked_add(count as usize)?;
        if end > self.bytes.len().checked_mul(8)? {
            return None;
        }
        let mut value = 0_u64;
        while self.at < end {
            let left_in_byte = 8 - self.at % 8;
            let take = left_in_byte.min(end - self.at);
            let byte = u64::from(self.bytes[self.at / 8]);
            let part = (byte >> (left_in_byte - take)) & ((1 << take) - 1);
            value = (value << take) | part;
            self.at += take;
        }
        Some(value as u32)
    }

    /// The next bit.
    pub(crate) fn flag(&mut self) -> Option<bool> {
        self.read(1).map(|bit| bit != 0)
    }

    /// Bits that are left.
    pub(crate) fn left(&self) -> usize {
        (self.bytes.len() * 8).saturating_sub(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cross_bytes_and_end_with_none() {
        let mut bits = BitReader::new(&[0b1010_0101, 0xff, 0x00, 0x81, 0x7e]);
        assert_eq!(bits.read(3), Some(0b101));
        assert_eq!(bits.read(7), Some(0b0010111));
        assert_eq!(bits.read(0), Some(0));
        assert_eq!(bits.left(), 30);
        assert_eq!(bits.read(30), Some(0x3f00_817e));
        assert_eq!(bits.flag(), None);
        let mut whole = BitReader::new(&[1, 2, 3, 4]);
        assert_eq!(whole.read(32), Some(0x0102_0304));
    }
}
