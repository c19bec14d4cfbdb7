//! Which cores the two sides of a measurement run on: the same for everything that is compared.

use std::path::Path;
use std::sync::OnceLock;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Two cores for the two sides of a measurement, of those that this process may use; one twice where there is only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cores {
    /// Of the application, or of whoever writes.
    pub(super) near: usize,
    /// Of the host, or of whoever reads.
    pub(super) far: usize,
}

impl Cores {
    /// Two cores, if there are two: always the same, whatever was pinned meanwhile.
    pub(super) fn apart() -> Self {
        static APART: OnceLock<Cores> = OnceLock::new();
        *APART.get_or_init(|| {
            let mut allowed = allowed();
            let near = allowed.next().unwrap_or(0);
            Self {
                near,
                far: allowed.next().unwrap_or(near),
            }
        })
    }

    /// One core for both sides.
    pub(super) fn same() -> Self {
        let near = Self::apart().near;
        Self { near, far: near }
    }
}

fn allowed() -> impl Iterator<Item = usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(move |core| set.is_set(*core))
}

/// Keeps the calling thread, and what it starts, on a core. Only makes figures steadier: where it is refused they are not.
pub(super) fn pin_thread(core: usize) {
    pin(None, core);
}

/// Keeps all threads of a process on a core.
pub(super) fn pin_process(pid: u32, core: usize) {
    pin_threads(threads(pid), core);
}

/// Keeps these threads on a core.
pub(super) fn pin_threads(threads: impl IntoIterator<Item = Pid>, core: usize) {
    for thread in threads {
        pin(Some(thread), core);
    }
}

/// Where the threads of this process might run before they were pinned; they may again when this is dropped.
#[derive(Debug)]
pub(super) struct Unpinned(CpuSet);

impl Unpinned {
    pub(super) fn remember() -> Self {
        Self(sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new()))
    }
}

impl Drop for Unpinned {
    fn drop(&mut self) {
        for thread in threads(std::process::id()) {
            let _ = sched_setaffinity(Some(thread), &self.0);
        }
    }
}

fn pin(thread: Option<Pid>, core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    let _ = sched_setaffinity(thread, &set);
}

/// The threads of a process.
pub(super) fn threads(pid: u32) -> Vec<Pid> {
    let tasks = Path::new("/proc").join(pid.to_string()).join("task");
    let Ok(tasks) = std::fs::read_dir(tasks) else {
        return Vec::new();
    };
    tasks
        .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .collect()
}
