//! Calls through handles: to an actor of this process, and through the wall.

use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler};
use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use portcullis_engine::{Component, ContentLimits, Settings};

use super::components::{Echo, Stopwatch, StopwatchControl};
use super::cores::{Cores, pin_process};
use super::row::{self, Rows, Setting};
use super::{BenchArgs, Where, floor};
use crate::host::{CreateObject, CreatedObject, HostConnection};
use crate::{Handle, interface, runtime};

/// Calls one after another.
const SEQUENTIAL: usize = 5_000;
/// Calls one after another, with a pause before each that lets both sides go to sleep.
const PAUSED: usize = 300;
/// Calls of which a window is under way.
const PIPELINED: usize = 200_000;
const WINDOW: usize = 256;

interface! {
    /// What an echo answers.
    EchoControl = "bench.EchoControl" { Echo }
}

/// An actor with the least that a handler can do.
#[derive(Debug)]
struct Echoing;

impl Actor for Echoing {
    type Context = Context<Self>;
}

impl Handler<Echo> for Echoing {
    type Result = crate::Result<u64>;

    fn handle(&mut self, message: Echo, _: &mut Self::Context) -> Self::Result {
        Ok(message.0)
    }
}

/// Prints what calls cost.
pub(super) async fn measure(args: &BenchArgs, rows: &Rows) -> Result<()> {
    let actix_pipelined = local(args, rows).await?;
    if args.placement == Where::InProcess {
        return Ok(());
    }
    let host = start(args.placement).await?;
    let of = |count: usize| Setting::of_host(args.placement, count as u64);
    for (name, cores, pause, count) in [
        ("", Cores::apart(), Duration::ZERO, SEQUENTIAL),
        ("-one-core", Cores::same(), Duration::ZERO, SEQUENTIAL),
        ("-asleep", Cores::apart(), args.interval(), PAUSED),
    ] {
        let count = args.few(count);
        let floor = floor::round_trips(cores, count, pause)?;
        pin_process(std::process::id(), cores.near);
        pin_process(host.pid(), cores.far);
        let echo = echo_in(&host).await?;
        // From a task of the arbiter that holds the link, as the pipeline's own actors call.
        let call = move || async move { sequential(count, pause, || echo.send(Echo(1))).await };
        let times = runtime::run(call).await?;
        for (label, part) in [("p50", 0.5), ("p99", 0.99)] {
            let (value, floor) = (row::quantile(&times, part), row::quantile(&floor, part));
            let name = format!("bridged-call{name}-{label}");
            rows.print(&name, of(count), (value, "us"), ("round-trip", floor))?;
        }
    }
    let cores = Cores::apart();
    pin_process(std::process::id(), cores.near);
    pin_process(host.pid(), cores.far);
    let (echo, count) = (echo_in(&host).await?, args.few(PIPELINED));
    let call = move || async move { pipelined(count, || echo.send(Echo(1))).await };
    let (value, floor) = (runtime::run(call).await?, actix_pipelined);
    let value = (value, "calls/s");
    rows.print(
        "bridged-calls",
        of(count),
        value,
        ("actix-send-pipelined", floor),
    )
}

/// A handle to an actor of this process beside actix's own address; answers how many calls a second actix makes.
async fn local(args: &BenchArgs, rows: &Rows) -> Result<f64> {
    let (many, most) = (args.few(SEQUENTIAL * 10), args.few(PIPELINED));
    let runs = args.runs();
    let local = runtime::run(move || async move {
        let address = Echoing.start();
        let handle = Handle::<EchoControl>::new(&address);
        let raw = || address.send(Echo(1));
        let mut found: [Vec<f64>; 4] = Default::default();
        // In turns: what disturbs one disturbs the other.
        for _ in 0..runs {
            let actix = || async { raw().await.map_err(stopped)? };
            let none = Duration::ZERO;
            let times = sequential(many, none, actix).await?;
            found[0].push(row::quantile(&times, 0.5));
            let times = sequential(many, none, || handle.send(Echo(1))).await?;
            found[1].push(row::quantile(&times, 0.5));
            found[2].push(pipelined(most, actix).await?);
            found[3].push(pipelined(most, || handle.send(Echo(1))).await?);
        }
        Ok(found.map(row::median))
    });
    let [actix, handle, actix_pipelined, handle_pipelined] = local.await?;
    let (of, value) = (Setting::here(many as u64), (handle, "us"));
    rows.print("local-call-p50", of, value, ("actix-send", actix))?;
    let (of, value) = (Setting::here(most as u64), (handle_pipelined, "calls/s"));
    let floor = ("actix-send-pipelined", actix_pipelined);
    rows.print("local-calls", of, value, floor)?;
    Ok(actix_pipelined)
}

pub(super) async fn start(place: Where) -> Result<HostConnection> {
    Ok(match place {
        Where::InProcess => HostConnection::in_process(crate::registry()).await?,
        Where::Isolated => crate::host::Host::current().start().await?,
        Where::Protected => {
            let trust = crate::host::Trust::development();
            let host = crate::host::ProtectedHost::new(crate::host::Host::current(), trust);
            host.start().await?
        }
    })
}

/// An actor in the host that answers.
pub(super) async fn echo_in(host: &HostConnection) -> Result<Handle<StopwatchControl>> {
    let request = CreateObject {
        class: Stopwatch::INFO.class.to_owned(),
        settings: Settings::default(),
        opener: None,
        limits: ContentLimits::default(),
    };
    match host.pmp_host().send(request).await? {
        CreatedObject::Transform(_, control) => {
            Ok(control.context("the echo's messages")?.typed()?)
        }
        _ => bail!("not a transform"),
    }
}

/// Microseconds of each of so many calls, one after another.
pub(super) async fn sequential<F: Future<Output = crate::Result<u64>>>(
    count: usize,
    pause: Duration,
    call: impl Fn() -> F,
) -> crate::Result<Vec<f64>> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let start = Instant::now();
        call().await?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

/// Calls a second with a window of them under way.
async fn pipelined<F: Future<Output = crate::Result<u64>>>(
    count: usize,
    call: impl Fn() -> F,
) -> crate::Result<f64> {
    let rounds = count.div_ceil(WINDOW);
    let start = Instant::now();
    for _ in 0..rounds {
        try_join_all((0..WINDOW).map(|_| call())).await?;
    }
    Ok((rounds * WINDOW) as f64 / start.elapsed().as_secs_f64())
}

fn stopped(_: actix::MailboxError) -> crate::Error {
    crate::Error::new(crate::ErrorKind::ActorStopped)
}
