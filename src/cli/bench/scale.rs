//! What many handles, sessions and hosts change: a call, or a sample, must not cost more because there are others.

use std::time::Duration;

use anyhow::{Result, bail};
use futures::future::try_join_all;

use super::calls::{echo_in, sequential, start, start_on};
use super::components::Echo;
use super::cores::{Cores, unpin};
use super::flow::{Flow, Ready};
use super::row::{self, Rows, Setting};
use super::{BenchArgs, Direction, Part, Where};
use crate::runtime;

/// Handles that are open while one is called.
const HANDLES: [usize; 5] = [1, 100, 1_000, 10_000, 100_000];
/// Sessions in one host that run at once.
const SESSIONS: [usize; 3] = [1, 10, 100];
/// Hosts with a session each that run at once.
const HOSTS: [usize; 3] = [1, 10, 50];
/// Calls by which a handle is measured.
const CALLS: usize = 2_000;
/// Samples of each session: as many however many there are, as each has a start too.
const SAMPLES: usize = 40_000;

/// Prints the tables.
pub(super) async fn measure(args: &BenchArgs, rows: &Rows) -> Result<()> {
    if args.placement == Where::InProcess {
        if args.only == [Part::Scale] {
            bail!("what many hosts change cannot be seen in-process");
        }
        return Ok(());
    }
    handles(args, rows).await?;
    for (name, counts) in [("sessions", SESSIONS), ("hosts", HOSTS)] {
        let mut one = 0.0;
        for count in counts {
            if args.quick && count > 10 {
                continue;
            }
            let Some(cost) = sessions(args, count, name == "hosts").await? else {
                return Ok(());
            };
            if count == 1 {
                one = cost;
            }
            let of = Setting {
                size: 188,
                ..Setting::of_host(args.placement, (args.few(SAMPLES) * count) as u64)
            };
            let name = format!("cpu-with-{count}-{name}");
            rows.print(&name, of, (cost, "us/sample"), ("with-1", one))?;
        }
    }
    Ok(())
}

/// A call through one handle while so many are open.
async fn handles(args: &BenchArgs, rows: &Rows) -> Result<()> {
    let host = start_on(args.placement, Cores::apart()).await?;
    let (mut open, mut one) = (Vec::new(), 0.0);
    for count in HANDLES {
        if args.quick && count > 100 {
            continue;
        }
        while open.len() < count {
            open.push(echo_in(&host).await?);
        }
        let Some(echo) = open.get(count / 2).cloned() else {
            bail!("no handle");
        };
        let calls = args.few(CALLS);
        let call =
            move || async move { sequential(calls, Duration::ZERO, || echo.send(Echo(1))).await };
        let cost = row::quantile(&runtime::run(call).await?, 0.5);
        if count == 1 {
            one = cost;
        }
        let of = Setting::of_host(args.placement, calls as u64);
        let name = format!("call-with-{count}-handles");
        rows.print(&name, of, (cost, "us"), ("with-1", one))?;
    }
    Ok(())
}

/// Processor time of a sample while so many sessions run, in one host or one each; `None` where the system does not say.
async fn sessions(args: &BenchArgs, count: usize, apart: bool) -> Result<Option<f64>> {
    let each = args.few(SAMPLES) as u64;
    let flow = Flow::new(args.placement, Direction::ToHost, 188);
    unpin();
    let shared = match apart {
        true => None,
        false => Some(start(args.placement).await?),
    };
    let mut ready: Vec<Ready> = Vec::new();
    for _ in 0..count {
        ready.push(flow.start_in(shared.clone(), each).await?);
    }
    let before = Ready::cpu_of_all(&ready);
    try_join_all(ready.iter_mut().map(Ready::play)).await?;
    let spent = Ready::cpu_of_all(&ready).since(&before);
    Ok(spent.map(|spent| spent.as_secs_f64() * 1e6 / (each * count as u64) as f64))
}
