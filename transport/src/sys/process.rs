//! What happens between `fork` and `exec` of a host, and how a host takes over what it inherited.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, Signal};

/// The first descriptor that is not a standard stream.
const FIRST_DESCRIPTOR: RawFd = 3;

/// Arranges that the child keeps of all descriptors only its standard streams and `socket`, and that it dies with the
/// thread that spawns it.
///
/// The socket must stay open until the child is spawned; its number in the child is the one here.
pub(crate) fn isolate_child(command: &mut Command, socket: RawFd) {
    let parent = rustix::process::getpid();
    let prepare = move || prepare_child(socket, parent);
    // SAFETY: the closure runs in the forked child of a process with other threads, so it may only do what is
    // async-signal-safe: it makes system calls (close_range, fcntl, prctl, getppid) on values captured by copy,
    // allocates nothing, takes no lock, and an `io::Error` from a raw error number holds no allocation.
    unsafe { command.pre_exec(prepare) };
}

fn prepare_child(socket: RawFd, parent: Pid) -> std::io::Result<()> {
    // SAFETY: close_range with CLOEXEC closes nothing now; it marks descriptors to be closed by the coming exec.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST_DESCRIPTOR as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if marked != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the parent keeps `socket` open until the child is spawned, and this process is a copy of the parent.
    let socket = unsafe { BorrowedFd::borrow_raw(socket) };
    rustix::io::fcntl_setfd(socket, FdFlags::empty())?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the line above: then nobody would ever send the signal.
    if rustix::process::getppid() != Some(parent) {
        return Err(Errno::SRCH.into());
    }
    Ok(())
}

/// Takes a descriptor that this process inherited under a number agreed with its parent; only once per process.
///
/// `None` when it was taken before or when no such descriptor is open.
pub(crate) fn take_inherited(number: RawFd) -> Option<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if number < FIRST_DESCRIPTOR || TAKEN.swap(true, Ordering::SeqCst) {
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

/// Removes a variable from the environment if that can be done safely: while the process has one thread.
///
/// Returns whether it was removed.
pub(crate) fn remove_variable(name: &str) -> bool {
    let alone = std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1);
    if alone {
        // SAFETY: changing the environment is a race only with other threads; the kernel has just listed one thread,
        // which is this one, and no other can start while it is here.
        unsafe { std::env::remove_var(name) };
    }
    alone
}
