//! Finding spectral band replication that no header announces.
//!
//! HE-AAC may be signalled only by extension data in its packets. Decoding their core alone gives half the bandwidth at
//! half the rate without a word, so it is looked for: the extension is the last element of a packet, and its length must
//! lead exactly to the packet's end mark. By chance that happens once in fifty packets, so several in a row are wanted.

/// Packets in a row that must carry the extension.
const ENOUGH: u32 = 4;
/// Packets that are looked at.
const LOOKED_AT: u32 = 64;
/// Cores with a higher rate have no use for it.
const MAX_CORE_RATE: u32 = 24_000;

/// Watches the first packets of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SbrWatch {
    seen: u32,
    run: u32,
}

impl SbrWatch {
    /// Whether the packets up to this one say that the stream is HE-AAC.
    pub(super) fn is_found(&mut self, packet: &[u8], core_rate: u32) -> bool {
        if self.run >= ENOUGH {
            return true;
        }
        if core_rate > MAX_CORE_RATE || self.seen >= LOOKED_AT {
            return false;
        }
        self.seen += 1;
        self.run = if ends_with_extension(packet) {
            self.run + 1
        } else {
            0
        };
        self.run >= ENOUGH
    }
}

/// Whether the last element is a fill element with SBR data.
fn ends_with_extension(packet: &[u8]) -> bool {
    let Some(last) = packet.iter().rposition(|byte| *byte != 0) else {
        return false;
    };
    // The end mark is three ones; only alignment follows it.
    let end = (last + 1) * 8 - packet[last].trailing_zeros() as usize;
    let Some(mark) = end.checked_sub(3) else {
        return false;
    };
    if packet.len() * 8 - end >= 8 || bits(packet, mark, 3) != 7 {
        return false;
    }
    (1..=269).any(|count: usize| {
        let (head, sign) = if count < 15 {
            (7, 0b110 << 4 | count)
        } else {
            (15, (0b110 << 4 | 15) << 8 | (count - 14))
        };
        let Some(start) = mark.checked_sub(count * 8 + head) else {
            return false;
        };
        bits(packet, start, head) == sign && matches!(bits(packet, start + head, 4), 0xd | 0xe)
    })
}

/// `count` bits from bit `at`; the caller has checked that they are there.
fn bits(bytes: &[u8], at: usize, count: usize) -> usize {
    (at..at + count).fold(0, |value, bit| {
        value << 1 | usize::from(bytes[bit / 8] >> (7 - bit % 8) & 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some bits, a fill element with this much extension data, and the end mark.
    fn packet(before: &str, count: usize, kind: &str) -> Vec<u8> {
        let mut text = format!("{before}110");
        if count < 15 {
            text += &format!("{count:04b}");
        } else {
            text += &format!("1111{:08b}", count - 14);
        }
        text += kind;
        text += &"0110"[..4].repeat(count * 2 - 1);
        text += "111";
        text += &"0".repeat((8 - text.len() % 8) % 8);
        text.as_bytes()
            .chunks(8)
            .map(|byte| byte.iter().fold(0, |value, bit| value << 1 | (bit & 1)))
            .collect()
    }

    #[test]
    fn an_extension_is_found_wherever_it_begins() {
        for before in ["", "0", "0101", "01011010010"] {
            for count in [1, 2, 14, 15, 60, 269] {
                assert!(ends_with_extension(&packet(before, count, "1101")));
                assert!(!ends_with_extension(&packet(before, count, "0001")));
            }
        }
        for bytes in [&[][..], &[0], &[0xe0], &[0xff; 3], &[0, 0x38, 0]] {
            assert!(!ends_with_extension(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn one_packet_is_not_enough() {
        let (with, without) = (packet("010", 20, "1101"), packet("010", 20, "0000"));
        let mut watch = SbrWatch::default();
        for _ in 0..3 {
            assert!(!watch.is_found(&with, 24_000));
        }
        assert!(!watch.is_found(&without, 24_000));
        for _ in 0..3 {
            assert!(!watch.is_found(&with, 24_000));
        }
        assert!(watch.is_found(&with, 24_000));
        assert!(!SbrWatch::default().is_found(&with, 48_000));
    }
}
