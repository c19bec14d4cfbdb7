//! Samples through a session: the same code as `portcullis bench`, with criterion's statistics.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use portcullis::cli::bench::{Direction, Flow, Where, registry};

/// Samples that one iteration of criterion stands for.
const CHUNK: u64 = 200;

fn main() {
    portcullis::host::init(registry());
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(10)
        .measurement_time(Duration::from_secs(3));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut group = criterion.benchmark_group("sample_throughput");
    for (place, name) in [
        (Where::InProcess, "in-process"),
        (Where::Isolated, "isolated"),
    ] {
        for (direction, way) in [
            (Direction::ToHost, "to-host"),
            (Direction::FromHost, "from-host"),
        ] {
            if place == Where::InProcess && direction == Direction::FromHost {
                continue;
            }
            for (size, touch) in [(188, false), (64 << 10, true), (1_382_400, true)] {
                for batch in [Some(1), None] {
                    let flow = Flow::new(place, direction, size).touch(touch).batch(batch);
                    let batch = batch.map_or("default".to_owned(), |batch| batch.to_string());
                    group.throughput(Throughput::Elements(CHUNK));
                    group.bench_function(format!("{name}/{way}/{size}/batch-{batch}"), |bencher| {
                        bencher.iter_custom(|iterations| {
                            let count = iterations.saturating_mul(CHUNK);
                            let run = async { flow.start(count).await?.run().await };
                            runtime.block_on(run).expect("the flow runs").wall
                        });
                    });
                }
            }
        }
    }
    group.finish();
    criterion.final_summary();
}
