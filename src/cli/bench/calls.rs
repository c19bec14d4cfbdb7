//! Calls through handles: to an actor of this process, and through the wall.

use std::time::{Duration, Instant};

use actix::{Actor, Handler};
use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use portcullis_engine::{Component, ContentLimits, Settings};

use super::components::{Echo, Stopwatch, StopwatchControl};
use super::cores::{Cores, pin_process, unpin};
use super::row::{self, Rows, Setting};
use super::{BenchArgs, Where, floor};
use crate::bridge::Context;
use crate::host::{
    ActorHost, CreateObject, CreatedObject, Host, HostConnection, LinkLimits, ProtectedHost,
    init_actor,
};
use crate::{Handle, interface, runtime};

/// Calls one after another.
const SEQUENTIAL: usize = 5_000;
/// Calls one after another, with a pause before each that lets both sides go to sleep.
const PAUSED: usize = 300;
/// Calls of which a window is under way.
const PIPELINED: usize = 200_000;
const WINDOW: usize = 256;

/// Set for a host of an echo.
const ECHO_HOST: &str = "PORTCULLIS_BENCH_ECHO";

interface! {
    /// What an echo answers.
    EchoControl = "bench.EchoControl" { Echo }
}

/// An actor with the least that a handler can do, in actix's own context.
#[derive(Debug)]
struct Echoing;

/// The same in a context of ours.
#[derive(Debug)]
struct Served;

impl Actor for Echoing {
    type Context = actix::Context<Self>;
}

impl Actor for Served {
    type Context = Context<Self>;
}

impl Handler<Echo> for Echoing {
    type Result = crate::Result<u64>;

    fn handle(&mut self, message: Echo, _: &mut Self::Context) -> Self::Result {
        Ok(message.0)
    }
}

impl Handler<Echo> for Served {
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
    let of = |count: usize| Setting::of_host(Where::Isolated, count as u64);
    for (name, cores, pause, count) in [
        ("", Cores::apart(), Duration::ZERO, SEQUENTIAL),
        ("-one-core", Cores::same(), Duration::ZERO, SEQUENTIAL),
        ("-asleep", Cores::apart(), args.interval(), PAUSED),
    ] {
        let count = args.few(count);
        let (mut times, mut floors) = (Vec::new(), Vec::new());
        for _ in 0..args.runs() {
            floors.push(floor::round_trips(cores, count, pause)?);
            let host = start_echo_on(cores).await?;
            let echo = host.root().clone();
            // From a task of the arbiter that holds the link, as the pipeline's own actors call.
            let call = move || async move { sequential(count, pause, || echo.send(Echo(1))).await };
            times.push(runtime::run(call).await?);
        }
        for (label, part) in [("p50", 0.5), ("p99", 0.99)] {
            let value = row::median_quantile(&times, part);
            let floor = row::median_quantile(&floors, part);
            let name = format!("bridged-call{name}-{label}");
            rows.print(&name, of(count), (value, "us"), ("round-trip", floor))?;
        }
    }
    let (count, mut found) = (args.few(PIPELINED), Vec::new());
    for _ in 0..args.runs() {
        let host = start_echo_on(Cores::apart()).await?;
        let echo = host.root().clone();
        let call = move || async move { pipelined(count, || echo.send(Echo(1))).await };
        found.push(runtime::run(call).await?);
    }
    let (value, floor) = (row::median(found), actix_pipelined);
    let (value, floor) = ((value, "calls/s"), ("actix-send-pipelined", floor));
    rows.print("bridged-calls", of(count), value, floor)?;
    components(args, rows, actix_pipelined).await
}

/// The same to a component of a media host, which is behind an actor that looks after it.
async fn components(args: &BenchArgs, rows: &Rows, actix_pipelined: f64) -> Result<()> {
    let (few, many) = (args.few(SEQUENTIAL), args.few(PIPELINED));
    let (mut times, mut floors, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.runs() {
        floors.push(floor::round_trips(Cores::apart(), few, Duration::ZERO)?);
        let host = start_on(args.placement, Cores::apart()).await?;
        let echo = echo_in(&host).await?;
        let call = move || async move {
            let call = || echo.send(Echo(1));
            let times = sequential(few, Duration::ZERO, call).await?;
            Ok((times, pipelined(many, call).await?))
        };
        let (run, rate) = runtime::run(call).await?;
        times.push(run);
        rates.push(rate);
    }
    let of = |count: usize| Setting::of_host(args.placement, count as u64);
    let value = (row::median_quantile(&times, 0.5), "us");
    let floor = ("round-trip", row::median_quantile(&floors, 0.5));
    rows.print("component-call-p50", of(few), value, floor)?;
    let value = (row::median(rates), "calls/s");
    let floor = ("actix-send-pipelined", actix_pipelined);
    rows.print("component-calls", of(many), value, floor)
}

/// Handles to actors of this process beside actix's own address; answers how many calls a second actix makes.
async fn local(args: &BenchArgs, rows: &Rows) -> Result<f64> {
    let (many, most) = (args.few(SEQUENTIAL * 10), args.few(PIPELINED));
    let runs = args.runs();
    unpin();
    pin_process(std::process::id(), Cores::apart().near);
    let local = runtime::run(move || async move {
        let address = Echoing.start();
        let handles = [
            Handle::<EchoControl>::start(Served),
            Handle::<EchoControl>::new(&address),
        ];
        let actix = || async { address.send(Echo(1)).await.map_err(stopped)? };
        let mut found: [(Vec<f64>, Vec<f64>); 3] = Default::default();
        // In turns: what disturbs one disturbs the others.
        for _ in 0..runs {
            let none = Duration::ZERO;
            let times = sequential(many, none, actix).await?;
            found[0].0.push(row::quantile(&times, 0.5));
            found[0].1.push(pipelined(most, actix).await?);
            for (handle, found) in handles.iter().zip(&mut found[1..]) {
                let call = || handle.send(Echo(1));
                let times = sequential(many, none, call).await?;
                found.0.push(row::quantile(&times, 0.5));
                found.1.push(pipelined(most, call).await?);
            }
        }
        Ok(found.map(|(times, rates)| (row::median(times), row::median(rates))))
    });
    let [(actix, actix_pipelined), ours @ ..] = local.await?;
    for (name, (time, rate)) in [("", "s"), ("-in-actix-context", "s-in-actix-context")]
        .into_iter()
        .zip(ours)
    {
        let (of, value) = (Setting::here(many as u64), (time, "us"));
        let name_of_time = format!("local-call{}-p50", name.0);
        rows.print(&name_of_time, of, value, ("actix-send", actix))?;
        let (of, value) = (Setting::here(most as u64), (rate, "calls/s"));
        let floor = ("actix-send-pipelined", actix_pipelined);
        rows.print(&format!("local-call{}", name.1), of, value, floor)?;
    }
    Ok(actix_pipelined)
}

/// A host for as many objects and sessions as are ever measured.
pub(super) async fn start(place: Where) -> Result<HostConnection> {
    let limits = LinkLimits {
        max_objects: 1 << 18,
        ..LinkLimits::default()
    };
    let host = || Host::current().link_limits(limits).max_sessions(128);
    Ok(match place {
        Where::InProcess => HostConnection::in_process(crate::registry()).await?,
        Where::Isolated => host().start().await?,
        Where::Protected => {
            let trust = crate::host::Trust::development();
            ProtectedHost::new(host(), trust).start().await?
        }
    })
}

/// A host, and this process and it on their cores.
pub(super) async fn start_on(place: Where, cores: Cores) -> Result<HostConnection> {
    before_start_on(cores);
    let host = start(place).await?;
    pin_both(host.pid(), cores);
    Ok(host)
}

/// A host of nothing but an actor that answers.
async fn start_echo_on(cores: Cores) -> Result<ActorHost<EchoControl>> {
    before_start_on(cores);
    let host = Host::current().variable(ECHO_HOST, "1");
    let host = host.start_actor::<EchoControl>().await?;
    pin_both(host.pid(), cores);
    Ok(host)
}

/// Where both sides are to have one core, they have had no other from the beginning: that is what they decide by whether to
/// spin.
fn before_start_on(cores: Cores) {
    unpin();
    if cores == Cores::same() && cores != Cores::apart() {
        pin_process(std::process::id(), cores.near);
    }
}

fn pin_both(host: u32, cores: Cores) {
    pin_process(std::process::id(), cores.near);
    pin_process(host, cores.far);
}

/// Makes this program able to host what is measured, as [`host::init`](crate::host::init) does.
pub fn init_host() {
    match std::env::var_os(ECHO_HOST) {
        Some(_) => init_actor(|| Handle::<EchoControl>::start(Served)),
        None => crate::host::init(super::registry()),
    }
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
