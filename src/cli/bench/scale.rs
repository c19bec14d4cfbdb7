//! What many handles, sessions and hosts change: a call, or a sample, must not cost more because there are others.

use std::time::Duration;

use anyhow::{Result, bail};
use futures::future::try_join_all;

use super::calls::{echo_in, sequential, start};
use super::components::Echo;
use super::cores::{Cores, pin_process};
use super::flow::{Flow, Ready};
use super::row::{self, Rows, Setting};
use super::{BenchArgs, Direction, Where};
use crate::runtime;

/// Handles that are open while one is called.
const HANDLES: [usize; 4] = [1, 100, 1_000, 4_000];
/// Sessions in one host that run at once.
const SESSIONS: [usize; 3] = [1, 10, 100];
/// Hosts with a session each that run at once.
const HOSTS: [usize; 3] = [1, 10, 50];
/// Calls by which a handle is measured.
const CALLS: usize = 2_000;
/// Samples of all sessions together.
const SAMPLES: u64 = 400_000;

/// Prints the tables.
pub(super) async fn measure(args: &BenchArgs, rows: &Rows) -> Result<()> {
    if args.placement == Where::InProcess {
        return Ok(());
    }
    handles(args, rows).await?;
    for (name, counts) in [("sessions", SESSIONS), ("hosts", HOSTS)] {
        let mut one = 0.0;
        for count in counts {
            if args.quick && count > 10 {
                continue;
            }
            let cost = sessions(args, count, name == "hosts").await?;
            if count == 1 {
                one = cost;
            }
            let of = Setting {
                size: 188,
                ..Setting::of_host(args.placement, args.few(SAMPLES as usize) as u64)
            };
            let name = format!("cpu-with-{count}-{name}");
            rows.print(&name, of, (cost, "us/sample"), ("with-1", one))?;
        }
    }
    Ok(())
}

/// A call through one handle while so many are open.
async fn handles(args: &BenchArgs, rows: &Rows) -> Result<()> {
    let host = start(args.placement).await?;
    let cores = Cores::apart();
    pin_process(std::process::id(), cores.near);
    pin_process(host.pid(), cores.far);
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

/// Processor time of a sample while so many sessions run, in one host or one each.
async fn sessions(args: &BenchArgs, count: usize, apart: bool) -> Result<f64> {
    let each = (args.few(SAMPLES as usize) / count).max(10) as u64;
    let flow = Flow::new(args.placement, Direction::ToHost, 188);
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
    let spent = Ready::cpu_of_all(&ready).saturating_sub(before);
    Ok(spent.as_secs_f64() * 1e6 / (each * count as u64) as f64)
}
