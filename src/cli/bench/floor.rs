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

/// Copies of `size` bytes that one core makes in a second.
pub(super) fn copy(size: usize) -> f64 {
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
    count as f64 / start.elapsed().as_secs_f64()
}

/// Samples a second of which one thread writes every byte and another reads a word of every 64 bytes, in eight recycled
/// buffers. What a core has written is not in the other's cache: on some machines that costs much more than a copy.
pub(super) fn hand_over(size: usize) -> Result<f64> {
    let (filled, to_read) = std::sync::mpsc::sync_channel::<Vec<u8>>(8);
    let (used, to_fill) = std::sync::mpsc::sync_channel::<Vec<u8>>(8);
    for _ in 0..8 {
        used.send(vec![1; size])?;
    }
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut sum = 0u64;
            for buffer in to_read {
                let words = buffer.chunks(64).filter_map(<[u8]>::first_chunk::<8>);
                sum = words.fold(sum, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
                // The other thread stops first.
                let _ = used.send(buffer);
            }
            black_box(sum)
        });
        let (mut count, start) = (0u64, Instant::now());
        while start.elapsed() < WHILE * 2 {
            let mut buffer = to_fill.recv()?;
            black_box(&mut buffer).fill(count as u8);
            filled.send(buffer)?;
            count += 1;
        }
        let per_second = count as f64 / start.elapsed().as_secs_f64();
        drop(filled);
        let read = reader.join();
        read.map_err(|_| anyhow::anyhow!("the reading thread panicked"))?;
        Ok(per_second)
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

/// How long after a write to its `eventfd` a sleeping thread on another core runs, in microseconds, when the writer comes
/// once in an interval: a core that has slept long wakes more slowly than one that has just gone to sleep.
pub(super) fn paced_wake_up(interval: Duration, count: u64) -> Result<Vec<f64>> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC).context("an eventfd")?;
    let written = std::sync::Mutex::new(Instant::now());
    let lock = || {
        written
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    };
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| -> Result<Vec<f64>> {
            let mut times = Vec::new();
            for _ in 0..count {
                rustix::io::read(&wake, &mut [0u8; 8])?;
                let now = Instant::now();
                times.push((now - *lock()).as_secs_f64() * 1e6);
            }
            Ok(times)
        });
        for _ in 0..count {
            std::thread::sleep(interval);
            *lock() = Instant::now();
            rustix::io::write(&wake, &1u64.to_ne_bytes())?;
        }
        let times = sleeper.join();
        times.map_err(|_| anyhow::anyhow!("the sleeping thread panicked"))?
    })
}
