//! iceoryx2 measured as Portcullis measures itself: a writer and a reader in two processes on two pinned cores, the reader
//! polls without sleeping, the writer fills every byte and the reader reads a word of every 64.
//!
//!     iceoryx-peer COUNT SIZE...      one JSON object a line, for each size and each direction

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write, stdin};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use iceoryx2::prelude::*;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

/// Samples that wait for the reader at most.
const BUFFER: usize = 512;
/// Samples before the measurement.
const WARM: u64 = 1000;

type Service = ipc::Service;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["read", name, count] => {
            let ready = || Ok(println!("ready"));
            let found = read(name, count.parse()?, ready)?;
            println!("{found}");
        }
        ["write", name, count, size] => {
            let found = write(name, count.parse()?, size.parse()?, || {
                line(&mut stdin().lock())
            })?;
            println!("{found}");
            // What was sent lives as long as its sender.
            line(&mut stdin().lock())?;
        }
        [count, ref sizes @ ..] if !sizes.is_empty() => {
            for size in sizes {
                for direction in ["to-host", "from-host"] {
                    let row = measure(count.parse()?, size.parse()?, direction)?;
                    println!("{row}");
                }
            }
        }
        _ => bail!("usage: iceoryx-peer COUNT SIZE..."),
    }
    Ok(())
}

/// One row. The program itself is on the near core, the other process on the far one.
fn measure(count: u64, size: usize, direction: &str) -> Result<Value> {
    let cores: Vec<usize> = {
        let set = sched_getaffinity(None)?;
        (0..CpuSet::MAX_CPU)
            .filter(|core| set.is_set(*core))
            .collect()
    };
    let near = *cores.first().context("a core")?;
    let far = cores.get(1).copied().unwrap_or(near);
    let name = format!("peer-{}-{size}-{direction}", std::process::id());
    let program = std::env::current_exe()?;
    let (count_text, size_text) = (count.to_string(), size.to_string());
    let other = match direction {
        "to-host" => vec!["read", &name, &count_text],
        _ => vec!["write", &name, &count_text, &size_text],
    };
    pin(far);
    let mut child = Command::new(program)
        .args(other)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    pin(near);
    let mut input = child.stdin.take().context("an input")?;
    let mut output = BufReader::new(child.stdout.take().context("an output")?);
    let both = match direction {
        "to-host" => {
            write(&name, count, size, || line(&mut output)).map(|mine| (mine, line_of(&mut output)))
        }
        _ => read(&name, count, || Ok(input.write_all(b"ready\n")?))
            .map(|mine| (mine, line_of(&mut output))),
    };
    if both.is_err() {
        child.kill()?;
    }
    drop(input);
    child.wait()?;
    let mut all = CpuSet::new();
    cores.iter().for_each(|core| all.set(*core));
    sched_setaffinity(None, &all)?;
    let (mine, theirs) = both?;
    let theirs = serde_json::from_str::<Value>(&theirs?)?;
    let seconds = match direction {
        "to-host" => &theirs["seconds"],
        _ => &mine["seconds"],
    };
    let seconds = seconds.as_f64().context("seconds")?;
    let cpu = |of: &Value| of["cpu"].as_f64().unwrap_or(0.0);
    Ok(json!({
        "bench": "iceoryx2", "direction": direction, "size": size, "count": count, "touch": true,
        "value": count as f64 / seconds, "unit": "samples/s",
        "cpu_us": (cpu(&mine) + cpu(&theirs)) * 1e6 / (count + WARM) as f64,
    }))
}

/// Waits for a line of the other process.
fn line(from: &mut impl BufRead) -> Result<()> {
    line_of(from).map(drop)
}

fn line_of(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    Ok(line)
}

fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    // Only makes figures steadier.
    let _ = sched_setaffinity(None, &set);
}

fn service(
    node: &Node<Service>,
    name: &str,
) -> Result<iceoryx2::service::port_factory::publish_subscribe::PortFactory<Service, [u8], ()>> {
    let name = name.try_into().ok().context("a service's name")?;
    node.service_builder(&name)
        .publish_subscribe::<[u8]>()
        .max_publishers(1)
        .max_subscribers(1)
        .enable_safe_overflow(false)
        .subscriber_max_buffer_size(BUFFER)
        .open_or_create()
        .ok()
        .context("a service")
}

/// Sends so many samples and the warm-up when the reader is ready.
fn write(name: &str, count: u64, size: usize, ready: impl FnOnce() -> Result<()>) -> Result<Value> {
    let node = NodeBuilder::new()
        .create::<Service>()
        .ok()
        .context("a node")?;
    let service = service(&node, name)?;
    let publisher = service
        .publisher_builder()
        .initial_max_slice_len(size)
        .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
        .create()
        .ok()
        .context("a publisher")?;
    ready()?;
    let before = cpu();
    for number in 0..count + WARM {
        let sample = publisher.loan_slice_uninit(size).ok().context("a slot")?;
        let sample = sample.write_from_fn(|_| number as u8);
        sample.send().ok().context("a send")?;
    }
    let spent = cpu() - before;
    Ok(json!({ "cpu": spent }))
}

fn read(name: &str, count: u64, ready: impl FnOnce() -> Result<()>) -> Result<Value> {
    let node = NodeBuilder::new()
        .create::<Service>()
        .ok()
        .context("a node")?;
    let service = service(&node, name)?;
    let subscriber = service
        .subscriber_builder()
        .buffer_size(BUFFER)
        .create()
        .ok()
        .context("a subscriber")?;
    ready()?;
    let (mut seen, mut sum, mut start, mut before) = (0, 0u64, Instant::now(), 0.0);
    while seen < count + WARM {
        let Some(sample) = subscriber.receive().ok().context("a receive")? else {
            std::hint::spin_loop();
            continue;
        };
        if seen == 0 {
            before = cpu();
        }
        if seen == WARM {
            start = Instant::now();
        }
        let words = sample
            .payload()
            .chunks(64)
            .filter_map(<[u8]>::first_chunk::<8>);
        sum = words.fold(sum, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
        seen += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    black_box(sum);
    Ok(json!({ "seconds": seconds, "cpu": cpu() - before }))
}

/// Seconds of processor time of this process.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanoseconds = text
        .split(' ')
        .next()
        .and_then(|word| word.parse::<f64>().ok());
    nanoseconds.unwrap_or(0.0) / 1e9
}
