//! Waking a process that sleeps: an event counter which one side waits for and the other pokes.
//!
//! The counter's value is never used, only that a poke reaches whoever waits: it is one from the beginning, a poke adds
//! **zero** to it, and nobody ever reads it. That is not for elegance. The flag that makes a descriptor non-blocking belongs to
//! both processes, so a hostile one can clear it, fill the counter, and the next write of anything but zero would block this
//! process for as long as it likes; as would a read. A write of zero never waits (the kernel waits only while the sum would
//! overflow), and wakes edge-triggered waiters like any other. What is left: the kernel itself can raise a counter to its very
//! maximum when asynchronous I/O (`io_submit`) or `io_uring` reports to it; a host's filters of system calls have neither.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{AtFlags, OFlags, StatxFlags, fcntl_getfl, statx};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::TransportError;

/// What this process waits for.
#[derive(Debug)]
pub(crate) struct Alarm(AsyncFd<OwnedFd>);

/// Makes the descriptor of an alarm.
pub(crate) fn create() -> Result<OwnedFd, Errno> {
    eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
}

impl Alarm {
    /// Registers it with the runtime of this thread.
    pub(crate) fn new(descriptor: OwnedFd) -> Result<Self, TransportError> {
        // SAFETY: an `OwnedFd` gives the same open descriptor each time it is asked, until it is dropped, and nothing
        // takes it out of the `AsyncFd`.
        unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }
            .map(Self)
            .map_err(|error| TransportError::io("register the link's alarm", error))
    }

    /// Ready once for what was rung since the last time, perhaps once more. Only the waker of the last call is woken.
    pub(crate) fn poll_rung(&self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        let rung = ready!(self.0.poll_read_ready(cx));
        let mut rung =
            rung.map_err(|error| TransportError::io("wait for the link's alarm", error))?;
        rung.clear_ready();
        Poll::Ready(Ok(()))
    }
}

/// The peer's alarm, which this process rings.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    /// Takes what a peer sent as its alarm; `own` is one of this process. Waits for nothing, whatever it is.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn check(descriptor: BorrowedFd<'_>, own: BorrowedFd<'_>) -> Result<(), String> {
        let told = |error: Errno| error.to_string();
        // All descriptors that are no files are of one file system.
        let (theirs, ours) = (
            device(descriptor).map_err(told)?,
            device(own).map_err(told)?,
        );
        if theirs != ours {
            let (major, minor) = theirs;
            return Err(format!("not an event counter (of device {major}:{minor})"));
        }
        let flags = fcntl_getfl(descriptor).map_err(told)?;
        if !flags.contains(OFlags::NONBLOCK) {
            return Err("it may block".into());
        }
        // Of descriptors that are no files only an event counter takes eight zeros; none waits with them.
        match rustix::io::write(descriptor, &POKE) {
            Ok(8) | Err(Errno::AGAIN) => Ok(()),
            Ok(written) => Err(format!("not an event counter (it took {written} bytes)")),
            Err(error) => Err(format!("not an event counter ({error})")),
        }
    }

    /// Of a descriptor that was checked.
    pub(crate) fn new(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Wakes the peer.
    pub(crate) fn ring(&self) -> Result<(), TransportError> {
        match rustix::io::write(self.0.as_fd(), &POKE) {
            // A counter that is full is the work of the peer, which then sleeps on.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(TransportError::io("wake the peer", error)),
        }
    }
}

const POKE: [u8; 8] = [0; 8];

/// The file system of a descriptor, as it is known here: whoever serves a file over a network, or in a process of its own, is
/// not asked.
fn device(descriptor: BorrowedFd<'_>) -> Result<(u32, u32), Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let facts = statx(descriptor, c"", flags, StatxFlags::empty())?;
    Ok((facts.stx_dev_major, facts.stx_dev_minor))
}
