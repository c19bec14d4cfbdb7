//! Samples through a session: how many, what they cost, how old they are when they arrive.

use anyhow::Result;

use super::cores::Cores;
use super::row::{self, Rows, Setting};
use super::{BenchArgs, Direction, Flow, Measured, Where, floor};

/// Bytes of the large samples: a buffer of sound or packets, and two pictures in 4:2:0.
pub(super) const LARGE: [u32; 3] = [64 << 10, 1280 * 720 * 3 / 2, 1920 * 1080 * 3 / 2];
/// Seconds that a run takes.
const RUN: f64 = 0.5;
/// Samples whose latency is measured.
const PACED: usize = 300;

/// Medians of runs of a flow.
#[derive(Clone, Copy, Debug)]
struct Medians {
    per_second: f64,
    /// `None` where the system does not say.
    cpu_us: Option<f64>,
    count: u64,
}

async fn medians(args: &BenchArgs, flow: Flow) -> Result<Medians> {
    let count = match (args.count, args.quick) {
        (Some(count), _) => count,
        (None, true) => super::flow::PROBE,
        (None, false) => {
            let probe = flow.start(super::flow::PROBE).await?.run().await?;
            // The first guess is of a run that has hardly begun.
            let count = probe.count_for(RUN / 5.0);
            flow.start(count).await?.run().await?.count_for(RUN)
        }
    };
    let mut runs = Vec::new();
    for _ in 0..args.runs() {
        runs.push(flow.start(count).await?.run().await?);
    }
    let cpu: Option<Vec<_>> = runs.iter().map(Measured::cpu_us).collect();
    Ok(Medians {
        per_second: row::median(runs.iter().map(Measured::per_second).collect()),
        cpu_us: cpu.map(row::median),
        count,
    })
}

/// Prints one flow, with one sample in a request and with as many as the sink likes.
pub(super) async fn flow(args: &BenchArgs, rows: &Rows, flow: Flow) -> Result<()> {
    let size = flow.size() as usize;
    let floor = match flow.is_touched() && size >= LARGE[0] as usize {
        true => ("cross-core-hand-over", floor::hand_over(size)?),
        // Handing over each small buffer by itself costs more than what they do here.
        false => ("memory-copy", floor::copy(size)),
    };
    for (name, batch) in [("batch-default", None), ("batch-1", Some(1))] {
        let medians = medians(args, flow.batch(batch)).await?;
        let of = flow.setting(medians.count);
        let per_second = (medians.per_second, "samples/s");
        rows.print(&format!("samples-{name}"), of, per_second, floor)?;
        if let Some(cpu) = medians.cpu_us {
            let (cpu, floor) = ((cpu, "us/sample"), (floor.0, 1e6 / floor.1));
            rows.print(&format!("cpu-{name}"), of, cpu, floor)?;
        }
    }
    Ok(())
}

/// Prints small samples, each way and without a wall.
pub(super) async fn small(args: &BenchArgs, rows: &Rows) -> Result<()> {
    for (place, direction) in ways(args) {
        flow(args, rows, Flow::new(place, direction, 188).touch(true)).await?;
    }
    Ok(())
}

fn ways(args: &BenchArgs) -> impl Iterator<Item = (Where, Direction)> + use<> {
    let wall = [Direction::ToHost, Direction::FromHost].map(|way| (args.placement, way));
    let wall = wall
        .into_iter()
        .filter(|(place, _)| *place != Where::InProcess);
    std::iter::once((Where::InProcess, Direction::ToHost)).chain(wall)
}

/// Prints large samples that are touched: without a wall, as a view of shared memory, and copied out of it.
pub(super) async fn large(args: &BenchArgs, rows: &Rows) -> Result<()> {
    for size in LARGE {
        let hand_over = ("cross-core-hand-over", floor::hand_over(size as usize)?);
        let copy = 1e6 / floor::copy(size as usize);
        let mut in_process = 0.0;
        for (place, direction) in ways(args) {
            let shared = Flow::new(place, direction, size).touch(true);
            let medians_of_shared = medians(args, shared).await?;
            let of = shared.setting(medians_of_shared.count);
            let print = |name: &str, medians: Medians, floor: (&str, f64)| -> Result<()> {
                let of = Setting {
                    count: medians.count,
                    ..of
                };
                let value = (medians.per_second, "samples/s");
                rows.print(&format!("large-{name}"), of, value, floor)?;
                let Some(cpu) = medians.cpu_us else {
                    return Ok(());
                };
                let (cpu, floor) = ((cpu, "us/sample"), (floor.0, 1e6 / floor.1));
                rows.print(&format!("large-{name}-cpu"), of, cpu, floor)
            };
            if place == Where::InProcess {
                in_process = medians_of_shared.per_second;
                print("in-process", medians_of_shared, hand_over)?;
                continue;
            }
            print("shared-view", medians_of_shared, hand_over)?;
            let ratio = (medians_of_shared.per_second, "samples/s");
            rows.print(
                "large-shared-view-here",
                of,
                ratio,
                ("in-process", in_process),
            )?;
            let copied = medians(args, shared.copied_out()).await?;
            print("copied-out", copied, hand_over)?;
            // In time per sample: the lower the better.
            let (time, shared) = (1e6 / copied.per_second, 1e6 / medians_of_shared.per_second);
            let floor = ("shared-view-and-copy", shared + copy);
            rows.print("large-copied-out-time", of, (time, "us/sample"), floor)?;
        }
    }
    Ok(())
}

/// Prints how old paced samples are when they arrive.
pub(super) async fn paced(args: &BenchArgs, rows: &Rows, flow: Flow) -> Result<()> {
    let count = args.few(
        args.count
            .map_or(PACED, |count| count.clamp(20, 2000) as usize),
    ) as u64;
    let (mut wakes, mut latencies) = (Vec::new(), Vec::new());
    for _ in 0..args.runs() {
        wakes.push(floor::paced_wake_up(
            Cores::apart(),
            args.interval(),
            count,
        )?);
        latencies.push(flow.paced(args.interval_us, count).await?);
    }
    let of = flow.setting(count);
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        let (value, floor) = (
            row::median_quantile(&latencies, part),
            row::median_quantile(&wakes, part),
        );
        let name = format!("latency-{name}");
        rows.print(&name, of, (value, "us"), ("paced-wake-up-apart", floor))?;
    }
    Ok(())
}

/// Prints that for small samples, each way and without a wall.
pub(super) async fn paced_all(args: &BenchArgs, rows: &Rows) -> Result<()> {
    for (place, direction) in ways(args) {
        paced(args, rows, Flow::new(place, direction, 188)).await?;
    }
    Ok(())
}
