//! Much at once: nothing waits for ever, nothing grows, and nobody is kept from his turn.
//!
//! A hundredth of it here; all of it by the command in CONTRIBUTING.md.

use std::sync::atomic::AtomicU64;

use futures::StreamExt;
use futures::stream;

use super::*;

/// More than any window has room for.
const AT_ONCE: usize = 1000;

/// So many of a million: a hundredth, or as many as the environment says.
fn count(variable: &str, whole: u64) -> u64 {
    match std::env::var(variable) {
        Ok(count) => count.parse().expect("a number"),
        Err(_) => whole / 100,
    }
}

/// As `run`, for as long as it takes where more is asked for than usually.
fn run_whole(variable: &str, test: impl Future<Output = ()> + 'static) {
    match std::env::var_os(variable) {
        Some(_) => actix_rt::System::new().block_on(test),
        None => run(test),
    }
}

/// Kibibytes of memory of this process that are in use.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("is readable");
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.map_or(0, |pages: u64| pages * 4)
}

/// Sends so many messages as fast as it may, always more at once than there is room for.
pub(super) async fn flood(desk: &Handle<Desk>, count: u64) -> Result<()> {
    let calls = stream::iter(0..count).map(|n| desk.send(Add(n, 1)).map(move |sum| (n, sum)));
    let mut calls = calls.buffer_unordered(AT_ONCE);
    while let Some((n, sum)) = calls.next().await {
        assert_eq!(sum?, n + 1);
    }
    Ok(())
}

#[test]
fn two_actors_that_flood_each_other_come_to_an_end() {
    let variable = "PORTCULLIS_MESSAGES";
    for narrow in [false, true] {
        // With windows of one each message is a round trip: a tenth of them.
        let count = count(variable, 10_000_000) / if narrow { 10 } else { 1 };
        for over in Over::ALL {
            NARROW.set(narrow);
            let began = std::time::Instant::now();
            run_whole(variable, async move {
                let (near, far, _) = pair(over).await;
                let root = near.root::<Desk>().expect("a root");
                let (mine, _) = desk();
                root.send(Keep(mine)).await.expect("kept");
                let (there, here) =
                    tokio::join!(root.send(Flood(count / 2)), flood(&root, count - count / 2));
                assert_eq!((there, here), (Ok(()), Ok(())));
                drop(root.send(Give).await.expect("given"));
                until_idle(&near, &far).await;
            });
            println!(
                "{count} messages over {over:?}, narrow {narrow}: {:?}",
                began.elapsed()
            );
            NARROW.set(false);
        }
    }
}

#[test]
fn handles_that_come_and_go_leave_nothing() {
    let variable = "PORTCULLIS_EXPORTS";
    let count = count(variable, 1_000_000);
    for over in Over::ALL {
        run_whole(variable, async move {
            let (near, far, seen) = pair(over).await;
            let root = near.root::<Desk>().expect("a root");
            let mine = DeskActor {
                seen: Arc::clone(&seen),
                kept: None,
            };
            let mine = mine.start();
            let mut before = 0;
            for round in 0..10 {
                let cycles = stream::iter(0..count / 10)
                    .map(|_| root.send(Keep(Handle::new(&mine))))
                    .buffer_unordered(32);
                cycles
                    .for_each(|kept| async { kept.expect("is kept") })
                    .await;
                drop(root.send(Give).await.expect("given"));
                until_idle(&near, &far).await;
                if round == 0 {
                    before = resident();
                }
            }
            let grown = resident().saturating_sub(before);
            println!("{count} handles over {over:?}: grown by {grown} KiB");
            // Of the whole, which runs alone.
            assert!(std::env::var_os(variable).is_none() || grown < 8 << 10);
        });
    }
}

#[test]
fn the_order_of_sending_holds_where_many_wait() {
    over_all(|over| async move {
        let (near, _far, seen) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        let mut calls: Vec<_> = (0..500).map(|n| root.send(Note(n))).collect();
        // Some give up while they wait, from the back and in between.
        drop(calls.split_off(450));
        drop(calls.swap_remove(300));
        for call in calls.into_iter().rev() {
            call.await.expect("is noted");
        }
        assert_eq!(root.send(Add(0, 0)).await, Ok(0));
        let notes = std::mem::take(&mut *seen.notes.lock().expect("sound"));
        assert!(notes.is_sorted(), "{notes:?}");
        assert!(notes.iter().filter(|n| **n < 450 && **n != 300).count() == 449);
    });
}

#[test]
fn a_slow_actor_slows_its_senders_and_only_so_much_waits_for_it() {
    over_all(|over| async move {
        let (near, far, _) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        root.send(Stall).await.expect("stalls");
        let window = window() as usize;
        let calls: Vec<_> = (0..1000).map(|n| root.send(Note(n))).collect();
        while far.core.census().incoming < window {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(far.core.census().incoming, window);
        assert_eq!(
            near.core.census().outgoing,
            window,
            "the others wait in their futures"
        );
        // A message that nobody waits for has as much room in line, and no more.
        let told = (0..1000).take_while(|n| root.tell(Note(*n)).is_ok());
        assert_eq!(told.count(), window);
        drop(calls);
    });
}

#[test]
fn deadlines_go_on_while_a_call_waits_for_its_place() {
    over_all(|over| async move {
        let (near, _far, _) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        root.send(Stall).await.expect("stalls");
        let calls: Vec<_> = (0..window()).map(|n| root.send(Note(n.into()))).collect();
        let error = root.send(Late).await.expect_err("is late");
        assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }));
        drop(calls);
    });
}

/// An actor that counts, in whichever context.
pub(super) struct Counting(pub(super) Arc<AtomicU64>);

/// Gives so many handles to the actor itself.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Vec<Handle<Counter>>, deadline_ms = 60_000)]
pub(super) struct Twins(pub(super) u64);

crate::interface! { pub(super) Counter = "test.Counter" { Note, Twins } }

impl Handler<Twins> for Counting {
    type Result = Result<Vec<Handle<Counter>>>;
    fn handle(&mut self, message: Twins, ctx: &mut Self::Context) -> Self::Result {
        let twin = || Handle::new(&ctx.address());
        Ok((0..message.0).map(|_| twin()).collect())
    }
}

impl Handler<Twins> for PlainlyCounting {
    type Result = Result<Vec<Handle<Counter>>>;
    fn handle(&mut self, _: Twins, _: &mut Self::Context) -> Self::Result {
        Ok(Vec::new())
    }
}

impl Actor for Counting {
    type Context = crate::bridge::Context<Self>;
}

impl Handler<Note> for Counting {
    type Result = Result<()>;
    fn handle(&mut self, _: Note, _: &mut Self::Context) -> Self::Result {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

pub(super) struct PlainlyCounting(pub(super) Arc<AtomicU64>);

impl Actor for PlainlyCounting {
    type Context = Context<Self>;
}

impl Handler<Note> for PlainlyCounting {
    type Result = Result<()>;
    fn handle(&mut self, _: Note, _: &mut Self::Context) -> Self::Result {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Floods a counter while another actor of this arbiter is called again and again: it has its turn all the time.
async fn has_its_turn(counter: Handle<Counter>, handled: Arc<AtomicU64>) {
    let flood = if NARROW.get() { 500 } else { 10_000 };
    let (other, _) = desk();
    let flooding = actix_rt::spawn(async move {
        let calls: Vec<_> = (0..flood).map(|n| counter.send(Note(n))).collect();
        for call in calls {
            call.await.expect("is noted");
        }
    });
    let most = actix_rt::spawn(async move {
        let mut most = 0;
        let mut before = 0;
        while before < flood {
            assert_eq!(other.send(Add(1, 1)).await, Ok(2));
            let now = handled.load(Ordering::Relaxed);
            most = most.max(now - before);
            before = now;
        }
        most
    });
    flooding.await.expect("ends");
    let most = most.await.expect("ends");
    // A call takes some turns of the arbiter, and the flooded actor has them as well.
    assert!(most <= 1024, "{most} messages between two turns of another");
}

#[test]
fn a_flooded_actor_leaves_others_their_turn() {
    in_all_windows(|| async {
        let handled = Arc::new(AtomicU64::new(0));
        let counter = Handle::start(Counting(Arc::clone(&handled)));
        has_its_turn(counter, handled).await;
        let handled = Arc::new(AtomicU64::new(0));
        let counter = Handle::new(&PlainlyCounting(Arc::clone(&handled)).start());
        has_its_turn(counter, handled).await;
    });
}

#[test]
fn an_actor_flooded_over_a_link_leaves_others_their_turn() {
    over_all(|over| async move {
        let (near, far) = over.endpoints();
        let handled = Arc::new(AtomicU64::new(0));
        let counter = Handle::<Counter>::start(Counting(Arc::clone(&handled)));
        let (near, _far) = tokio::join!(
            Link::builder()
                .limits(link_limits())
                .interface::<Counter>()
                .connect(near),
            Link::builder()
                .as_host()
                .limits(link_limits())
                .root(counter)
                .connect(far),
        );
        let root = near.expect("connects").root::<Counter>().expect("a root");
        has_its_turn(root, handled).await;
    });
}
