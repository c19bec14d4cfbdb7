//! What calls cost, printed and never judged: for whoever works on the call path. The command is in CONTRIBUTING.md.

use std::sync::atomic::AtomicU64;
use std::sync::mpsc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream;
use rustix::time::{ClockId, clock_gettime};

use super::load::{Counter, Counting, PlainlyCounting, Twins};
use super::*;

const PIPELINED: usize = 1_000_000;
const SEQUENTIAL: usize = 20_000;

/// Nanoseconds that this thread has computed.
fn computed() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Calls a second with a window of them under way, and nanoseconds of computing for each.
async fn pipelined<F: Future<Output = Result<()>>>(
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

/// Median microseconds of a call.
async fn sequential<F: Future<Output = Result<()>>>(count: usize, call: impl Fn(u64) -> F) -> f64 {
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
fn local_calls() {
    actix_rt::System::new().block_on(async {
        let count = Arc::new(AtomicU64::new(0));
        let plain = PlainlyCounting(Arc::clone(&count)).start();
        let raw = |n| {
            let request = plain.send(Note(n));
            async move { request.await.expect("lives") }
        };
        let to_plain = Handle::<Counter>::new(&plain);
        let ours = Handle::<Counter>::start(Counting(count));
        for _ in 0..3 {
            println!(
                "local call p50: actix {:.3} us, handle {:.3} us, handle to actix's context {:.3} us",
                sequential(SEQUENTIAL * 10, raw).await,
                sequential(SEQUENTIAL * 10, |n| ours.send(Note(n))).await,
                sequential(SEQUENTIAL * 10, |n| to_plain.send(Note(n))).await,
            );
            for window in [16, 64, 256] {
                let (actix, actix_ns) = pipelined(PIPELINED, window, raw).await;
                let (handle, handle_ns) = pipelined(PIPELINED, window, |n| ours.send(Note(n))).await;
                println!(
                    "local pipelined {window}: actix {actix:.0}/s {actix_ns:.0} ns, handle {handle:.0}/s {handle_ns:.0} ns"
                );
            }
        }
    });
}

/// A counter behind a link, on another thread.
struct Far {
    root: Handle<Counter>,
    near: Link,
    arbiter: actix_rt::Arbiter,
}

impl Far {
    async fn connect(over: Over, limits: LinkLimits) -> Self {
        let (near, far) = over.endpoints();
        let arbiter = actix_rt::Arbiter::new();
        arbiter.spawn_fn(move || {
            actix_rt::spawn(async move {
                let counter = Handle::<Counter>::start(Counting(Arc::default()));
                let link = Link::builder().as_host().limits(limits).root(counter);
                let link = link.connect(far).await.expect("connects");
                drop(link.lost().wait().await);
            });
        });
        let builder = Link::builder().limits(limits).interface::<Counter>();
        let near = builder.connect(near).await.expect("connects");
        let root = near.root::<Counter>().expect("a root");
        Self {
            root,
            near,
            arbiter,
        }
    }

    /// Nanoseconds that its thread has computed.
    fn computed(&self) -> u64 {
        let (answer, computed_there) = mpsc::channel();
        self.arbiter.spawn(async move {
            answer.send(computed()).expect("waits");
        });
        computed_there.recv().expect("answers")
    }

    async fn measure(&self, what: &str, handle: &Handle<Counter>, windows: &[usize]) {
        let call = |n| handle.send(Note(n));
        let p50 = sequential(SEQUENTIAL, call).await;
        println!("{what}: call p50 {p50:.2} us");
        for window in windows {
            let before = self.computed();
            let (rate, here) = pipelined(PIPELINED / 2, *window, call).await;
            let there = (self.computed() - before) as f64 / (PIPELINED / 2) as f64;
            println!(
                "{what}: pipelined {window}: {rate:.0}/s, {here:.0} ns here, {there:.0} ns there"
            );
        }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.near.close();
        self.arbiter.stop();
    }
}

fn limits(object_window: u32, max_objects: u32) -> LinkLimits {
    LinkLimits {
        max_frame: 16 << 20,
        object_window,
        max_objects,
        ..LinkLimits::default()
    }
}

#[test]
#[ignore = "measures"]
fn calls_over_a_link() {
    actix_rt::System::new().block_on(async {
        for object_window in [64, 256] {
            for over in [Over::Socket, Over::Rings] {
                let far = Far::connect(over, limits(object_window, 4096)).await;
                let what = format!("{over:?}, object window {object_window}");
                for _ in 0..2 {
                    far.measure(&what, &far.root, &[16, 64, 256]).await;
                }
            }
        }
    });
}

#[test]
#[ignore = "measures"]
fn calls_beside_open_handles() {
    actix_rt::System::new().block_on(async {
        let far = Far::connect(Over::Socket, limits(64, 1 << 20)).await;
        let mut open = Vec::new();
        for count in [1, 10, 100, 1_000, 10_000, 100_000] {
            let twins = far.root.send(Twins(count - open.len() as u64)).await;
            open.extend(twins.expect("are given"));
            let some = open.get(open.len() / 2).expect("is open").clone();
            far.measure(&format!("{count} open handles"), &some, &[64])
                .await;
        }
    });
}
