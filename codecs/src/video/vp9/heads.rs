//! The heads of VP9 frames, and the frames of a superframe.

use rusty_vp9::{BitReader, parse_uncompressed_header};

/// What is needed of a frame's uncompressed header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) key: bool,
    /// Size of the picture; `None` where an earlier one is shown again.
    pub(super) size: Option<(u32, u32)>,
    /// Reference slots that the frame replaces.
    pub(super) refresh: u32,
    pub(super) unsupported: Option<&'static str>,
}

/// `color_space` of RGB.
const RGB: u32 = 7;

impl Head {
    pub(super) fn parse(frame: &[u8], slots: &[(u32, u32); 8]) -> Result<Self, String> {
        let mut bits = BitReader::new(frame);
        let head =
            parse_uncompressed_header(&mut bits, slots).map_err(|error| error.to_string())?;
        if head.show_existing_frame {
            return Ok(Self::default());
        }
        let colour = head.key_frame || head.intra_only;
        let unsupported = if colour && head.color_space == RGB {
            Some("RGB")
        } else if colour && (head.subsampling_x, head.subsampling_y) == (0, 1) {
            Some("4:4:0 chroma")
        } else {
            None
        };
        Ok(Self {
            key: head.key_frame,
            size: Some((head.width, head.height)),
            refresh: if head.key_frame {
                0xff
            } else {
                head.refresh_frame_flags
            },
            unsupported,
        })
    }

    pub(super) fn shows_existing(&self) -> bool {
        self.size.is_none()
    }

    /// Whether later frames may refer to this one.
    pub(super) fn refreshes(&self) -> bool {
        self.refresh != 0
    }
}

/// The frames of a packet, split exactly as the library does it: what is checked must be what is decoded.
pub(super) fn split_superframe(packet: &[u8]) -> Vec<&[u8]> {
    let whole = vec![packet];
    let Some(marker) = packet.last().copied().filter(|last| last & 0xe0 == 0xc0) else {
        return whole;
    };
    let frames = usize::from(marker & 7) + 1;
    let width = usize::from(marker >> 3 & 3) + 1;
    let Some(index_at) = packet.len().checked_sub(2 + width * frames) else {
        return whole;
    };
    if packet[index_at] != marker {
        return whole;
    }
    let sizes = &packet[index_at + 1..packet.len() - 1];
    let mut found = Vec::with_capacity(frames);
    let mut at = 0usize;
    for size in sizes.chunks_exact(width) {
        let size = size
            .iter()
            .rev()
            .fold(0usize, |value, byte| value << 8 | usize::from(*byte));
        if let Some(frame) = packet.get(at..at.saturating_add(size)) {
            found.push(frame);
        }
        at = at.saturating_add(size);
    }
    if found.is_empty() { whole } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superframe_splits_by_its_index() {
        let packet = [1, 2, 3, 4, 5, 0xc1, 2, 3, 0xc1];
        assert_eq!(split_superframe(&packet), [&[1, 2][..], &[3, 4, 5]]);
    }

    #[test]
    fn sizes_beyond_the_packet_are_left_out() {
        let packet = [1, 2, 3, 4, 5, 0xc1, 2, 30, 0xc1];
        assert_eq!(split_superframe(&packet), [&[1, 2][..]]);
        assert_eq!(split_superframe(&[0xc7]), [&[0xc7][..]]);
        assert!(split_superframe(&[]).concat().is_empty());
    }
}
