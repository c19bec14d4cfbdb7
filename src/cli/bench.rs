//! `portcullis bench`: what moving a sample, a message or a file through the wall costs on this machine.
//!
//! Every figure is printed beside a floor of the machine, measured in the same run: a number alone says nothing of another
//! machine.

mod calls;
mod components;
mod files;
mod floor;
mod flow;
mod hosts;
mod row;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};

pub use components::registry;
pub use flow::{Flow, Measured};

use self::row::Rows;
use crate::Placement;

/// Measures a pattern source that feeds a null sink through a session, and calls through handles.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Where the session runs
    #[arg(long, value_enum, default_value_t)]
    pub placement: Where,
    /// Which way samples cross the wall
    #[arg(long, value_enum, default_value_t)]
    pub direction: Direction,
    /// Bytes of a sample, 8 to 268435456
    #[arg(long, value_name = "BYTES", default_value_t = 188, value_parser = clap::value_parser!(u32).range(8..=256 << 20))]
    pub size: u32,
    /// Samples of a run; by default as many as take about half a second
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Microseconds between two samples of the latency run
    #[arg(long, value_name = "U", default_value_t = 3000)]
    pub interval_us: u32,
    /// The producer writes every byte, the consumer reads a word of every 64 bytes
    #[arg(long)]
    pub touch: bool,
    /// How often each figure is measured; the median is printed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub runs: u32,
    /// Also how long this file takes: to probe, to the first picture, to decode; beside ffprobe and ffmpeg where they are
    /// installed
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Only what hosts cost: their start, from nothing and from a pool, their memory, how soon their death is noticed, and so
    /// many at once
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "200", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub hosts: Option<u32>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Where the session runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Where {
    /// In this process
    InProcess,
    /// In a sandboxed host process
    #[default]
    Isolated,
    /// In a host with the complete sandbox, whose program is not verified here
    Protected,
}

impl Where {
    /// The placement of that name.
    pub fn placement(self) -> Placement {
        match self {
            Self::InProcess => Placement::InProcess,
            Self::Isolated => Placement::isolated(),
            Self::Protected => Placement::protected(crate::host::Trust::development()),
        }
    }
}

/// Which way samples cross the wall. In-process there is no wall and the two are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// Source in the application, sink in the host
    #[default]
    ToHost,
    /// Source in the host, sink in the application
    FromHost,
}

/// Runs the command.
///
/// # Errors
/// When a host cannot start or is lost, or nobody reads the output any more.
pub async fn run(args: BenchArgs) -> Result<()> {
    let mut rows = Rows::new(&args);
    if let Some(count) = args.hosts {
        return hosts::measure(args.placement, &mut rows, count).await;
    }
    let size = args.size as usize;
    let (floor, floor_value) = match args.touch {
        true => ("cross-core-hand-over", floor::hand_over(size)?),
        false => ("memory-copy", floor::copy(size)),
    };
    let flow = Flow::new(args.placement, args.direction, args.size).touch(args.touch);
    for (name, batch) in [("batch-1", Some(1)), ("batch-default", None)] {
        let flow = flow.batch(batch);
        let count = match args.count {
            Some(count) => count,
            None => {
                let probe = flow.start(flow::PROBE).await?.run().await?;
                // The first guess is of a run that has hardly begun.
                let count = probe.count_for(0.1);
                flow.start(count).await?.run().await?.count_for(0.5)
            }
        };
        let mut runs = Vec::new();
        for _ in 0..args.runs {
            runs.push(flow.start(count).await?.run().await?);
        }
        let median = |of: fn(&Measured) -> f64| row::median(runs.iter().map(of).collect());
        rows.set_count(count);
        let print = |what, value, unit, floor_value| {
            rows.print(&format!("{what}-{name}"), value, unit, floor, floor_value)
        };
        print(
            "samples",
            median(Measured::per_second),
            "samples/s",
            floor_value,
        )?;
        let gigabytes = floor_value * size as f64 / 1e9;
        print(
            "bytes",
            median(Measured::gigabytes_per_second),
            "GB/s",
            gigabytes,
        )?;
        print(
            "cpu",
            median(Measured::cpu_us),
            "us/sample",
            1e6 / floor_value,
        )?;
    }
    let count = args.count.unwrap_or(300).clamp(20, 2000);
    let interval = Duration::from_micros(args.interval_us.into());
    let wake = floor::paced_wake_up(interval, count)?;
    let paced = flow.paced(args.interval_us, count).await?;
    rows.set_count(paced.len() as u64);
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        let (value, floor) = (row::quantile(&paced, part), row::quantile(&wake, part));
        rows.print(
            &format!("latency-{name}"),
            value,
            "us",
            "paced-wake-up",
            floor,
        )?;
    }
    calls::measure(&args, &mut rows, row::quantile(&floor::wake_up()?, 0.5)).await?;
    match &args.file {
        Some(file) => files::measure(&args, &mut rows, file).await,
        None => Ok(()),
    }
}
