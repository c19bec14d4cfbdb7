//! How long a stream is, and its bit rate, where no header says so.

use portcullis_engine::Result;

use super::sync;
use super::{Frame, FrameSource, Syntax};

/// Up to this length all headers are looked at.
const WALKED: u64 = 32 << 20;
/// In a longer input frames are looked at in this many places.
const PLACES: u64 = 16;
/// Bytes that are looked at in each.
const WINDOW: usize = 32 << 10;

/// What the frames that were looked at have in common.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measured {
    /// PCM frames of the whole.
    pub(super) pcm: u64,
    /// Bits per second.
    pub(super) bit_rate: Option<u64>,
}

/// A sum over frames.
#[derive(Debug, Default)]
struct Sum {
    bytes: u64,
    pcm: u64,
    /// The bit rate that all headers state; `None` with the first that states another.
    stated: Option<Option<u32>>,
}

impl Sum {
    fn add(&mut self, frame: &Frame) {
        self.bytes = self.bytes.saturating_add(frame.len as u64);
        self.pcm = self.pcm.saturating_add(frame.samples);
        let this = Some(frame.bit_rate).filter(|rate| *rate != 0);
        let all = self.stated.get_or_insert(this);
        if *all != this {
            *all = None;
        }
    }

    fn bit_rate(&self, rate: u32) -> Option<u64> {
        if let Some(Some(stated)) = self.stated {
            return Some(u64::from(stated));
        }
        let bits = u128::from(self.bytes) * 8 * u128::from(rate);
        let mean = bits.checked_div(u128::from(self.pcm))?;
        u64::try_from(mean).ok()
    }
}

impl<S: Syntax> FrameSource<S> {
    /// Measures what lies between here and the end of a seekable input, and comes back.
    pub(super) fn measure(&mut self) -> Result<Option<Measured>> {
        let (true, Some(left)) = (self.reader.is_seekable(), self.reader.remaining()) else {
            return Ok(None);
        };
        let (first, start) = (self.current, self.next);
        let mut sum = Sum::default();
        let pcm = if left <= WALKED {
            // Junk at the end is told of when it is read.
            while let Ok(Some(frame)) = self.locate() {
                sum.add(&frame);
                let left = self.reader.remaining().unwrap_or(0);
                self.reader.skip((frame.len as u64).min(left))?;
                self.advance(&frame);
            }
            sum.pcm
        } else {
            for place in 0..PLACES {
                self.reader.seek(start.byte + left / PLACES * place)?;
                if sync::find(&self.syntax, &mut self.reader, Some(&first))?
                    .frame
                    .is_some()
                {
                    self.look(&first, &mut sum)?;
                }
            }
            let pcm = u128::from(left) * u128::from(sum.pcm);
            let pcm = pcm.checked_div(u128::from(sum.bytes)).unwrap_or(0);
            u64::try_from(pcm).unwrap_or(u64::MAX)
        };
        self.reader.seek(start.byte)?;
        (self.current, self.next) = (first, start);
        self.discontinuity = false;
        Ok(Some(Measured {
            pcm,
            bit_rate: sum.bit_rate(first.rate),
        }))
    }

    /// Adds up the frames that follow each other here.
    fn look(&mut self, first: &Frame, sum: &mut Sum) -> Result<()> {
        let window = self.reader.peek(WINDOW)?;
        let mut at = 0;
        while let Some(frame) = window.get(at..).and_then(|rest| self.syntax.parse(rest)) {
            if !frame.agrees_with(first) {
                break;
            }
            sum.add(&frame);
            at += frame.len;
        }
        Ok(())
    }
}
