//! The machine's monotonic clock, which all processes of one machine share.

use portcullis_engine::clock::SystemTime100ns;
use rustix::time::{ClockId, clock_gettime};

/// Now, by `CLOCK_MONOTONIC`.
pub fn now() -> SystemTime100ns {
    let now = clock_gettime(ClockId::Monotonic);
    SystemTime100ns::from_ticks(now.tv_sec * 10_000_000 + now.tv_nsec / 100)
}
