//! What a link costs over each of its carriers: a frame there and back, and frames one way, beside what waking a thread
//! costs on this machine. The two ends are two processes, on two processors and on one.
//!
//! `nice cargo run --release -p portcullis-transport --example link_speed [SECONDS]`

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_transport::{Carrier, Endpoint, FrameHeader, Hello, Link, LinkConfig, Spin};
use rustix::event::epoll;
use rustix::event::{EventfdFlags, eventfd};
use rustix::thread::{CpuSet, sched_setaffinity};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Bytes of a frame's body.
const BODY: usize = 168;
/// The frame that asks for an answer.
const ASKS: u16 = 1;

const CARRIERS: [(&str, Carrier, Spin); 3] = [
    ("socket", Carrier::Socket, Spin::Never),
    ("rings, no spin", Carrier::Rings, Spin::Never),
    ("rings, adaptive spin", Carrier::Rings, Spin::Adaptive),
];

fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("peer") {
        let core = arguments.next().ok_or("no core")?.parse()?;
        let kind: usize = arguments.next().ok_or("no kind")?.parse()?;
        return peer(core, kind);
    }
    let span = Duration::from_secs_f64(first.map_or(Ok(1.0), |text| text.parse())?);
    let cores = std::thread::available_parallelism()?.get();
    for (name, far) in [("two processors", 1), ("one processor", 0)] {
        if far >= cores {
            continue;
        }
        println!("{name}");
        let floor = eventfd_and_epoll(far, span)?;
        println!("  {:22} {floor}", "eventfd and epoll");
        for (kind, (name, ..)) in CARRIERS.into_iter().enumerate() {
            pin(0)?;
            let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
            let mut child = Command::new(std::env::current_exe()?)
                .args(["peer", &far.to_string(), &kind.to_string()])
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .spawn()?;
            let line = on_runtime(measure(ours.into(), kind, far > 0, span))?;
            println!("  {name:22} {line}");
            child.wait()?;
        }
    }
    Ok(())
}

fn pin(core: usize) -> Outcome {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

fn on_runtime<T>(future: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

async fn connect(socket: OwnedFd, kind: usize) -> Outcome<Link> {
    let (_, carrier, spin) = *CARRIERS.get(kind).ok_or("no such kind")?;
    let config = LinkConfig {
        carrier,
        spin,
        ..LinkConfig::default()
    };
    let endpoint = Endpoint::unix(socket).config(config);
    Ok(endpoint.connect(Hello::default()).await?)
}

/// Runs on one processor from here on. A link looks once whether there is another: so it is told of it before, if it has
/// its peer there.
async fn connect_on(core: usize, is_apart: bool, socket: OwnedFd, kind: usize) -> Outcome<Link> {
    if is_apart {
        let mut all = CpuSet::new();
        (0..CpuSet::MAX_CPU).for_each(|core| all.set(core));
        sched_setaffinity(None, &all)?;
    } else {
        pin(core)?;
    }
    let link = connect(socket, kind).await?;
    pin(core)?;
    Ok(link)
}

/// Answers what asks, and reads everything else.
fn peer(core: usize, kind: usize) -> Outcome {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    on_runtime(async move {
        let mut link = connect_on(core, core > 0, socket, kind).await?;
        tokio::task::spawn_local(link.writer);
        let mut frames = Vec::new();
        while link.receiver.receive(&mut frames).await.is_ok() {
            for frame in frames.drain(..) {
                if frame.header.kind == ASKS {
                    link.sender.push(frame.header, &[&frame.body], Vec::new())?;
                }
            }
        }
        Ok(())
    })
}

async fn measure(socket: OwnedFd, kind: usize, is_apart: bool, span: Duration) -> Outcome<String> {
    let mut link = connect_on(0, is_apart, socket, kind).await?;
    tokio::task::spawn_local(link.writer);
    let body = [7; BODY];
    let asks = FrameHeader {
        kind: ASKS,
        ..FrameHeader::default()
    };
    let mut frames = Vec::new();
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < span {
        let sent = Instant::now();
        link.sender.push(asks, &[&body], Vec::new())?;
        link.receiver.receive(&mut frames).await?;
        times.push(sent.elapsed());
        frames.clear();
    }
    let mut line = told(&mut times);
    for batch in [1, 8, 64] {
        let start = Instant::now();
        let mut count = 0u64;
        while start.elapsed() < span {
            for _ in 0..64 / batch {
                for _ in 0..batch {
                    link.sender
                        .push(FrameHeader::default(), &[&body], Vec::new())?;
                }
                // The writer's turn.
                tokio::task::yield_now().await;
            }
            count += 64;
            link.sender.queued_at_most(64 << 10).await?;
        }
        link.sender.push(asks, &[&body], Vec::new())?;
        link.receiver.receive(&mut frames).await?;
        frames.clear();
        let rate = count as f64 / start.elapsed().as_secs_f64() / 1e6;
        line += &format!("  {batch}: {rate:.2} M/s");
    }
    Ok(line)
}

fn told(times: &mut [Duration]) -> String {
    times.sort();
    let at = |percent: usize| {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(index).copied().unwrap_or_default().as_secs_f64() * 1e6
    };
    // On a busy machine the low one says what a link can do, and the others what it got.
    format!(
        "p10 {:6.2} us, p50 {:6.2} us, p99 {:6.2} us",
        at(10),
        at(50),
        at(99)
    )
}

/// Two threads that wake each other, with nothing in between.
fn eventfd_and_epoll(far: usize, span: Duration) -> Outcome<String> {
    let made = || eventfd(0, EventfdFlags::NONBLOCK);
    let (ping, pong) = (made()?, made()?);
    let (there, back) = (ping.try_clone()?, pong.try_clone()?);
    let other = std::thread::spawn(move || {
        pin(far).map_err(|error| error.to_string())?;
        let served = || -> Outcome {
            let waits = watch(&there)?;
            while wait(&waits, &there)? != u64::MAX - 1 {
                rustix::io::write(&back, &1u64.to_ne_bytes())?;
            }
            Ok(())
        };
        served().map_err(|error| error.to_string())
    });
    pin(0)?;
    let waits = watch(&pong)?;
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < span {
        let sent = Instant::now();
        rustix::io::write(&ping, &1u64.to_ne_bytes())?;
        wait(&waits, &pong)?;
        times.push(sent.elapsed());
    }
    rustix::io::write(&ping, &(u64::MAX - 1).to_ne_bytes())?;
    other.join().map_err(|_| "the other thread panicked")??;
    Ok(told(&mut times))
}

fn watch(event: &OwnedFd) -> Outcome<OwnedFd> {
    let waits = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let data = epoll::EventData::new_u64(0);
    epoll::add(&waits, event, data, epoll::EventFlags::IN)?;
    Ok(waits)
}

fn wait(waits: &OwnedFd, event: &OwnedFd) -> Outcome<u64> {
    let mut events = Vec::with_capacity(1);
    epoll::wait(waits, rustix::buffer::spare_capacity(&mut events), None)?;
    let mut value = [0; 8];
    rustix::io::read(event, &mut value)?;
    Ok(u64::from_ne_bytes(value))
}
