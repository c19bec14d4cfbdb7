//! Putting a filter of system calls on.

use rustix::io::Errno;

use super::landlock::last_error;

/// Filters the system calls of all threads of this process, for ever. Needs no-new-privileges.
///
/// Async-signal-safe. Where a thread cannot take the filter none does, and it fails with `SRCH`.
pub(crate) fn put_on_all_threads(program: &[libc::sock_filter]) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::TOOBIG)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads the struct and the program behind it, which are alive; it writes to neither.
    let put = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    match put {
        0 => Ok(()),
        ..0 => Err(last_error()),
        // The id of the thread that could not.
        _ => Err(Errno::SRCH),
    }
}
