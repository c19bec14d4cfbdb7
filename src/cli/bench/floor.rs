//! What the machine itself costs: a copy of a sample's bytes, and waking a thread on another core.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, eventfd};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How long a floor is measured.
const WHILE: Duration = Duration::from_millis(100);
/// Bytes that are copied between before the first is copied again: a consumer's working set, not the whole cache.
const WORKING_SET: usize = 4 << 20;
/// Round trips of the wake-up measurement.
const ROUND_TRIPS: usize = 2000;

/// A copy of a sample's bytes on one core.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    pub(super) per_second: f64,
    pub(super) gigabytes_per_second: f64,
}

/// Copies samples of `size` bytes.
pub(super) fn copy(size: usize) -> Result<Copy> {
    let slots = (WORKING_SET / size).clamp(2, 4096);
    let from = vec![1u8; size * slots];
    let mut into = vec![0u8; size * slots];
    let (mut count, start) = (0u64, Instant::now());
    while start.elapsed() < WHILE {
        for (from, into) in from.chunks_exact(size).zip(into.chunks_exact_mut(size)) {
            into.copy_from_slice(black_box(from));
            black_box(into);
            count += 1;
        }
    }
    let per_second = count as f64 / start.elapsed().as_secs_f64();
    Ok(Copy {
        per_second,
        gigabytes_per_second: per_second * size as f64 / 1e9,
    })
}

/// Round trips in microseconds between two threads, on two cores where there are two, that sleep on an `eventfd` each.
pub(super) fn wake_up() -> Result<Vec<f64>> {
    let make = || eventfd(0, EventfdFlags::CLOEXEC).context("an eventfd");
    let (ask, answer) = (make()?, make()?);
    let allowed = sched_getaffinity(None).context("the cores of this process")?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect();
    let pin = |core: Option<&usize>| {
        let mut set = CpuSet::new();
        if let Some(core) = core {
            set.set(*core);
            // Only makes the figure steadier.
            let _ = sched_setaffinity(None, &set);
        }
    };
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| -> Result<()> {
            pin(cores.get(1));
            for _ in 0..ROUND_TRIPS {
                rustix::io::read(&ask, &mut [0u8; 8])?;
                rustix::io::write(&answer, &1u64.to_ne_bytes())?;
            }
            Ok(())
        });
        let ping = scope.spawn(|| -> Result<Vec<f64>> {
            pin(cores.first());
            let mut times = Vec::with_capacity(ROUND_TRIPS);
            for _ in 0..ROUND_TRIPS {
                let start = Instant::now();
                rustix::io::write(&ask, &1u64.to_ne_bytes())?;
                rustix::io::read(&answer, &mut [0u8; 8])?;
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
            Ok(times)
        });
        let times = ping
            .join()
            .map_err(|_| anyhow::anyhow!("the pinging thread panicked"))?;
        echo.join()
            .map_err(|_| anyhow::anyhow!("the echoing thread panicked"))??;
        times
    })
}
