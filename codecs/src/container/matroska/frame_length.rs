//! How long a frame of sound lasts, where only its codec says.

use portcullis_engine::{MediaTime, TimeBase};

use crate::container::ogg::{flac, opus, vorbis::BlockCounter};

/// What tells the length of a frame.
#[derive(Debug)]
pub(crate) enum FrameLength {
    /// Nothing does.
    Unknown,
    /// Every frame is as long: PCM frames, and their rate.
    Always(u32, TimeBase),
    /// MPEG audio: the version in each header.
    Mpeg(TimeBase),
    /// Uncompressed: bytes of a PCM frame.
    Pcm(u32, TimeBase),
    /// The block size of each frame's header.
    Flac(TimeBase),
    /// The first bytes of each packet; and frames to drop at the start.
    Opus(u16, TimeBase),
    /// The block sizes of a packet and of the one before.
    Vorbis(Box<BlockCounter>, TimeBase),
}

impl FrameLength {
    /// Length of the next frame.
    pub(crate) fn of(&mut self, frame: &[u8]) -> Option<MediaTime> {
        let (frames, base) = match self {
            Self::Unknown => return None,
            Self::Always(frames, base) => (*frames, *base),
            Self::Mpeg(base) => (mpeg_frames(frame)?, *base),
            Self::Pcm(bytes, base) => {
                let frames = frame.len().checked_div(*bytes as usize)?;
                (u32::try_from(frames).ok()?, *base)
            }
            Self::Flac(base) => (flac::block_frames(frame)?, *base),
            Self::Opus(_, base) => (opus::packet_frames(frame)?, *base),
            Self::Vorbis(counter, base) => (counter.frames(frame)?, *base),
        };
        Some(base.to_time(i64::from(frames)))
    }

    /// The next frame does not follow on the one before.
    pub(crate) fn reset(&mut self) {
        if let Self::Vorbis(counter, _) = self {
            counter.reset();
        }
    }

    /// How long before a position a decoder must begin to be right there.
    pub(crate) fn preroll(&self) -> MediaTime {
        match self {
            Self::Unknown | Self::Pcm(..) | Self::Flac(_) => MediaTime::ZERO,
            // Frames overlap with the one before.
            Self::Always(frames, base) => base.to_time(i64::from(*frames) * 2),
            Self::Vorbis(counter, base) => base.to_time(i64::from(counter.long_block()) * 2),
            // The bit reservoir reaches back over some frames.
            Self::Mpeg(base) => base.to_time(1152 * 10),
            Self::Opus(_, base) => base.to_time(3840),
        }
    }

    /// PCM frames to drop at the start, where the codec's headers say so.
    pub(crate) fn pre_skip(&self) -> u64 {
        match self {
            Self::Opus(pre_skip, _) => u64::from(*pre_skip),
            _ => 0,
        }
    }
}

fn mpeg_frames(frame: &[u8]) -> Option<u32> {
    let &[0xff, second, ..] = frame else {
        return None;
    };
    let first_version = second & 8 != 0;
    match second >> 1 & 3 {
        3 => Some(384),
        1 if !first_version => Some(576),
        1 | 2 => Some(1152),
        _ => None,
    }
}
