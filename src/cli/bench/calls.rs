//! Calls through handles: to an actor of this process, and through the wall.

use std::time::Instant;

use actix::{Actor, Context, Handler};
use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use portcullis_engine::{Component, ContentLimits, Settings};

use super::components::{Echo, Stopwatch, StopwatchControl};
use super::row::{self, Rows};
use super::{BenchArgs, Where};
use crate::host::{CreateObject, CreatedObject, HostConnection};
use crate::{Handle, interface, runtime};

/// Calls one after another.
const SEQUENTIAL: usize = 5_000;
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

/// Prints what calls cost, beside `wake`, the round trip of two threads in microseconds.
pub(super) async fn measure(args: &BenchArgs, rows: &mut Rows, wake: f64) -> Result<()> {
    let local = runtime::run(|| async {
        let address = Echoing.start();
        let handle = Handle::<EchoControl>::new(&address);
        let raw = || address.send(Echo(1));
        let sequential_actix =
            sequential(SEQUENTIAL * 10, || async { raw().await.map_err(stopped)? }).await?;
        let sequential_handle = sequential(SEQUENTIAL * 10, || handle.send(Echo(1))).await?;
        let pipelined_actix = pipelined(|| async { raw().await.map_err(stopped)? }).await?;
        let pipelined_handle = pipelined(|| handle.send(Echo(1))).await?;
        Ok([
            sequential_actix,
            sequential_handle,
            pipelined_actix,
            pipelined_handle,
        ])
    })
    .await?;
    let [
        sequential_actix,
        sequential_handle,
        pipelined_actix,
        pipelined_handle,
    ] = local;
    rows.set_count(SEQUENTIAL as u64 * 10);
    let (actix, handle) = (
        row::quantile(&sequential_actix, 0.5),
        row::quantile(&sequential_handle, 0.5),
    );
    rows.print("local-call-p50", handle, "us", "actix-send", actix)?;
    rows.set_count(PIPELINED as u64);
    rows.print(
        "local-calls",
        pipelined_handle[0],
        "calls/s",
        "actix-send-pipelined",
        pipelined_actix[0],
    )?;
    if args.placement == Where::InProcess {
        return Ok(());
    }
    let host = crate::host::Host::current().start().await?;
    let control = echo_in(&host).await?;
    // From a task of the arbiter that holds the link, as the pipeline's own actors call.
    let bridged = runtime::run(move || async move {
        let sequential = sequential(SEQUENTIAL, || control.send(Echo(1))).await?;
        let pipelined = pipelined(|| control.send(Echo(1))).await?;
        Ok([sequential, pipelined])
    })
    .await?;
    rows.set_count(SEQUENTIAL as u64);
    rows.print(
        "bridged-call-p50",
        row::quantile(&bridged[0], 0.5),
        "us",
        "cross-core-round-trip",
        wake,
    )?;
    rows.print(
        "bridged-call-p99",
        row::quantile(&bridged[0], 0.99),
        "us",
        "cross-core-round-trip",
        wake,
    )?;
    rows.set_count(PIPELINED as u64);
    rows.print(
        "bridged-calls",
        bridged[1][0],
        "calls/s",
        "actix-send-pipelined",
        pipelined_actix[0],
    )
}

async fn echo_in(host: &HostConnection) -> Result<Handle<StopwatchControl>> {
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
async fn sequential<F: Future<Output = crate::Result<u64>>>(
    count: usize,
    call: impl Fn() -> F,
) -> crate::Result<Vec<f64>> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        call().await?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

/// Calls a second with a window of them under way.
async fn pipelined<F: Future<Output = crate::Result<u64>>>(
    call: impl Fn() -> F,
) -> crate::Result<Vec<f64>> {
    let start = Instant::now();
    for _ in 0..PIPELINED / WINDOW {
        try_join_all((0..WINDOW).map(|_| call())).await?;
    }
    let count = PIPELINED / WINDOW * WINDOW;
    Ok(vec![count as f64 / start.elapsed().as_secs_f64()])
}

fn stopped(_: actix::MailboxError) -> crate::Error {
    crate::Error::new(crate::ErrorKind::ActorStopped)
}
