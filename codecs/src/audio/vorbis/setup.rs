//! A look at a Vorbis setup header before the decoder reads it.
//!
//! A few bytes can describe a codebook of sixteen megabytes, and a header holds 256 of them: what they unpack to is added
//! up first.

/// Values that all codebooks of a stream may unpack to. Encoders stay below a million.
const MAX_VALUES: u64 = 8 << 20;

/// Why the setup header among these Xiph-laced headers should not be unpacked.
pub(super) fn refuse(headers: &[u8]) -> Option<&'static str> {
    let Some(setup) = setup_header(headers) else {
        return Some("its three headers cannot be told apart");
    };
    let Some(rest) = setup.strip_prefix(b"\x05vorbis") else {
        return Some("its third header is no setup header");
    };
    let mut bits = Bits { bytes: rest, at: 0 };
    match values(&mut bits) {
        None => Some("its setup header is damaged"),
        Some(values) if values > MAX_VALUES => Some("its codebooks are too large"),
        Some(_) => None,
    }
}

/// The last of the laced headers.
fn setup_header(headers: &[u8]) -> Option<&[u8]> {
    let (&2, mut rest) = headers.split_first()? else {
        return None;
    };
    let mut before = 0_usize;
    for _ in 0..2 {
        loop {
            let (byte, tail) = rest.split_first()?;
            rest = tail;
            before += usize::from(*byte);
            if *byte != 255 {
                break;
            }
        }
    }
    rest.get(before..)
}

/// How many values the codebooks have, unpacked; `None` where one of them breaks the rules.
fn values(bits: &mut Bits<'_>) -> Option<u64> {
    let books = bits.read(8)? + 1;
    let mut sum = 0;
    for _ in 0..books {
        if bits.read(24)? != 0x56_4342 {
            return None;
        }
        let dimensions = bits.read(16)?;
        let entries = bits.read(24)?;
        skip_lengths(bits, entries)?;
        let lookup = bits.read(4)?;
        if lookup == 0 {
            continue;
        }
        bits.skip(64)?;
        let width = u64::from(bits.read(4)? + 1);
        bits.skip(1)?;
        let all = u64::from(entries) * u64::from(dimensions);
        let stored = match lookup {
            1 => u64::from(root(entries, dimensions)?),
            2 => all,
            _ => return None,
        };
        bits.skip(stored.checked_mul(width)?)?;
        sum += all;
    }
    Some(sum)
}

/// Skips the lengths of a codebook's codes.
fn skip_lengths(bits: &mut Bits<'_>, entries: u32) -> Option<()> {
    if bits.read(1)? == 0 {
        let sparse = bits.read(1)? != 0;
        if !sparse {
            return bits.skip(u64::from(entries) * 5);
        }
        for _ in 0..entries {
            if bits.read(1)? != 0 {
                bits.skip(5)?;
            }
        }
        return Some(());
    }
    let (mut at, mut length) = (0, bits.read(5)? + 1);
    while at < entries {
        // A code longer than this is no code; Symphonia asserts it.
        if length > 32 {
            return None;
        }
        let left = entries - at;
        at += bits.read(32 - left.leading_zeros())?;
        length += 1;
    }
    (at == entries).then_some(())
}

/// The largest number whose `dimensions`th power is not above `entries`.
fn root(entries: u32, dimensions: u32) -> Option<u32> {
    if dimensions == 0 {
        return None;
    }
    let fits = |value: u32| {
        (0..dimensions)
            .try_fold(1_u64, |power, _| {
                power
                    .checked_mul(u64::from(value))
                    .filter(|power| *power <= u64::from(entries))
            })
            .is_some()
    };
    let mut value = (f64::from(entries)).powf(1.0 / f64::from(dimensions)) as u32;
    while value > 0 && !fits(value) {
        value -= 1;
    }
    // Powers of one never end a search by themselves.
    while value < entries && fits(value + 1) {
        value += 1;
    }
    Some(value)
}

/// Bits of Vorbis: least significant first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: u64,
}

impl Bits<'_> {
    fn read(&mut self, count: u32) -> Option<u32> {
        let end = self.at + u64::from(count);
        if end > self.bytes.len() as u64 * 8 {
            return None;
        }
        let mut value = 0;
        for bit in 0..u64::from(count) {
            let at = self.at + bit;
            let byte = self.bytes[(at / 8) as usize];
            value |= u32::from(byte >> (at % 8) & 1) << bit;
        }
        self.at = end;
        Some(value)
    }

    fn skip(&mut self, count: u64) -> Option<()> {
        let end = self.at.checked_add(count)?;
        if end > self.bytes.len() as u64 * 8 {
            return None;
        }
        self.at = end;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Laced headers whose setup header has these fields, (value, bits), in its codebooks.
    fn headers(fields: &[(u64, u32)]) -> Vec<u8> {
        let mut bytes = vec![2, 1, 1, 0, 0];
        bytes.extend(b"\x05vorbis");
        let bits: Vec<u8> = fields
            .iter()
            .flat_map(|(value, count)| (0..*count).map(move |bit| (value >> bit & 1) as u8))
            .collect();
        for byte in bits.chunks(8) {
            bytes.push(byte.iter().rev().fold(0, |value, bit| value << 1 | bit));
        }
        bytes
    }

    /// A codebook of 32 dimensions with 128 Ki ordered entries and one stored value.
    fn huge() -> Vec<(u64, u32)> {
        vec![
            (0x56_4342, 24),
            (32, 16),
            (1 << 17, 24),
            (1, 1),
            (16, 5),
            (1 << 17, 18),
            (1, 4),
            (0, 32),
            (0, 32),
            (0, 4),
            (0, 1),
            (0, 1),
        ]
    }

    #[test]
    fn many_large_codebooks_are_refused() {
        let mut few = vec![(1, 8)];
        few.extend(huge());
        few.extend(huge());
        assert_eq!(refuse(&headers(&few)), None);
        let mut many = vec![(2, 8)];
        for _ in 0..3 {
            many.extend(huge());
        }
        assert_eq!(refuse(&headers(&many)), Some("its codebooks are too large"));
    }

    #[test]
    fn codes_longer_than_32_bits_are_refused() {
        let book = [
            (0, 8),
            (0x56_4342, 24),
            (1, 16),
            (4, 24),
            (1, 1),
            (31, 5),
            (0, 3),
            (0, 3),
            (0, 3),
            (4, 3),
        ];
        assert_eq!(refuse(&headers(&book)), Some("its setup header is damaged"));
    }

    #[test]
    fn roots_are_exact() {
        for (entries, dimensions, value) in
            [(6561, 8, 3), (6560, 8, 2), (1, 5, 1), (0, 3, 0), (7, 1, 7)]
        {
            assert_eq!(
                root(entries, dimensions),
                Some(value),
                "{entries} {dimensions}"
            );
        }
    }
}
