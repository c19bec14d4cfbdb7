//! What hosts cost: their start, their memory, and how soon it is noticed that one died.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Where;
use super::files::milliseconds;
use super::row::{self, Rows, Setting};
use crate::host::{
    AwaitHostUnlocked, Host, HostConnection, HostPool, LockHost, ProtectedHost, Trust,
};

/// Starts one after another.
const STARTS: usize = 200;
/// Hosts taken from a pool, with time for it to fill again between them.
const TAKEN: usize = 50;
/// Hosts that are killed.
const KILLED: usize = 50;
const POOL: usize = 4;

/// Prints what hosts of this placement cost, and `count` of them at once.
pub(super) async fn measure(place: Where, rows: &Rows, count: u32) -> Result<()> {
    if place == Where::InProcess {
        bail!("there are no hosts in-process");
    }
    let start = Instant::now();
    let first = start_one(place).await?;
    let first_start = elapsed(start);
    let bare = milliseconds(&mut Command::new("true"), STARTS as u32)?.unwrap_or(0.0);
    let floor = "start-and-end-of-true";
    let one = Setting::of_host(place, 1);
    rows.print("host-start-first", one, (first_start, "ms"), (floor, bare))?;
    memory(rows, "host-memory", one, std::slice::from_ref(&first))?;
    drop(first);

    let mut times = Vec::new();
    for _ in 0..STARTS {
        let start = Instant::now();
        let host = start_one(place).await?;
        times.push(elapsed(start));
        drop(host);
    }
    let quantiles = |name, times: &[f64]| quantiles(rows, name, place, times, (floor, bare));
    quantiles("host-start", &times)?;
    quantiles("host-from-pool", &from_pool(place).await?)?;
    quantiles("host-death-noticed", &deaths(place).await?)?;
    at_once(place, rows, count, bare).await
}

async fn start_one(place: Where) -> Result<HostConnection> {
    Ok(match place {
        Where::Protected => protected().start().await?,
        _ => Host::current().start().await?,
    })
}

fn protected() -> ProtectedHost {
    ProtectedHost::new(Host::current(), Trust::development())
}

async fn from_pool(place: Where) -> Result<Vec<f64>> {
    let pool = match place {
        Where::Protected => HostPool::protected(protected(), POOL).await?,
        _ => HostPool::isolated(Host::current(), POOL).await?,
    };
    let mut times = Vec::new();
    for _ in 0..TAKEN {
        let mut again = tokio::time::interval(Duration::from_millis(5));
        while pool.ready() < POOL {
            again.tick().await;
        }
        let start = Instant::now();
        let host = pool.take().await?;
        times.push(elapsed(start));
        drop(host);
    }
    Ok(times)
}

/// From the kill to the failure of a call that was waiting.
async fn deaths(place: Where) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..KILLED {
        let host = start_one(place).await?;
        host.pmp_host().send(LockHost).await?;
        let waiting = host.pmp_host().send(AwaitHostUnlocked);
        let start = Instant::now();
        host.kill();
        if waiting.await.is_ok() {
            bail!("a killed host answered");
        }
        times.push(elapsed(start));
    }
    Ok(times)
}

/// The usual soft limit is for programs that use `select`, and a host costs its application some descriptors.
fn raise_descriptor_limit() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).context("raise the limit of open files")
}

async fn at_once(place: Where, rows: &Rows, count: u32, bare: f64) -> Result<()> {
    raise_descriptor_limit()?;
    let start = Instant::now();
    let mut hosts = Vec::new();
    let before = descriptors()?;
    for _ in 0..count {
        hosts.push(start_one(place).await?);
    }
    let each = elapsed(start) / f64::from(count);
    let all = Setting::of_host(place, count.into());
    let floor = ("start-and-end-of-true", bare);
    rows.print("hosts-at-once-start", all, (each, "ms/host"), floor)?;
    memory(rows, "hosts-at-once-memory", all, &hosts)?;
    let each = (descriptors()?.saturating_sub(before)) as f64 / f64::from(count);
    let value = (each, "of ours/host");
    rows.print("hosts-at-once-descriptors", all, value, ("one", 1.0))
}

/// Proportional memory of a host, beside its program's size on disk.
fn memory(rows: &Rows, name: &str, of: Setting, hosts: &[HostConnection]) -> Result<()> {
    let mut sum = 0.0;
    for host in hosts {
        let path = format!("/proc/{}/smaps_rollup", host.pid());
        // The memory of a host is not readable by others of its user.
        let Ok(text) = std::fs::read_to_string(&path) else {
            eprintln!("portcullis: {name}: only root may read {path}");
            return Ok(());
        };
        let line = text.lines().find(|line| line.starts_with("Pss:"));
        let value = line.and_then(|line| line.split_whitespace().nth(1));
        sum += value.context("no Pss line")?.parse::<f64>()?;
    }
    let program = std::fs::metadata("/proc/self/exe")?.len() as f64 / f64::from(1 << 20);
    let each = sum / 1024.0 / hosts.len() as f64;
    rows.print(name, of, (each, "MiB"), ("program-on-disk", program))
}

fn descriptors() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

fn quantiles(
    rows: &Rows,
    name: &str,
    place: Where,
    times: &[f64],
    floor: (&str, f64),
) -> Result<()> {
    let of = Setting::of_host(place, times.len() as u64);
    for (part, label) in [(0.5, "p50"), (0.99, "p99")] {
        let value = (row::quantile(times, part), "ms");
        rows.print(&format!("{name}-{label}"), of, value, floor)?;
    }
    Ok(())
}

fn elapsed(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
