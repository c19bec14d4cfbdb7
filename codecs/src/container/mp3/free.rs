//! The free format: headers that say no bit rate. All frames have one length, which is how far their headers are apart.

use crate::audio::bitstream::mpeg::MpegHeader;

/// The longest frame that is looked for, as in other players.
const MAX_FRAME: usize = 2304;
/// Where the first frame may begin.
const JUNK: usize = 2048;
/// Bytes that are looked at.
pub(super) const WINDOW: usize = JUNK + 2 * MAX_FRAME + MpegHeader::LEN;

/// Length without padding of the frames in `bytes`, where the first one found is of the free format.
pub(super) fn base_len(bytes: &[u8]) -> Option<usize> {
    let header = |at: usize| bytes.get(at..).and_then(MpegHeader::parse);
    for from in 0..JUNK.min(bytes.len()) {
        let Some(first) = header(from) else {
            continue;
        };
        if first.bit_rate != 0 {
            // An ordinary frame that another one follows.
            if header(from + first.frame_len).is_some() {
                return None;
            }
            continue;
        }
        let found = (first.sound_at()..=MAX_FRAME).find_map(|len| {
            let second = header(from + len).filter(|next| next.is_free_like(&first))?;
            let base = len.checked_sub(first.padding_len())?;
            let third = header(from + len + base + second.padding_len())?;
            third.is_free_like(&first).then_some(base)
        });
        if found.is_some() {
            return found;
        }
    }
    None
}
