//! `portcullis bench`: what moving a sample, a message or a file through the wall costs on this machine.
//!
//! Every figure is printed beside a floor of the machine, measured in the same run: a number alone says nothing of another
//! machine.

mod calls;
mod components;
mod cores;
mod files;
mod floor;
mod flow;
mod hosts;
mod row;
mod samples;
mod scale;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};

pub use calls::init_host;
pub use components::registry;
pub use flow::{Flow, Measured};

use self::cores::Pinning;
use self::row::Rows;
use crate::Placement;

/// Measures a pattern source that feeds a null sink through a session, and calls through handles.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Where the hosts' side is
    #[arg(long, value_enum, default_value_t)]
    pub placement: Where,
    /// What to measure; everything, if nothing is named
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART", conflicts_with_all = ["size", "file", "hosts"])]
    pub only: Vec<Part>,
    /// Only one flow of samples of so many bytes, 8 to 268435456
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(8..=256 << 20))]
    pub size: Option<u32>,
    /// Which way the samples of that flow cross the wall
    #[arg(long, value_enum, default_value_t, requires = "size")]
    pub direction: Direction,
    /// The producer of that flow writes every byte, the consumer reads a word of every 64 bytes
    #[arg(long, requires = "size")]
    pub touch: bool,
    /// Samples of a run; by default as many as take about half a second
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Microseconds between two samples of the latency runs
    #[arg(long, value_name = "U", default_value_t = 3000)]
    pub interval_us: u32,
    /// How often flows, latencies and calls are measured; the median is printed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub runs: u32,
    /// A hundredth of the work: shows that everything is measured, and says nothing of the machine
    #[arg(long, conflicts_with_all = ["file", "hosts"])]
    pub quick: bool,
    /// Only how long this file takes: to probe, to the first picture, to decode; beside ffprobe and ffmpeg where they are
    /// installed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["size", "hosts"])]
    pub file: Option<PathBuf>,
    /// Only what hosts cost: their start, from nothing and from a pool, their memory, how soon their death is noticed, and so
    /// many at once
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "200", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub hosts: Option<u32>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

impl BenchArgs {
    /// So many, or the hundredth part in a quick run.
    fn few(&self, count: usize) -> usize {
        match self.quick {
            true => count.div_ceil(100).max(10),
            false => count,
        }
    }

    fn interval(&self) -> Duration {
        Duration::from_micros(self.interval_us.into())
    }

    fn runs(&self) -> u32 {
        if self.quick { 1 } else { self.runs }
    }
}

/// A part of what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// What the machine itself costs
    Floors,
    /// Samples of 188 bytes
    Small,
    /// Samples of 64 KiB and pictures, touched
    Large,
    /// One sample at a time, paced
    Paced,
    /// Calls through handles
    Calls,
    /// What many handles, sessions and hosts change
    Scale,
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
    let rows = Rows::new(args.json);
    if let Some(count) = args.hosts {
        return hosts::measure(args.placement, &rows, count).await;
    }
    if let Some(file) = &args.file {
        return files::measure(&args, &rows, file).await;
    }
    // What is compared runs on the same cores.
    let _pinning = Pinning::begin();
    if let Some(size) = args.size {
        let flow = Flow::new(args.placement, args.direction, size).touch(args.touch);
        samples::flow(&args, &rows, flow).await?;
        return samples::paced(&args, &rows, flow).await;
    }
    let is_asked = |part| args.only.is_empty() || args.only.contains(&part);
    if is_asked(Part::Floors) {
        floor::measure(&args, &rows)?;
    }
    if is_asked(Part::Small) {
        samples::small(&args, &rows).await?;
    }
    if is_asked(Part::Large) {
        samples::large(&args, &rows).await?;
    }
    if is_asked(Part::Paced) {
        samples::paced_all(&args, &rows).await?;
    }
    if is_asked(Part::Calls) {
        calls::measure(&args, &rows).await?;
    }
    if is_asked(Part::Scale) {
        scale::measure(&args, &rows).await?;
    }
    Ok(())
}
