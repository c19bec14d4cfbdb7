//! A network namespace that is ready before the next host needs it: making one takes a quarter of a host's start.
//!
//! Only where this process may put a child into a namespace that exists: with privilege. Each host gets one that nobody had
//! before. The first host of a process does not wait for a spare one, and none is made for it: most have only one host.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::sys::process::leave_network;
use crate::sys::spawn::spare;

static SPARE: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Takes the spare one, if it is there.
pub(super) fn take() -> Option<OwnedFd> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Has one made, on a thread of its own.
pub(super) fn prepare() {
    let made = std::thread::Builder::new()
        .name("portcullis-network".into())
        .spawn(|| match make() {
            Ok(network) => {
                let before = SPARE
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .replace(network);
                drop(before);
            }
            // Then the kernel makes one with the child, or says to whom it matters why not.
            Err(error) => tracing::debug!(%error, "no spare network namespace"),
        });
    if let Err(error) = made {
        tracing::debug!(%error, "no thread for a spare network namespace");
    }
}

fn make() -> Result<OwnedFd, Errno> {
    leave_network()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open(c"/proc/thread-self/ns/net", flags, Mode::empty())?;
    spare(&own)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn each_is_another_one() {
        fn number(network: OwnedFd) -> u64 {
            std::fs::File::from(network).metadata().unwrap().ino()
        }
        let make = || {
            let made = std::thread::spawn(|| make().map(number));
            made.join().unwrap()
        };
        let (Ok(one), Ok(two)) = (make(), make()) else {
            println!("left out: this process may make no network namespace");
            return;
        };
        let ours = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert!(one != two && one != ours && two != ours);
    }
}
