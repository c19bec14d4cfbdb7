//! What a user waits for: a file that is looked at, the first picture, the whole file; beside what people
//! use now, where it is installed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};

use super::row::{self, Rows, Setting};
use super::{BenchArgs, Where};
use crate::StreamSelector;

/// Whole decodes of the file, each with a host of its own.
const DECODES: usize = 20;
/// The same with [`UNDER_WAY`] at a time.
const ROUND: usize = 100;
const UNDER_WAY: usize = 4;

/// Prints what `file` takes.
pub(super) async fn measure(args: &BenchArgs, rows: &Rows, file: &Path) -> Result<()> {
    let own = std::env::current_exe().context("this program")?;
    let placement = match args.placement {
        Where::InProcess => "in-process",
        Where::Isolated => "isolated",
        Where::Protected => "protected",
    };
    let own = |words: &[&str]| {
        let mut command = Command::new(&own);
        command
            .args(words)
            .args(["--placement", placement])
            .arg(file);
        command
    };
    let ffmpeg = |before: &[&str], after: &[&str]| {
        let mut command = Command::new("ffmpeg");
        command
            .args(["-v", "quiet", "-nostdin"])
            .args(before)
            .arg("-i")
            .arg(file);
        command
            .args(after)
            .args(["-map", "0:v:0", "-f", "null", "-"]);
        command
    };
    let mut ffprobe = Command::new("ffprobe");
    ffprobe
        .args(["-v", "quiet", "-show_format", "-show_streams"])
        .arg(file);
    let runs = args.runs.max(5);
    let of = Setting::of_host(args.placement, runs.into());
    for (name, mut ours, what, mut theirs) in [
        ("probe", own(&["probe", "--json"]), "ffprobe", ffprobe),
        (
            "first-frame",
            own(&["decode", "--stream", "v:0", "--frames", "1"]),
            "ffmpeg-one-frame",
            ffmpeg(&["-threads", "1"], &["-frames:v", "1"]),
        ),
        (
            "decode",
            own(&["decode", "--stream", "v:0"]),
            "ffmpeg-one-thread",
            ffmpeg(&["-threads", "1"], &[]),
        ),
    ] {
        let Some(value) = milliseconds(&mut ours, runs)? else {
            bail!("{name} of {} does not work", file.display());
        };
        let floor = milliseconds(&mut theirs, runs)?.unwrap_or(0.0);
        rows.print(name, of, (value, "ms"), (what, floor))?;
    }
    decodes(args, rows, file).await
}

/// Whole decodes with a fresh host each, and what the wall costs beside the same in this process.
async fn decodes(args: &BenchArgs, rows: &Rows, file: &Path) -> Result<()> {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..DECODES {
        for (place, times) in [args.placement, Where::InProcess]
            .into_iter()
            .zip(&mut times)
        {
            let start = Instant::now();
            decode(place, file).await?;
            times.push(start.elapsed().as_secs_f64());
        }
    }
    let [there, here] = times.map(|times| 1.0 / row::median(times));
    let of = Setting::of_host(args.placement, DECODES as u64);
    let (value, floor) = ((there, "files/s"), ("in-process", here));
    rows.print("decodes-one-by-one", of, value, floor)?;
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..args.runs {
        for (place, rates) in [args.placement, Where::InProcess]
            .into_iter()
            .zip(&mut rates)
        {
            rates.push(at_once(place, file).await?);
        }
    }
    let [there, here] = rates.map(row::median);
    let of = Setting::of_host(args.placement, ROUND as u64);
    let (value, floor) = ((there, "files/s"), ("in-process", here));
    rows.print("decodes-at-once", of, value, floor)
}

/// Whole decodes a second with several under way.
async fn at_once(place: Where, file: &Path) -> Result<f64> {
    let start = Instant::now();
    futures::stream::iter(0..ROUND)
        .map(|_| {
            let file = file.to_owned();
            // A task each: what a decode does here is done on all processors.
            tokio::spawn(async move { decode(place, &file).await })
        })
        .buffer_unordered(UNDER_WAY)
        .map(|decoded| decoded.map_err(anyhow::Error::from).flatten())
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(ROUND as f64 / start.elapsed().as_secs_f64())
}

async fn decode(place: Where, file: &Path) -> Result<u64> {
    let reader = crate::SourceReaderBuilder::new(crate::registry(), place.placement(), file)
        .open()
        .await?;
    let mut frames = reader.samples(StreamSelector::FIRST_VIDEO).await?;
    let mut count = 0;
    while frames.try_next().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// The median of how long a command takes; `None` if it is not installed or fails.
pub(super) fn milliseconds(command: &mut Command, runs: u32) -> Result<Option<f64>> {
    let mut times = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        let status = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match status {
            Ok(status) if status.success() => times.push(start.elapsed().as_secs_f64() * 1e3),
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(row::median(times)))
}
