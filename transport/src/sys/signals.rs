//! What a host writes down about its own end.
//!
//! A host is the first process of its pid namespace, and for such a one the kernel ignores signals sent from inside whose
//! action is the default: an abort would go on, a quota of processor time would pass unnoticed until the hard limit. So
//! the host handles them: it writes a note of fixed size to a descriptor kept for that and exits. The note also names the
//! system call that a filter trapped, which a core's exit status cannot.
//!
//! One more comes from the empty root: the standard library finds the end of the main thread's stack in `/proc`, which is
//! not there when a static host starts, and so an overflow of that stack would look like any bad access. It is told here.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;

use super::landlock::last_error;

/// The descriptor of the last note in every host.
pub(crate) const NOTE_DESCRIPTOR: RawFd = 4;

/// Bytes of a note.
pub(crate) const NOTE_BYTES: usize = 20;

const MAGIC: u32 = 0x5043_4e31;

/// Why a host ended itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// The signal.
    pub(crate) signal: i32,
    /// Of a trapped system call, its number and architecture.
    pub(crate) call: Option<(i32, u32)>,
}

impl Note {
    /// The exit code that goes with it.
    pub(crate) fn exit_code(self) -> i32 {
        128 + self.signal
    }

    fn encode(self) -> [u8; NOTE_BYTES] {
        let (number, architecture) = self.call.unwrap_or_default();
        let mut bytes = [0; NOTE_BYTES];
        let words = [
            MAGIC,
            self.signal.cast_unsigned(),
            u32::from(self.call.is_some()),
            number.cast_unsigned(),
            architecture,
        ];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// What a host wrote; `None` if that is not a note.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; NOTE_BYTES] = bytes.first_chunk()?;
        let mut words = bytes.chunks_exact(4).map(|word| {
            let word: [u8; 4] = word.try_into().unwrap_or_default();
            u32::from_ne_bytes(word)
        });
        if words.next()? != MAGIC {
            return None;
        }
        let signal = words.next()?.cast_signed();
        let trapped = words.next()? != 0;
        let call = (words.next()?.cast_signed(), words.next()?);
        HANDLED.contains(&signal).then_some(Self {
            signal,
            call: trapped.then_some(call),
        })
    }
}

/// The signals that are handled.
const HANDLED: [libc::c_int; 4] = [libc::SIGSYS, libc::SIGABRT, libc::SIGXCPU, libc::SIGXFSZ];

/// Handles them from now on. Once, at the start of a host.
pub(crate) fn install() -> Result<(), Errno> {
    for signal in HANDLED {
        set_handler(signal, handle)?;
    }
    let before = set_handler(libc::SIGSEGV, handle_fault)?;
    if before.sa_flags & libc::SA_SIGINFO != 0 {
        STANDARD_FAULT_HANDLER.store(before.sa_sigaction, Ordering::Relaxed);
    }
    Ok(())
}

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// Sets one of the two handlers below; answers what was set before.
fn set_handler(signal: libc::c_int, handler: Handler) -> Result<libc::sigaction, Errno> {
    // SAFETY: `sigaction` is plain data for which zero is valid; the handlers have the signature that SA_SIGINFO asks for
    // and do only what a handler may: they read what the kernel gave them, write and exit, or leave it to the handler
    // before. SA_ONSTACK takes a thread's alternate stack if there is one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let mut before: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        match libc::sigaction(signal, &raw const action, &raw mut before) {
            0 => Ok(before),
            _ => Err(last_error()),
        }
    }
}

/// The standard library's handler of bad accesses, which knows the stacks of all threads but perhaps the main one.
static STANDARD_FAULT_HANDLER: AtomicUsize = AtomicUsize::new(0);

/// How far from the stack pointer an access still is one to the stack: a frame is probed page by page.
const NEAR_STACK: usize = 64 << 10;

extern "C" fn handle_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    if !info.is_null()
        && !context.is_null()
        && rustix::thread::gettid() == rustix::process::getpid()
    {
        // SAFETY: the kernel gives a siginfo_t with the address of a SIGSEGV and the context of the interrupted thread.
        let (address, stack) = unsafe {
            (
                (*info).si_addr().addr(),
                stack_pointer(&*context.cast::<libc::ucontext_t>()),
            )
        };
        if address.abs_diff(stack) < NEAR_STACK {
            const WORDS: &[u8] = b"\nthread 'main' has overflowed its stack\n";
            // SAFETY: `write` reads a constant.
            unsafe { libc::write(libc::STDERR_FILENO, WORDS.as_ptr().cast(), WORDS.len()) };
            end(Note {
                signal: libc::SIGABRT,
                call: None,
            });
        }
    }
    match STANDARD_FAULT_HANDLER.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: sets a default: on return the access fails again and the kernel ends the process.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        handler => {
            // SAFETY: it was set with SA_SIGINFO, so it is a function of this signature.
            let handler: Handler = unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn stack_pointer(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.gregs[libc::REG_RSP as usize] as usize
}

#[cfg(target_arch = "aarch64")]
fn stack_pointer(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.sp as usize
}

/// The kernel's `siginfo` of a trapped call, on 64-bit architectures.
#[repr(C)]
struct TrapInfo {
    signal: i32,
    errno: i32,
    code: i32,
    _padding: i32,
    _address: usize,
    call: i32,
    architecture: u32,
}

/// `SYS_SECCOMP` of `si_code`
const BY_FILTER: i32 = 1;

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let mut call = None;
    if signal == libc::SIGSYS && !info.is_null() {
        // SAFETY: the kernel gives a siginfo_t, which is larger than `TrapInfo`, aligned for it, and for SIGSYS laid out
        // like it.
        let info = unsafe { &*info.cast::<TrapInfo>() };
        if info.code == BY_FILTER {
            call = Some((info.call, info.architecture));
        }
    }
    end(Note { signal, call });
}

fn end(note: Note) -> ! {
    let bytes = note.encode();
    // SAFETY: `write` reads the live array; a failure leaves the exit code, which says the signal too. `_exit` runs
    // nothing of this program any more.
    unsafe {
        libc::write(NOTE_DESCRIPTOR, bytes.as_ptr().cast(), bytes.len());
        libc::_exit(note.exit_code());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_as_it_was_written_and_nothing_else_does() {
        let trapped = Note {
            signal: libc::SIGSYS,
            call: Some((41, 0xc000_003e)),
        };
        let aborted = Note {
            signal: libc::SIGABRT,
            call: None,
        };
        for note in [trapped, aborted] {
            assert_eq!(Note::decode(&note.encode()), Some(note));
            assert_eq!(Note::decode(&note.encode()[..NOTE_BYTES - 1]), None);
        }
        assert_eq!(Note::decode(&[0; NOTE_BYTES]), None);
        let foreign = Note {
            signal: libc::SIGKILL,
            call: None,
        };
        assert_eq!(Note::decode(&foreign.encode()), None);
    }
}
