//! How a host ended, and what it said last.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::sys::signals::Note;

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
    /// The system call that the sandbox did not let it make, if that ended it.
    pub blocked: Option<BlockedCall>,
    /// The quota beyond which it went, if that ended it.
    pub quota: Option<Quota>,
}

/// A system call that a filter trapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BlockedCall {
    /// Its name, if this architecture has a call of that number.
    pub name: Option<String>,
    /// Its number.
    pub number: i32,
    /// The kernel's number of the architecture by whose table the call was made.
    pub architecture: u32,
}

/// What a host may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Quota {
    /// Memory.
    Memory,
    /// Processor time.
    CpuTime,
    /// Time since its start.
    WallTime,
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
        write!(f, "host {} ", self.pid)?;
        match (&self.blocked, self.quota) {
            (Some(call), _) => write!(f, "was ended by its sandbox at the {call}")?,
            (None, Some(quota)) => {
                write!(f, "went beyond its quota of {quota}: it {}", self.cause)?
            }
            (None, None) => write!(f, "{}", self.cause)?,
        }
        if let Some(last) = self.last_words.last() {
            write!(f, "; its last words: {last}")?;
        }
        Ok(())
    }
}

impl BlockedCall {
    pub(super) fn new(number: i32, architecture: u32) -> Self {
        let call = usize::try_from(number).ok();
        let call = call.filter(|_| architecture == NATIVE_ARCHITECTURE);
        let name = call.and_then(syscalls::Sysno::new);
        Self {
            name: name.map(|call| call.name().to_owned()),
            number,
            architecture,
        }
    }
}

/// `AUDIT_ARCH_X86_64`, `AUDIT_ARCH_AARCH64`
const NATIVE_ARCHITECTURE: u32 = if cfg!(target_arch = "aarch64") {
    0xc000_00b7
} else {
    0xc000_003e
};

impl fmt::Display for BlockedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "system call {name} ({})", self.number),
            None => write!(
                f,
                "system call {} of architecture {:#x}",
                self.number, self.architecture
            ),
        }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::CpuTime => "processor time",
            Self::WallTime => "time",
        })
    }
}

/// How an end is told: by what the kernel says of it, and by what the host wrote down and said itself.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// What it wrote down.
    pub(super) note: Option<Note>,
    /// It was killed because its time was over.
    pub(super) is_out_of_time: bool,
    /// It used all the processor time that it may use.
    pub(super) is_out_of_cpu: bool,
    /// The kernel killed it for its control group's memory.
    pub(super) is_out_of_memory: bool,
}

impl HostExit {
    pub(super) fn new(
        pid: u32,
        mut cause: ExitCause,
        last_words: Vec<String>,
        evidence: Evidence,
    ) -> Self {
        let mut blocked = None;
        // A note is the host's own word; it counts only for the end that goes with it.
        let note = evidence
            .note
            .filter(|note| cause == ExitCause::Code(note.exit_code()));
        if let Some(note) = note {
            cause = ExitCause::Signal(note.signal);
            blocked = note
                .call
                .map(|(number, architecture)| BlockedCall::new(number, architecture));
        }
        let by = |signal| cause == ExitCause::Signal(signal);
        let quota = if evidence.is_out_of_time {
            Some(Quota::WallTime)
        } else if by(libc::SIGXCPU) || (by(libc::SIGKILL) && evidence.is_out_of_cpu) {
            Some(Quota::CpuTime)
        } else if (by(libc::SIGABRT) && last_words.iter().any(|line| is_allocation_failure(line)))
            || (by(libc::SIGKILL) && evidence.is_out_of_memory)
        {
            Some(Quota::Memory)
        } else {
            None
        };
        Self {
            pid,
            cause,
            last_words,
            blocked,
            quota,
        }
    }

    /// Of a process about whose end nothing can be known.
    pub(super) fn unknown(pid: u32) -> Self {
        Self::new(pid, ExitCause::Unknown, Vec::new(), Evidence::default())
    }
}

/// What the standard library says before it aborts.
fn is_allocation_failure(line: &str) -> bool {
    line.strip_prefix("memory allocation of ")
        .and_then(|rest| rest.split_once(" bytes failed"))
        .is_some_and(|(bytes, _)| bytes.bytes().all(|byte| byte.is_ascii_digit()))
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
        let exit = |cause, words: &str, evidence| {
            HostExit::new(7, cause, vec![words.to_owned()], evidence).to_string()
        };
        assert_eq!(
            exit(ExitCause::Signal(9), "boom", Evidence::default()),
            "host 7 was killed by signal 9 (SIGKILL); its last words: boom"
        );
        let note = |signal, call| Evidence {
            note: Some(Note { signal, call }),
            ..Evidence::default()
        };
        let socket = syscalls::Sysno::socket.id();
        assert_eq!(
            exit(
                ExitCause::Code(159),
                "hm",
                note(libc::SIGSYS, Some((socket, NATIVE_ARCHITECTURE)))
            ),
            format!(
                "host 7 was ended by its sandbox at the system call socket ({socket}); its last words: hm"
            )
        );
        assert_eq!(
            exit(
                ExitCause::Code(134),
                "memory allocation of 12 bytes failed",
                note(libc::SIGABRT, None)
            ),
            "host 7 went beyond its quota of memory: it was killed by signal 6 (SIGABRT); \
             its last words: memory allocation of 12 bytes failed"
        );
        // A note that does not go with the end is not believed.
        assert_eq!(
            exit(ExitCause::Code(0), "bye", note(libc::SIGABRT, None)),
            "host 7 exited with code 0; its last words: bye"
        );
    }
}
