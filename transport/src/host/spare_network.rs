//! A network namespace that is ready before the next host needs it: making one takes a quarter of a host's start.
//!
//! Only where this process may put a child into a namespace that exists: with privilege. Each host gets one that nobody had
//! before. The first host of a process does not wait for a spare one, and none is made for it: most have only one host.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

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
    own_network()
}

/// The network namespace of this thread, if this process may enter it again: some filters of system calls allow to make
/// namespaces and not to enter one.
fn own_network() -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open(c"/proc/thread-self/ns/net", flags, Mode::empty())?;
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network))?;
    spare(&own)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn there_is_none_where_it_could_not_be_entered() {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        // Capabilities are of the thread, as the namespace is.
        let made = std::thread::spawn(|| {
            leave_network().ok()?;
            let mut sets = capabilities(None).ok()?;
            sets.effective.remove(CapabilitySet::SYS_ADMIN);
            set_capabilities(None, sets).ok()?;
            Some(own_network().map(drop))
        });
        match made.join().unwrap() {
            Some(made) => assert_eq!(made, Err(Errno::PERM)),
            None => println!("left out: this process may make no network namespace"),
        }
    }

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
