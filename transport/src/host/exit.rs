//! How a host ended, and what it said last.

use std::collections::VecDeque;
use std::fmt;

/// Most lines of last words that are kept.
pub const MAX_LAST_WORDS_LINES: usize = 16;

/// Most bytes of last words that are kept, over all lines.
pub const MAX_LAST_WORDS_BYTES: usize = 4096;

/// How a host process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostExit {
    /// Its process id.
    pub pid: u32,
    /// By itself or by a signal.
    pub cause: ExitCause,
    /// The last lines it wrote to standard output and error; whatever is not printable is escaped.
    pub last_words: Vec<String>,
}

/// Why a process is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitCause {
    /// It ended by itself with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Something else in this process waited for it first, so nobody can know.
    Unknown,
}

impl HostExit {
    /// The signal that ended it, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self.cause {
            ExitCause::Signal(signal) => Some(signal),
            _ => None,
        }
    }

    /// The code it ended with, if it ended by itself.
    pub fn code(&self) -> Option<i32> {
        match self.cause {
            ExitCause::Code(code) => Some(code),
            _ => None,
        }
    }
}

impl fmt::Display for HostExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {} {}", self.pid, self.cause)?;
        if let Some(last) = self.last_words.last() {
            write!(f, "; its last words: {last}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "was killed by signal {signal} ({name})"),
                None => write!(f, "was killed by signal {signal}"),
            },
            Self::Unknown => write!(
                f,
                "ended; its exit status was taken by other code of this process"
            ),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

/// The tail of what a host writes, bounded in lines and bytes whatever it writes.
#[derive(Debug, Default)]
pub(super) struct LastWords {
    lines: VecDeque<Vec<u8>>,
    open: Vec<u8>,
    bytes: usize,
    /// Where the last panic began: its line and the next, which a long backtrace would push out.
    panic: Vec<Vec<u8>>,
}

impl LastWords {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            // Of a line beyond all bounds the beginning says more than the end.
            let room = MAX_LAST_WORDS_BYTES.saturating_sub(self.open.len());
            self.open.extend(text.iter().take(room));
            if ends {
                self.end_line();
            }
        }
    }

    pub(super) fn finish(mut self) -> Vec<String> {
        self.end_line();
        let lost = self
            .panic
            .iter()
            .filter(|line| !self.lines.contains(line))
            .count();
        let room = MAX_LAST_WORDS_LINES - lost;
        let kept = self.lines.len().saturating_sub(room);
        let panic = self.panic.iter().take(lost);
        panic
            .chain(self.lines.iter().skip(kept))
            .map(|line| printable(line))
            .collect()
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.open);
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        if line.windows(PANIC.len()).any(|part| part == PANIC) {
            self.panic = vec![short(&line)];
        } else if self.panic.len() == 1 {
            self.panic.push(short(&line));
        }
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > MAX_LAST_WORDS_LINES || self.bytes > MAX_LAST_WORDS_BYTES {
            let Some(dropped) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= dropped.len();
        }
    }
}

/// What the standard panic hook writes.
const PANIC: &[u8] = b" panicked at ";

fn short(line: &[u8]) -> Vec<u8> {
    line.iter()
        .copied()
        .take(MAX_LAST_WORDS_BYTES / 8)
        .collect()
}

/// A host's words go to logs and terminals: control characters must not.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut shown = String::with_capacity(text.len());
    for character in text.trim_end().chars() {
        if character.is_control() && character != '\t' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_the_last_lines_and_bounded() {
        let mut words = LastWords::default();
        for number in 0..100 {
            words.feed(format!("line {number}\n\n").as_bytes());
        }
        words.feed(b"no newline \x1b[31mred");
        let words = words.finish();
        assert_eq!(words.len(), MAX_LAST_WORDS_LINES);
        assert_eq!(words[0], "line 85");
        assert_eq!(words[MAX_LAST_WORDS_LINES - 1], "no newline \\u{1b}[31mred");
    }

    #[test]
    fn a_backtrace_does_not_push_out_the_panic() {
        let mut words = LastWords::default();
        words.feed(b"thread 'main' panicked at src/main.rs:1:1:\nthe message\nstack backtrace:\n");
        assert_eq!(words.panic.len(), 2);
        for frame in 0..40 {
            words.feed(format!("{frame}: some::function\n").as_bytes());
        }
        let words = words.finish();
        assert_eq!(words.len(), MAX_LAST_WORDS_LINES);
        assert_eq!(words[0], "thread 'main' panicked at src/main.rs:1:1:");
        assert_eq!(words[1], "the message");
        assert_eq!(words[2], "26: some::function");
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let mut words = LastWords::default();
        for _ in 0..1000 {
            words.feed(&[b'x'; 1000]);
        }
        assert!(words.open.len() <= MAX_LAST_WORDS_BYTES);
        words.feed(b"\nthe end\n");
        assert_eq!(words.finish(), ["the end"]);
    }

    #[test]
    fn an_exit_explains_itself() {
        let exit = HostExit {
            pid: 7,
            cause: ExitCause::Signal(9),
            last_words: vec!["boom".into()],
        };
        assert_eq!(
            exit.to_string(),
            "host 7 was killed by signal 9 (SIGKILL); its last words: boom"
        );
    }
}
