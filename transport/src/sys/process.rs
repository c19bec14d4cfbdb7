//! How a process that ended is reaped, and how a host takes over what it inherited.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use super::landlock::last_error;

/// How a process ended.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// Its exit code, if it ended by itself.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// The processor time that it used.
    pub(crate) cpu_time: Duration,
}

/// Reaps a child if it has ended; `None` while it runs.
pub(crate) fn wait_for(pidfd: BorrowedFd<'_>) -> Result<Option<Ended>, Errno> {
    // SAFETY: both are plain data for which zero is valid.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    // The system call and not the C library's function, which leaves out the usage.
    // SAFETY: the kernel writes to the two live structs, which are in its layout.
    let waited = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_PIDFD,
            pidfd.as_raw_fd(),
            &raw mut info,
            libc::WEXITED | libc::WNOHANG,
            &raw mut usage,
        )
    };
    if waited < 0 {
        return Err(last_error());
    }
    if info.si_signo != libc::SIGCHLD {
        return Ok(None);
    }
    // SAFETY: of a SIGCHLD the kernel has filled in the status.
    let status = unsafe { info.si_status() };
    let exited = info.si_code == libc::CLD_EXITED;
    let time = |time: libc::timeval| {
        let seconds = Duration::from_secs(time.tv_sec.try_into().unwrap_or(0));
        seconds.saturating_add(Duration::from_micros(time.tv_usec.try_into().unwrap_or(0)))
    };
    Ok(Some(Ended {
        code: exited.then_some(status),
        signal: (!exited).then_some(status),
        cpu_time: time(usage.ru_utime).saturating_add(time(usage.ru_stime)),
    }))
}

/// Gives the calling thread a network namespace of its own; the other threads stay where they are.
pub(crate) fn leave_network() -> Result<(), Errno> {
    // SAFETY: of the namespaces only that of the network is left, which affects no memory and no descriptor.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
}

/// Gives back the pages of this program's code that its start has touched: what is used again comes back from the file, and
/// most of it is not.
pub(crate) fn forget_code() {
    unsafe extern "C" {
        /// Where the linker puts this program's first byte, and what follows its code.
        static __executable_start: u8;
        static etext: u8;
    }
    let page = rustix::param::page_size();
    let (start, end) = (&raw const __executable_start, &raw const etext);
    let len = (end.addr().saturating_sub(start.addr()) / page) * page;
    if !start.addr().is_multiple_of(page) {
        return;
    }
    // SAFETY: up to here the program is mapped from its file and only read: the kernel reads the same bytes again. What is
    // relocated at start, and all that is written, comes behind the code.
    let forgotten = unsafe {
        rustix::mm::madvise(
            start.cast_mut().cast(),
            len,
            rustix::mm::Advice::LinuxDontNeed,
        )
    };
    if let Err(error) = forgotten {
        tracing::debug!(%error, "the code of the start stays in memory");
    }
}

/// The first descriptor that is not a standard stream.
const FIRST_DESCRIPTOR: RawFd = 3;

/// Takes a descriptor that this process inherited under a number agreed with its parent; each only once per process.
///
/// `None` when it was taken before or when no such descriptor is open.
pub(crate) fn take_inherited(number: RawFd) -> Option<OwnedFd> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let bit = 1u32.checked_shl(number.try_into().ok()?)?;
    if number < FIRST_DESCRIPTOR || TAKEN.fetch_or(bit, Ordering::SeqCst) & bit != 0 {
        return None;
    }
    // SAFETY: the number is used for this one call, which fails without effect if nothing is open under it.
    let inherited = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_getfd(inherited).ok()?;
    // SAFETY: it is open (just checked) and nobody in this process owns it: it was inherited from the parent, who
    // opened it for this purpose and said so in the environment, and TAKEN lets only one caller come here.
    let owned = unsafe { OwnedFd::from_raw_fd(inherited.as_raw_fd()) };
    Some(owned)
}

/// Removes variables from the environment if that can be done safely: while the process has one thread.
///
/// Returns whether they were removed.
pub(crate) fn remove_variables(names: &[&str]) -> bool {
    // The kernel allows this one, which then does nothing, only to a process with one thread.
    // SAFETY: plain numbers.
    let alone = unsafe { libc::unshare(libc::CLONE_THREAD) } == 0;
    if alone {
        for name in names {
            // SAFETY: changing the environment is a race only with other threads; the kernel has just said that there
            // are none, and no other can start while this one is here.
            unsafe { std::env::remove_var(name) };
        }
    }
    alone
}
