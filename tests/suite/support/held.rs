//! What a process holds of the system, for tests that nothing is left. For programs whose tests run one after another.

use std::fs;
use std::time::Duration;

/// Whatever hangs is found by this.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Looks after each other that find the same: nothing is under way any more.
const QUIET_LOOKS: u32 = 20;

/// What this process holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    descriptors: usize,
    threads: usize,
    children: usize,
    shared_mappings: usize,
}

impl Held {
    pub(crate) fn now() -> Self {
        let count = |folder: &str| fs::read_dir(folder).unwrap().count();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let children: usize = fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
            .map(|children| children.split_whitespace().count())
            .sum();
        Self {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            children,
            shared_mappings: maps.lines().filter(|line| line.contains("memfd:")).count(),
        }
    }

    /// What this process holds when so many hosts live, and what others held is gone: a baseline that is taken while one is
    /// still being taken down hides a leak of as much.
    pub(crate) async fn with_hosts(hosts: usize) -> Self {
        let mut again = tokio::time::interval(Duration::from_millis(10));
        let settled = async {
            let (mut held, mut looks) = (Self::now(), 0);
            loop {
                again.tick().await;
                let now = Self::now();
                looks = match now == held && now.children == hosts {
                    true => looks + 1,
                    false => 0,
                };
                held = now;
                if looks == QUIET_LOOKS {
                    return;
                }
            }
        };
        if tokio::time::timeout(DEADLINE, settled).await.is_err() {
            panic!("{hosts} hosts live, and held is {:?}", Self::now());
        }
        Self::now()
    }

    /// Waits until this process holds no more than before.
    pub(crate) async fn is_back(before: &Self) {
        let mut again = tokio::time::interval(Duration::from_millis(10));
        let back = async {
            loop {
                again.tick().await;
                let now = Self::now();
                if now.descriptors <= before.descriptors
                    && now.threads <= before.threads
                    && now.children <= before.children
                    && now.shared_mappings <= before.shared_mappings
                {
                    return;
                }
            }
        };
        if tokio::time::timeout(DEADLINE, back).await.is_err() {
            panic!("held before: {before:?}, now: {:?}", Self::now());
        }
    }
}

/// Resident memory of this process in KiB. What an allocator keeps for its threads is chance in a short run: only long ones
/// that somebody asked for are held against it.
pub(crate) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let value = line.unwrap().split_whitespace().nth(1).unwrap();
    value.parse().unwrap()
}

/// A small generator, so that a failure can be repeated.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}
