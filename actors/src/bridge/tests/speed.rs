//! What calls cost, printed and never judged: for whoever works on the call path.
//!
//! `cargo test --release -p portcullis-actors --lib bridge::tests::speed -- --ignored --nocapture --test-threads 1`

use std::sync::mpsc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream;
use rustix::time::{ClockId, clock_gettime};

use super::*;

const PIPELINED: usize = 1_000_000;
const SEQUENTIAL: usize = 20_000;

/// Nanoseconds that this thread has computed.
fn computed() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

async fn pipelined<F: Future<Output = Result<u64>>>(
    count: usize,
    window: usize,
    call: impl Fn(u64) -> F,
) -> (f64, f64) {
    let (start, before) = (Instant::now(), computed());
    let answers = (0..count).map(|n| call(n as u64));
    let mut answers = stream::iter(answers).buffer_unordered(window);
    while let Some(answer) = answers.next().await {
        answer.expect("answered");
    }
    let count = count as f64;
    (
        count / start.elapsed().as_secs_f64(),
        (computed() - before) as f64 / count,
    )
}

async fn sequential<F: Future<Output = Result<u64>>>(count: usize, call: impl Fn(u64) -> F) -> f64 {
    let mut times = Vec::with_capacity(count);
    for n in 0..count {
        let start = Instant::now();
        call(n as u64).await.expect("answered");
        times.push(start.elapsed().as_nanos() as f64 / 1e3);
    }
    times.sort_by(f64::total_cmp);
    times[count / 2]
}

#[test]
#[ignore = "measures"]
fn calls() {
    actix_rt::System::new().block_on(async {
        let (local, seen) = desk();
        let actor = DeskActor { seen, kept: None }.start();
        let raw = |n| {
            let request = actor.send(Add(n, 1));
            async move { request.await.expect("lives") }
        };
        let through = |n| local.send(Add(n, 1));
        for _ in 0..2 {
            let (raw_p50, handle_p50) = (
                sequential(SEQUENTIAL * 10, raw).await,
                sequential(SEQUENTIAL * 10, through).await,
            );
            println!("local call p50: actix {raw_p50:.3} us, handle {handle_p50:.3} us");
            for window in [64, 256] {
                let (raw_rate, raw_cpu) = pipelined(PIPELINED, window, raw).await;
                let (rate, cpu) = pipelined(PIPELINED, window, through).await;
                println!(
                    "local pipelined {window}: actix {raw_rate:.0}/s {raw_cpu:.0} ns, handle {rate:.0}/s {cpu:.0} ns"
                );
            }
        }

        let (near, far) = Endpoint::unix_pair().expect("a socket pair");
        let arbiter = actix_rt::Arbiter::new();
        let (ask, asked) = mpsc::channel();
        arbiter.spawn_fn(move || {
            actix_rt::spawn(async move {
                let (root, _) = desk();
                let link = connect(far, 1, Some(root.into_any())).await;
                ask.send(()).expect("waits");
                drop(link.lost().wait().await);
            });
        });
        let near = connect(near, 0, None).await;
        asked.recv().expect("connected");
        let far_computed = || {
            let (answer, computed_there) = mpsc::channel();
            arbiter.spawn(async move {
                answer.send(computed()).expect("waits");
            });
            computed_there.recv().expect("answers")
        };
        let root = near.root::<Desk>().expect("a root");
        let through = |n| root.send(Add(n, 1));
        for _ in 0..3 {
            let p50 = sequential(SEQUENTIAL, through).await;
            println!("bridged call p50: {p50:.2} us");
            for window in [16, 64, 256] {
                let before = far_computed();
                let (rate, cpu) = pipelined(PIPELINED / 2, window, through).await;
                let far = (far_computed() - before) as f64 / (PIPELINED / 2) as f64;
                println!("bridged pipelined {window}: {rate:.0}/s, {cpu:.0} ns here, {far:.0} ns there");
            }
        }
        near.close();
        arbiter.stop();
    });
}
