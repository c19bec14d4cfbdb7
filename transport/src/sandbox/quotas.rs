//! What a host may use up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a host may use up. Beyond its memory or its time the host ends, and its exit names the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostQuotas {
    /// Bytes of private memory.
    ///
    /// A control group counts everything, swap included. Without one (which mostly means without privilege) the process's
    /// limits count what is mapped privately, and the address space. They do not count what a host keeps in anonymous files
    /// that it does not map: of those it may have as many as it may have [descriptors](Self::descriptors), each of any
    /// size. (A limit of the size of files would bound each one, and also each write of a sink to a file that the
    /// application opened for it, so there is none.)
    pub memory: u64,
    /// Processor time over all threads, in whole seconds.
    pub cpu_time: Option<Duration>,
    /// Time from its start.
    pub wall_time: Option<Duration>,
    /// Open descriptors. Beyond it an opening or receiving fails in the host, an ordinary error there: the host does not end
    /// by it.
    pub descriptors: u64,
}

/// Address space beyond private memory: shared pools of both sides, and what allocators reserve without using.
const SHARED_ADDRESS_SPACE: u64 = 16 << 30;

/// Threads of a host: workers and whatever its components start.
pub(crate) const MAX_THREADS: u64 = 512;

impl HostQuotas {
    /// The limit of the address space that goes with `memory`.
    pub(crate) fn address_space(&self) -> u64 {
        self.memory.saturating_add(SHARED_ADDRESS_SPACE)
    }

    /// Whole seconds of processor time, at least one: the kernel counts no finer.
    pub(crate) fn cpu_seconds(&self) -> Option<u64> {
        self.cpu_time
            .map(|time| time.as_secs() + u64::from(time.subsec_nanos() > 0))
            .map(|seconds| seconds.max(1))
    }
}

impl Default for HostQuotas {
    /// 4 GiB of memory, 1024 descriptors, any time: a session may play for days.
    fn default() -> Self {
        Self {
            memory: 4 << 30,
            cpu_time: None,
            wall_time: None,
            descriptors: 1024,
        }
    }
}
