//! Finding the next frame where none is at hand.

use portcullis_engine::Result;

use super::super::reader::Reader;
use super::{Frame, Syntax, tags};

/// How much is looked at in one step.
const WINDOW: usize = 16 << 10;

/// What was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// The frame that the reader now stands at; `None` at the input's end.
    pub(super) frame: Option<Frame>,
    /// Bytes that were skipped and belong to no tag.
    pub(super) junk: u64,
}

/// Moves the reader to the next frame.
///
/// A header alone is a weak sign. It counts where the frame that should follow it has a header that agrees, where the
/// input ends with it, or where it is exactly here and agrees with the stream so far.
pub(super) fn find<S: Syntax>(
    syntax: &S,
    reader: &mut Reader,
    current: Option<&Frame>,
) -> Result<Found> {
    let mut junk: u64 = 0;
    loop {
        if let Some(tag) = tags::here(reader)? {
            let left = reader.remaining().unwrap_or(u64::MAX);
            if tag.len <= left {
                junk = junk.saturating_sub(tag.before);
                skip_to_end_at_most(reader, tag.len)?;
                continue;
            }
        }
        let window = reader.peek(WINDOW)?;
        if window.len() < S::HEADER {
            let rest = window.len() as u64;
            reader.skip(rest)?;
            junk += rest;
            return Ok(Found { frame: None, junk });
        }
        let whole = window.len() < WINDOW;
        let mut found = None;
        let mut at = 0;
        // Where a tag begins the search starts over, so that its content is not mistaken for frames.
        while at + S::HEADER <= window.len() {
            let rest = &window[at..];
            if at > 0 && tags::starts(rest) {
                break;
            }
            if rest[0] == 0xff
                && let Some(frame) = syntax.parse(rest)
            {
                match confirmed(syntax, rest, &frame, current, whole) {
                    Confirmed::Yes => {
                        found = Some(frame);
                        break;
                    }
                    Confirmed::No => {}
                    // The rest of the window is too short to tell: look again with this at its start.
                    Confirmed::Unknown if at > 0 => break,
                    Confirmed::Unknown => {}
                }
            }
            at += 1;
        }
        let at_tag = at > 0 && window.get(at..).is_some_and(tags::starts);
        if found.is_none() && whole && !at_tag && at + S::HEADER > window.len() {
            let rest = window.len() as u64;
            reader.skip(rest)?;
            junk += rest;
            return Ok(Found { frame: None, junk });
        }
        reader.skip(at as u64)?;
        junk += at as u64;
        if found.is_some() {
            return Ok(Found { frame: found, junk });
        }
    }
}

enum Confirmed {
    Yes,
    No,
    Unknown,
}

fn confirmed<S: Syntax>(
    syntax: &S,
    rest: &[u8],
    frame: &Frame,
    current: Option<&Frame>,
    whole: bool,
) -> Confirmed {
    let mut agreeing = 0;
    let mut at = frame.len;
    // Within a stream one more header is enough; at its start two are wanted, as far as there are any.
    let wanted = match current {
        Some(current) if frame.agrees_with(current) => 1,
        _ => 2,
    };
    while agreeing < wanted {
        let Some(next) = rest.get(at..).filter(|next| next.len() >= S::HEADER) else {
            if !whole {
                return Confirmed::Unknown;
            }
            // The input ends where the frame does. One that is cut follows on others; behind junk it is chance.
            let plausible = at <= rest.len() || agreeing > 0;
            return if plausible {
                Confirmed::Yes
            } else {
                Confirmed::No
            };
        };
        if tags::starts(next) {
            return Confirmed::Yes;
        }
        match syntax.parse(next) {
            Some(next) if next.agrees_with(frame) => at += next.len,
            _ => return Confirmed::No,
        }
        agreeing += 1;
    }
    Confirmed::Yes
}

fn skip_to_end_at_most(reader: &mut Reader, len: u64) -> Result<()> {
    if reader.len().is_some() {
        return reader.skip(len);
    }
    // Of a stream of unknown length the end may come first.
    let mut left = len;
    while left > 0 {
        let have = reader.peek(left.min(WINDOW as u64) as usize)?.len() as u64;
        if have == 0 {
            break;
        }
        reader.skip(have)?;
        left -= have;
    }
    Ok(())
}
