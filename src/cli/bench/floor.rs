//! What the machine itself costs, with as little around it as there can be: a copy of a sample's bytes, handing a buffer
//! to another core, waking a thread that sleeps in `epoll`.

use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::epoll;
use rustix::event::{EventfdFlags, eventfd};

use super::BenchArgs;
use super::cores::{Cores, pin_thread};
use super::files::milliseconds;
use super::row::{self, Rows, Setting};
use super::samples::LARGE;

/// How long a floor is measured.
const WHILE: Duration = Duration::from_millis(100);
/// Bytes that are copied between before the first is copied again: a consumer's working set, not the whole cache.
const WORKING_SET: usize = 4 << 20;
/// Buffers of which one is filled while others wait to be read.
const BUFFERS: usize = 8;

/// Round trips of the wake-up measurement.
const ROUND_TRIPS: usize = 2000;
/// Starts of a program.
const STARTS: u32 = 200;

/// Prints them.
pub(super) fn measure(args: &BenchArgs, rows: &Rows) -> Result<()> {
    for size in std::iter::once(188).chain(LARGE) {
        let of = |count| Setting {
            size,
            touch: true,
            ..Setting::here(count)
        };
        rows.floor("memory-copy", of(1), copy(size as usize), "copies/s")?;
        let handed = hand_over(size as usize)?;
        rows.floor("cross-core-hand-over", of(1), handed, "samples/s")?;
    }
    let (count, interval) = (args.few(ROUND_TRIPS), args.interval());
    for (name, cores) in [("apart", Cores::apart()), ("one-core", Cores::same())] {
        let fast = round_trips(cores, count, Duration::ZERO)?;
        quantiles(rows, &format!("round-trip-{name}"), &fast)?;
        let slow = round_trips(cores, args.few(300), interval)?;
        quantiles(rows, &format!("paced-round-trip-{name}"), &slow)?;
        let wake = paced_wake_up(cores, interval, args.few(300) as u64)?;
        quantiles(rows, &format!("paced-wake-up-{name}"), &wake)?;
    }
    let starts = args.few(STARTS as usize) as u32;
    if let Some(bare) = milliseconds(&mut Command::new("true"), starts)? {
        let of = Setting::here(starts.into());
        rows.floor("start-and-end-of-true", of, bare, "ms")?;
    }
    Ok(())
}

fn quantiles(rows: &Rows, name: &str, times: &[f64]) -> Result<()> {
    let of = Setting::here(times.len() as u64);
    for (part, label) in [(0.5, "p50"), (0.99, "p99")] {
        let value = row::quantile(times, part);
        rows.floor(&format!("{name}-{label}"), of, value, "us")?;
    }
    Ok(())
}

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

/// Samples a second of which one thread writes every byte and another, on another core, reads a word of every 64 bytes, in
/// eight recycled buffers. What a core has written is not in the other's cache: on some machines that costs more than a copy.
pub(super) fn hand_over(size: usize) -> Result<f64> {
    let cores = Cores::apart();
    let (filled, to_read) = std::sync::mpsc::sync_channel::<Vec<u8>>(BUFFERS);
    let (used, to_fill) = std::sync::mpsc::sync_channel::<Vec<u8>>(BUFFERS);
    for _ in 0..BUFFERS {
        used.send(vec![1; size])?;
    }
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            pin_thread(cores.far);
            let mut sum = 0u64;
            for buffer in to_read {
                let words = buffer.chunks(64).filter_map(<[u8]>::first_chunk::<8>);
                sum = words.fold(sum, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
                // The other thread stops first.
                let _ = used.send(buffer);
            }
            black_box(sum)
        });
        let writer = scope.spawn(move || -> Result<f64> {
            pin_thread(cores.near);
            let (mut count, start) = (0u64, Instant::now());
            while start.elapsed() < WHILE * 2 {
                let mut buffer = to_fill.recv()?;
                black_box(&mut buffer).fill(count as u8);
                filled.send(buffer)?;
                count += 1;
            }
            Ok(count as f64 / start.elapsed().as_secs_f64())
        });
        let per_second = joined(writer)?;
        joined(reader)?;
        per_second
    })
}

/// An `eventfd` whose reader sleeps in `epoll`, as an arbiter does.
struct Bell {
    event: OwnedFd,
    epoll: OwnedFd,
}

impl Bell {
    fn new() -> Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&epoll, &event, data, epoll::EventFlags::IN)?;
        Ok(Self { event, epoll })
    }

    fn ring(&self) -> Result<()> {
        rustix::io::write(&self.event, &1u64.to_ne_bytes())?;
        Ok(())
    }

    /// Answers how often it was rung.
    fn wait(&self) -> Result<u64> {
        let mut events = Vec::with_capacity(1);
        while events.is_empty() {
            epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            )?;
        }
        let mut count = [0; 8];
        rustix::io::read(&self.event, &mut count)?;
        Ok(u64::from_ne_bytes(count))
    }
}

/// Round trips in microseconds between two threads that sleep, with a pause before each: a core that has slept long wakes
/// more slowly than one that has just gone to sleep.
pub(super) fn round_trips(cores: Cores, count: usize, pause: Duration) -> Result<Vec<f64>> {
    let (ask, answer) = (Bell::new()?, Bell::new()?);
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| -> Result<()> {
            pin_thread(cores.far);
            for _ in 0..count {
                ask.wait()?;
                answer.ring()?;
            }
            Ok(())
        });
        let ping = scope.spawn(|| -> Result<Vec<f64>> {
            pin_thread(cores.near);
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                if !pause.is_zero() {
                    std::thread::sleep(pause);
                }
                let start = Instant::now();
                ask.ring()?;
                answer.wait()?;
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
            Ok(times)
        });
        let times = joined(ping)?;
        joined(echo)??;
        times
    })
}

/// Microseconds from the wake-up of a sleeping thread to its first instruction, where it is woken once in an interval.
pub(super) fn paced_wake_up(cores: Cores, interval: Duration, count: u64) -> Result<Vec<f64>> {
    let bell = Bell::new()?;
    let (start, rung) = (Instant::now(), AtomicU64::new(0));
    let now = || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| -> Result<Vec<f64>> {
            pin_thread(cores.far);
            let (mut times, mut heard) = (Vec::new(), 0);
            while heard < count {
                // Several where it has slept through an interval: the last one counts.
                heard += bell.wait()?;
                let nanoseconds = now().saturating_sub(rung.load(Ordering::Acquire));
                times.push(nanoseconds as f64 / 1e3);
            }
            Ok(times)
        });
        let ringer = scope.spawn(|| -> Result<()> {
            pin_thread(cores.near);
            for _ in 0..count {
                std::thread::sleep(interval);
                rung.store(now(), Ordering::Release);
                bell.ring()?;
            }
            Ok(())
        });
        joined(ringer)??;
        joined(sleeper)?
    })
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> Result<T> {
    let ended = thread.join();
    ended.ok().context("a measuring thread panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_measured() {
        assert!(copy(188) > 0.0 && hand_over(4096).expect("is measured") > 0.0);
        for cores in [Cores::apart(), Cores::same()] {
            let times = round_trips(cores, 20, Duration::ZERO).expect("is measured");
            assert_eq!(times.len(), 20);
            let times = paced_wake_up(cores, Duration::from_micros(100), 20);
            assert!(times.expect("is measured").len() <= 20);
        }
    }
}
