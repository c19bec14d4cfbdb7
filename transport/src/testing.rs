//! What several tests of this crate need.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use crate::handshake::Hello;
use crate::link::{Endpoint, Link};

/// A small deterministic generator (xorshift64*): the same failure each time.
pub(crate) struct Prng(u64);

impl Prng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Both ends of a pipe: something harmless to send as a descriptor.
pub(crate) fn pipe_pair() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

/// How many descriptors of this process refer to the same pipe.
fn open_descriptors_to(fd: &OwnedFd) -> usize {
    let target = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| *link == target)
        .count()
}

/// Waits until nothing but `kept` refers to the pipe: what a peer sent is closed on another thread.
pub(crate) fn until_closed(kept: &OwnedFd) {
    while open_descriptors_to(kept) != 1 {
        std::thread::yield_now();
    }
}

/// Runs a test's future on one thread, as an arbiter would, with a deadline for what must not hang.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    run_within(Duration::from_secs(20), future)
}

/// The same with another deadline, for what is long.
pub(crate) fn run_within<T>(deadline: Duration, future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        tokio::time::timeout(deadline, future)
            .await
            .expect("the test did not end in time")
    }))
}

/// A connected pair of links with their writers running.
pub(crate) async fn linked(one: Endpoint, two: Endpoint) -> (Link, Link) {
    let (one, two) = tokio::join!(one.connect(Hello::default()), two.connect(Hello::default()));
    (one.unwrap(), two.unwrap())
}
