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
    (0..CpuSet::MAX_CPU).filter(|core| before().is_set(*core))
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

/// While it lives the threads of this process may be pinned; when it is dropped they may run where they might before.
#[derive(Debug)]
pub(super) struct Pinning(());

impl Pinning {
    /// Remembers where threads may run. Nothing is pinned yet.
    pub(super) fn begin() -> Self {
        let _ = (Cores::apart(), before());
        Self(())
    }
}

impl Drop for Pinning {
    fn drop(&mut self) {
        unpin();
    }
}

/// Lets all threads of this process run where they might before any was pinned. Due before a host starts: it inherits where it
/// may run, and a link does not spin where there is one processor.
pub(super) fn unpin() {
    for thread in threads(std::process::id()) {
        let _ = sched_setaffinity(Some(thread), before());
    }
}

fn before() -> &'static CpuSet {
    static BEFORE: OnceLock<CpuSet> = OnceLock::new();
    BEFORE.get_or_init(|| sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new()))
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
