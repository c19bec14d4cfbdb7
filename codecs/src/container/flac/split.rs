//! Dividing the bytes behind the metadata into frames.

use portcullis_engine::{Error, Result};

use super::super::id3;
use super::super::reader::Reader;
use crate::audio::bitstream::flac::{FrameHeader, StreamInfo, crc16};

/// How much is looked at first; most frames are shorter.
const WINDOW: usize = 16 << 10;
/// How far the first frame may lie behind the metadata.
const FIRST_WITHIN: usize = 1 << 20;
/// Damaged bytes that one sample takes at most.
const MAX_DAMAGED: usize = 1 << 20;

/// What a file starts with.
const MAGIC: &[u8] = b"fLaC";
/// A longer tag between two files is not looked behind.
const MAX_TAG: u64 = 16 << 20;

/// What comes next in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// A whole frame, its checksum right: its length, its first PCM frame, and how many there are.
    Frame { len: usize, start: u64, pcm: u32 },
    /// Bytes that are no whole frame, up to the next one.
    Damaged { len: usize, start: u64, pcm: u32 },
    /// The input ends inside of a frame, after so many bytes.
    Cut { len: usize },
    /// The input ends.
    End,
}

/// Bytes that may be searched in vain, over the whole stream. Each lost frame costs about its own length; only an input that
/// is made of headers without frames comes near this.
const VAIN: u64 = 256 << 20;

/// Divides one stream.
#[derive(Debug)]
pub(super) struct Splitter {
    /// PCM frames in each block of a stream with blocks of a fixed size.
    fixed: u32,
    /// PCM frames in the whole stream; 0 where unknown.
    total: u64,
    bits: u32,
    /// No frame is longer.
    max_len: usize,
    /// Bytes that were searched in vain.
    vain: u64,
}

/// The first frame's header, with the reader put in front of it; `None` where the input has none within reach.
pub(super) fn find_first(reader: &mut Reader) -> Result<Option<FrameHeader>> {
    let mut want = WINDOW;
    loop {
        let window = reader.peek(want)?;
        let found = headers(window, 0).next();
        if let Some((at, header)) = found {
            reader.skip(at as u64)?;
            return Ok(Some(header));
        }
        if window.len() < want || want >= FIRST_WITHIN {
            return Ok(None);
        }
        want *= 2;
    }
}

impl Splitter {
    pub(super) fn new(info: &StreamInfo, fixed: u32, max_sample_bytes: u64) -> Self {
        // The longest way to write a block is one value after the other, one bit wider for a difference channel.
        let values = u64::from(info.max_block.max(fixed)) * u64::from(info.channels);
        let longest = values * u64::from(info.bits + 1) / 8 + 1024;
        Self {
            fixed,
            total: info.total,
            bits: info.bits,
            max_len: longest.max(WINDOW as u64).min(max_sample_bytes) as usize,
            vain: 0,
        }
    }

    /// What the reader stands at. `expected` is the PCM frame at which a frame here should begin.
    pub(super) fn next(&mut self, reader: &mut Reader, expected: u64) -> Result<Unit> {
        let Some(header) = FrameHeader::parse(reader.peek(FrameHeader::MAX_LEN)?) else {
            refuse_another(reader)?;
            return self.damaged(reader, expected);
        };
        let start = header.first_sample(self.fixed);
        let end = self.end_of(&header);
        let frame = |len| Unit::Frame {
            len,
            start,
            pcm: header.block,
        };
        // Checksum of `window[..summed]`, and from where headers are looked for.
        let (mut crc, mut summed) = (0, 0);
        let mut looked = header.len;
        // A header that would fit behind this frame, if this frame's checksum came out right there.
        let mut suspect: Option<FrameHeader> = None;
        let mut want = WINDOW;
        let mut cut = false;
        let damage = 'search: loop {
            let window = reader.peek(want)?;
            let whole = window.len() < want;
            for (at, next) in headers(window, looked) {
                if at < summed {
                    continue;
                }
                crc = crc16(crc, &window[summed..at]);
                summed = at;
                if crc == 0 {
                    return Ok(frame(at));
                }
                // By chance there are headers inside of a frame, but not two that fit to each other.
                if suspect.is_some_and(|last| self.end_of(&last) == next.first_sample(self.fixed)) {
                    break 'search at;
                }
                if next.variable == header.variable && self.follows(&next, end) {
                    suspect = Some(next);
                }
            }
            if whole {
                if let Some(len) = last_frame(window, crc, summed) {
                    return Ok(frame(len));
                }
                cut = suspect.is_none();
                break window.len();
            }
            if want > self.max_len.saturating_add(FrameHeader::MAX_LEN) {
                break window.len();
            }
            looked = looked.max((window.len() + 1).saturating_sub(FrameHeader::MAX_LEN));
            want *= 2;
        };
        self.vain += damage as u64;
        if self.vain > VAIN {
            return Err(Error::malformed(
                reader.position(),
                "frames without ends, here and in all that was searched before",
            ));
        }
        // The frame may be whole, and the header behind it damaged, or another file put behind it.
        match whole_before_damage(reader.peek(damage)?, header.len) {
            Some(len) => Ok(frame(len)),
            None if cut => Ok(Unit::Cut { len: damage }),
            None => self.damaged(reader, start),
        }
    }

    /// Whether a frame of this stream begins at `byte` with PCM frame `pcm`; the reader is moved there.
    pub(super) fn stands_at(&self, reader: &mut Reader, byte: u64, pcm: u64) -> Result<bool> {
        reader.seek(byte)?;
        let header = FrameHeader::parse(reader.peek(FrameHeader::MAX_LEN)?);
        Ok(header.is_some_and(|header| header.first_sample(self.fixed) == pcm))
    }

    /// Moves the reader to the next whole frame before byte `end` and answers its first PCM frame.
    pub(super) fn find_frame(&mut self, reader: &mut Reader, end: u64) -> Result<Option<u64>> {
        while reader.position() < end {
            let window = reader.peek(WINDOW)?;
            let (len, whole) = (window.len(), window.len() < WINDOW);
            let found = headers(window, 0).next();
            match found {
                Some((at, header)) => {
                    reader.skip(at as u64)?;
                    let start = header.first_sample(self.fixed);
                    if let Unit::Frame { .. } = self.next(reader, start)? {
                        return Ok(Some(start));
                    }
                    reader.skip(1)?;
                }
                None if whole => return Ok(None),
                None => reader.skip((len + 1 - FrameHeader::MAX_LEN) as u64)?,
            }
        }
        Ok(None)
    }

    fn end_of(&self, header: &FrameHeader) -> u64 {
        header
            .first_sample(self.fixed)
            .saturating_add(u64::from(header.block))
    }

    fn follows(&self, header: &FrameHeader, end: u64) -> bool {
        let start = header.first_sample(self.fixed);
        start >= end
            && (self.total == 0 || start < self.total)
            && header.bits.is_none_or(|bits| bits == self.bits)
    }

    /// Bytes up to the next whole frame that comes after `expected`.
    fn damaged(&self, reader: &mut Reader, expected: u64) -> Result<Unit> {
        let mut want = WINDOW;
        let mut looked = 1;
        loop {
            let window = reader.peek(want)?;
            if self.total != 0 && expected >= self.total {
                return Ok(Unit::End);
            }
            let whole = window.len() < want;
            let next = headers(window, looked)
                .find(|(_, header)| self.follows(header, expected.saturating_add(1)));
            if let Some((at, header)) = next {
                let start = header.first_sample(self.fixed);
                let lost = start.saturating_sub(expected);
                return Ok(Unit::Damaged {
                    len: at,
                    start: expected,
                    pcm: u32::try_from(lost).unwrap_or(u32::MAX),
                });
            }
            if whole {
                // Nothing follows: the end, padding, tags, or a frame that cannot be told from them.
                let complete = self.total == 0 && is_padding(window);
                let len = window.len();
                return Ok(if complete {
                    Unit::End
                } else {
                    Unit::Cut { len }
                });
            }
            if want >= MAX_DAMAGED {
                return Ok(Unit::Damaged {
                    len: want,
                    start: expected,
                    pcm: 0,
                });
            }
            looked = window.len() + 1 - FrameHeader::MAX_LEN;
            want *= 2;
        }
    }
}

/// The frame headers in `window`, from a position on, with their positions.
fn headers(window: &[u8], from: usize) -> impl Iterator<Item = (usize, FrameHeader)> + '_ {
    let mut at = from;
    std::iter::from_fn(move || {
        loop {
            let rest = window.get(at..)?;
            at += rest.iter().position(|byte| *byte == 0xff)?;
            let here = at;
            at += 1;
            if let Some(header) = FrameHeader::parse(&window[here..]) {
                return Some((here, header));
            }
        }
    })
}

/// Length of the last frame, where the input's end is its end or only a tag follows.
fn last_frame(window: &[u8], crc: u16, summed: usize) -> Option<usize> {
    let id3 = window
        .len()
        .checked_sub(128)
        .filter(|at| window[*at..].starts_with(b"TAG"));
    let ape = window.windows(8).position(|bytes| bytes == b"APETAGEX");
    [Some(window.len()), id3, ape]
        .into_iter()
        .flatten()
        .filter(|end| *end > summed)
        .find(|end| crc16(crc, &window[summed..*end]) == 0)
}

/// Says so where another file was put behind the last frame, with or without a tag in front: it has a form of its own.
fn refuse_another(reader: &mut Reader) -> Result<()> {
    let tag = match id3::tag_len(reader.peek(MAGIC.len() + 6)?) {
        Some(len) if len <= MAX_TAG => len as usize,
        _ => 0,
    };
    let window = reader.peek(tag + MAGIC.len())?;
    if window.get(tag..) != Some(MAGIC) {
        return Ok(());
    }
    Err(Error::malformed(
        reader.position() + tag as u64,
        "another FLAC file begins behind the end of the first; only the first was read",
    ))
}

/// Length of the frame that `window` starts with, by its checksum and what starts behind it alone: a sync code, another
/// file or a tag.
fn whole_before_damage(window: &[u8], header_len: usize) -> Option<usize> {
    let (mut crc, mut summed) = (0, 0);
    let ends = (header_len..window.len().saturating_sub(1)).filter(|at| match window[*at] {
        0xff => window[at + 1] & 0xfe == 0xf8,
        b'f' => window[*at..].starts_with(MAGIC),
        b'I' => window[*at..].starts_with(b"ID3"),
        _ => false,
    });
    for at in ends {
        crc = crc16(crc, &window[summed..at]);
        summed = at;
        if crc == 0 {
            return Some(at);
        }
    }
    None
}

fn is_padding(bytes: &[u8]) -> bool {
    bytes.starts_with(b"TAG")
        || bytes.starts_with(b"ID3")
        || bytes.starts_with(b"APETAGEX")
        || bytes.starts_with(b"LYRICSBEGIN")
        || bytes.iter().all(|byte| *byte == 0)
}
