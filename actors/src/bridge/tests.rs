//! Two ends of a link in one process: what a handle promises, whichever side its actor is on and whatever carries the link.

mod calls;
mod connect;
mod endings;
mod golden;
mod heartbeat;
mod hostile;
mod life;
mod limits;
mod load;
mod memory;
mod pressure;
mod reading;
mod speed;

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler};
use futures::FutureExt;
use portcullis_derive::Remote;
use portcullis_engine::error::HostExit;
use portcullis_engine::{Error, ErrorKind, MediaTime, Payload, Result, Sample};
use portcullis_transport::{Carrier, Endpoint, LinkConfig, LinkLimits, TransportError};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::link::Census;
use super::{AnyHandle, FileDescriptor, Handle, Link, PayloadTerms, ReplyFuture};

crate::interface! { Desk = "test.Desk" {
    Add, Keep, Give, Wait, Late, Show, Lend, Fresh, Peek, WaitWith, Several, Stash, Stall, Note, Trap, Mute, Untyped, Flood,
} }

#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = u64)]
struct Add(u64, u64);

/// Keeps a handle.
#[derive(Serialize, Deserialize, Remote)]
struct Keep(Handle<Desk>);

/// Gives the kept handle back.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Option<Handle<Desk>>)]
struct Give;

/// Waits for ever.
#[derive(Serialize, Deserialize, Remote)]
#[remote(no_deadline)]
struct Wait;

/// Waits longer than its caller does.
#[derive(Serialize, Deserialize, Remote)]
#[remote(deadline_ms = 50)]
struct Late;

/// Gives a descriptor away.
#[derive(Serialize, Deserialize, Remote)]
struct Lend(FileDescriptor);

/// Shows a sample to the far side, which sends it back.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Sample, deadline_ms = 15_000)]
struct Show(Sample);

/// Makes another desk.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Handle<Desk>)]
struct Fresh;

/// Gives the kept handle and keeps it.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Option<Handle<Desk>>)]
struct Peek;

/// Waits for ever with what it was given.
#[derive(Serialize, Deserialize, Remote)]
#[remote(no_deadline)]
struct WaitWith(Option<Handle<Desk>>, Option<Sample>);

/// Gives so many samples of so many bytes, which takes a busy machine its time.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Vec<Sample>, deadline_ms = 15_000)]
struct Several(usize, usize);

/// Keeps samples.
#[derive(Serialize, Deserialize, Remote)]
struct Stash(Vec<Sample>);

/// Sends so many messages to the kept desk, many at a time.
#[derive(Serialize, Deserialize, Remote)]
#[remote(no_deadline)]
struct Flood(u64);

/// From now on the actor reads nothing.
#[derive(Serialize, Deserialize, Remote)]
struct Stall;

/// Notes a number. Many may wait for a busy machine.
#[derive(Serialize, Deserialize, Remote)]
#[remote(deadline_ms = 15_000)]
struct Note(u64);

/// Panics when it is read.
#[derive(Serialize, Remote)]
struct Trap;

impl<'de> Deserialize<'de> for Trap {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("a message that cannot be read");
    }
}

/// Panics when it is written.
#[derive(Deserialize, Remote)]
struct Mute;

impl Serialize for Mute {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("a message that cannot be written");
    }
}

/// Makes another desk and does not say what it is.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = AnyHandle)]
struct Untyped;

#[derive(Default)]
struct Seen {
    stash: Mutex<Vec<Sample>>,
    notes: Mutex<Vec<u64>>,
    waits_dropped: AtomicUsize,
    stopped: AtomicUsize,
    changed: Notify,
}

struct DeskActor {
    seen: Arc<Seen>,
    kept: Option<Handle<Desk>>,
}

impl Actor for DeskActor {
    type Context = Context<Self>;
    fn stopped(&mut self, _: &mut Self::Context) {
        self.seen.stopped.fetch_add(1, Ordering::SeqCst);
        self.seen.changed.notify_one();
    }
}

impl Handler<Add> for DeskActor {
    type Result = Result<u64>;
    fn handle(&mut self, message: Add, _: &mut Self::Context) -> Self::Result {
        message
            .0
            .checked_add(message.1)
            .ok_or_else(|| Error::invalid_argument("too large"))
    }
}

impl Handler<Keep> for DeskActor {
    type Result = Result<()>;
    fn handle(&mut self, message: Keep, _: &mut Self::Context) -> Self::Result {
        self.kept = Some(message.0);
        Ok(())
    }
}

impl Handler<Give> for DeskActor {
    type Result = Result<Option<Handle<Desk>>>;
    fn handle(&mut self, _: Give, _: &mut Self::Context) -> Self::Result {
        Ok(self.kept.take())
    }
}

impl Handler<Lend> for DeskActor {
    type Result = Result<()>;
    fn handle(&mut self, message: Lend, _: &mut Self::Context) -> Self::Result {
        message.0.take().map(drop).ok_or_else(Error::cancelled)
    }
}

impl Handler<Late> for DeskActor {
    type Result = ReplyFuture<()>;
    fn handle(&mut self, _: Late, ctx: &mut Self::Context) -> Self::Result {
        self.handle(Wait, ctx)
    }
}

impl Handler<Wait> for DeskActor {
    type Result = ReplyFuture<()>;
    fn handle(&mut self, _: Wait, _: &mut Self::Context) -> Self::Result {
        struct Dropped(Arc<Seen>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.waits_dropped.fetch_add(1, Ordering::SeqCst);
                self.0.changed.notify_one();
            }
        }
        let dropped = Dropped(Arc::clone(&self.seen));
        ReplyFuture::new(async move {
            std::future::pending::<()>().await;
            drop(dropped);
            Ok(())
        })
    }
}

impl Handler<Show> for DeskActor {
    type Result = Result<Sample>;
    fn handle(&mut self, message: Show, _: &mut Self::Context) -> Self::Result {
        Ok(message.0)
    }
}

impl Handler<Fresh> for DeskActor {
    type Result = Result<Handle<Desk>>;
    fn handle(&mut self, _: Fresh, _: &mut Self::Context) -> Self::Result {
        Ok(desk_of(&self.seen))
    }
}

impl Handler<Untyped> for DeskActor {
    type Result = Result<AnyHandle>;
    fn handle(&mut self, _: Untyped, _: &mut Self::Context) -> Self::Result {
        Ok(desk_of(&self.seen).into_any())
    }
}

impl Handler<Peek> for DeskActor {
    type Result = Result<Option<Handle<Desk>>>;
    fn handle(&mut self, _: Peek, _: &mut Self::Context) -> Self::Result {
        Ok(self.kept.clone())
    }
}

impl Handler<WaitWith> for DeskActor {
    type Result = ReplyFuture<()>;
    fn handle(&mut self, _: WaitWith, ctx: &mut Self::Context) -> Self::Result {
        self.handle(Wait, ctx)
    }
}

impl Handler<Several> for DeskActor {
    type Result = Result<Vec<Sample>>;
    fn handle(&mut self, message: Several, _: &mut Self::Context) -> Self::Result {
        let sample = || Sample::new(MediaTime::ZERO, MediaTime::ZERO, vec![0; message.1]);
        Ok((0..message.0).map(|_| sample()).collect())
    }
}

impl Handler<Stash> for DeskActor {
    type Result = Result<()>;
    fn handle(&mut self, message: Stash, _: &mut Self::Context) -> Self::Result {
        self.seen.stash.lock().expect("sound").extend(message.0);
        Ok(())
    }
}

impl Handler<Flood> for DeskActor {
    type Result = ReplyFuture<()>;
    fn handle(&mut self, message: Flood, _: &mut Self::Context) -> Self::Result {
        let kept = self.kept.clone().expect("a desk was kept");
        ReplyFuture::new(async move { load::flood(&kept, message.0).await })
    }
}

impl Handler<Stall> for DeskActor {
    type Result = Result<()>;
    fn handle(&mut self, _: Stall, ctx: &mut Self::Context) -> Self::Result {
        ctx.wait(actix::fut::wrap_future(std::future::pending()));
        Ok(())
    }
}

impl Handler<Note> for DeskActor {
    type Result = Result<()>;
    fn handle(&mut self, message: Note, _: &mut Self::Context) -> Self::Result {
        self.seen.notes.lock().expect("sound").push(message.0);
        Ok(())
    }
}

impl Handler<Trap> for DeskActor {
    type Result = Result<()>;
    fn handle(&mut self, _: Trap, _: &mut Self::Context) -> Self::Result {
        Ok(())
    }
}

impl Handler<Mute> for DeskActor {
    type Result = Result<()>;
    fn handle(&mut self, _: Mute, _: &mut Self::Context) -> Self::Result {
        Ok(())
    }
}

fn desk() -> (Handle<Desk>, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    (desk_of(&seen), seen)
}

fn desk_of(seen: &Arc<Seen>) -> Handle<Desk> {
    let actor = DeskActor {
        seen: Arc::clone(seen),
        kept: None,
    };
    Handle::new(&actor.start())
}

/// What carries a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// A socket, with descriptors and shared memory.
    Socket,
    /// Rings in shared memory, and all that a socket has.
    Rings,
    /// Nothing but bytes.
    Bytes,
}

impl Over {
    const ALL: [Self; 3] = [Self::Socket, Self::Rings, Self::Bytes];

    fn endpoints(self) -> (Endpoint, Endpoint) {
        let carrier = match self {
            Self::Socket => Carrier::Socket,
            Self::Rings => Carrier::Rings,
            Self::Bytes => return Endpoint::memory_pair(64 << 10),
        };
        let config = LinkConfig {
            carrier,
            ..LinkConfig::default()
        };
        let (near, far) = Endpoint::unix_pair().expect("a socket pair");
        (near.config(config), far.config(config))
    }
}

/// One end of a link.
async fn connect(endpoint: Endpoint, host_id: u64, root: Option<AnyHandle>) -> Link {
    connect_on(PayloadTerms::default(), endpoint, host_id, root).await
}

/// One end of a link whose payloads are kept on these terms.
async fn connect_on(
    terms: PayloadTerms,
    endpoint: Endpoint,
    host_id: u64,
    root: Option<AnyHandle>,
) -> Link {
    let why = |end: TransportError| {
        async move {
            match end {
                TransportError::Protocol { .. } => {
                    Error::new(ErrorKind::Protocol(end.to_string().into()))
                }
                _ => Error::new(ErrorKind::HostLost(HostExit {
                    last_words: vec![end.to_string()],
                    ..HostExit::default()
                })),
            }
        }
        .boxed_local()
    };
    let builder = Link::builder().limits(link_limits()).any_root(root);
    let builder = builder.payloads(terms).diagnose(Box::new(why));
    let builder = match host_id {
        0 => builder,
        _ => builder.as_host(),
    };
    builder.connect(endpoint).await.expect("connects")
}

/// Both ends of a link; the far one has a desk as its root.
async fn pair(over: Over) -> (Link, Link, Arc<Seen>) {
    let (near, far) = over.endpoints();
    let (root, seen) = desk();
    let (near, far) = tokio::join!(
        connect(near, 0, None),
        connect(far, 1, Some(root.into_any()))
    );
    (near, far, seen)
}

thread_local! {
    /// Whether windows are as small as they can be: one call at a time.
    static NARROW: Cell<bool> = const { Cell::new(false) };
}

/// The window of new handles to actors here.
pub(super) fn window() -> u32 {
    match NARROW.get() {
        true => 1,
        false => super::gate::WINDOW,
    }
}

/// What links here want.
pub(super) fn link_limits() -> LinkLimits {
    let limits = LinkLimits {
        max_frame: 16 << 20,
        ..LinkLimits::default()
    };
    match NARROW.get() {
        true => LinkLimits {
            call_window: 1,
            object_window: 1,
            ..limits
        },
        false => limits,
    }
}

/// Runs a test for every kind of link, with usual windows and with windows of one.
fn over_all<F: Future<Output = ()> + 'static>(test: impl Fn(Over) -> F) {
    over_each(&Over::ALL, &[false, true], test);
}

/// Runs a test for every kind of link that carries descriptors.
fn over_descriptors<F: Future<Output = ()> + 'static>(test: impl Fn(Over) -> F) {
    over_each(&[Over::Socket, Over::Rings], &[false, true], test);
}

fn over_each<F: Future<Output = ()> + 'static>(
    links: &[Over],
    windows: &[bool],
    test: impl Fn(Over) -> F,
) {
    for over in links {
        for narrow in windows {
            NARROW.set(*narrow);
            run(test(*over));
            NARROW.set(false);
        }
    }
}

/// Waits until both sides hold nothing but what they began with: the root, no call, no slot.
async fn until_idle(near: &Link, far: &Link) {
    loop {
        let idle = Census {
            imports: 1,
            ..Census::default()
        };
        let far_idle = Census {
            exports: 1,
            ..Census::default()
        };
        if near.core.census() == idle && far.core.census() == far_idle {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Runs a test with usual windows and with windows of one.
fn in_all_windows<F: Future<Output = ()> + 'static>(test: impl Fn() -> F) {
    for narrow in [false, true] {
        NARROW.set(narrow);
        run(test());
        NARROW.set(false);
    }
}

fn run(test: impl Future<Output = ()> + 'static) {
    actix_rt::System::new().block_on(async {
        tokio::time::timeout(Duration::from_secs(20), test)
            .await
            .expect("within the deadline");
    });
}

async fn until(seen: &Seen, reached: impl Fn(&Seen) -> bool) {
    while !reached(seen) {
        seen.changed.notified().await;
    }
}

#[test]
fn a_call_is_answered_with_a_value_or_an_error() {
    over_all(|over| async move {
        let (near, _far, _) = pair(over).await;
        let desk = near.root::<Desk>().expect("a root");
        assert_eq!(desk.send(Add(2, 3)).await, Ok(5));
        let error = desk.send(Add(u64::MAX, 1)).await.expect_err("overflows");
        assert_eq!(
            error.kind(),
            &ErrorKind::InvalidArgument("too large".into())
        );
        let many = (0..2000).map(|n| desk.send(Add(n, 1)));
        let sums = futures::future::join_all(many).await;
        assert!(
            sums.into_iter()
                .enumerate()
                .all(|(n, sum)| sum == Ok(n as u64 + 1))
        );
    });
}

#[test]
fn a_handle_inside_of_a_message_works_on_the_other_side_and_comes_home_as_itself() {
    over_all(|over| async move {
        let (near, far, _) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        let (mine, seen) = desk();
        root.send(Keep(mine.clone())).await.expect("kept");
        let back = root.send(Give).await.expect("given").expect("was kept");
        assert_eq!(back, mine, "the original, not a proxy of a proxy");
        assert!(!back.is_remote());

        // The far side calls through the handle that it was given.
        root.send(Keep(root.clone())).await.expect("kept");
        let home = root.send(Give).await.expect("given").expect("was kept");
        assert!(home.is_remote());
        assert_eq!(home.send(Add(1, 1)).await, Ok(2));
        drop((mine, back));
        until(&seen, |seen| seen.stopped.load(Ordering::SeqCst) == 1).await;
        drop(far);
    });
}

#[test]
fn dropping_a_call_drops_what_the_far_handler_returned() {
    over_all(|over| async move {
        let (near, _far, seen) = pair(over).await;
        let desk = near.root::<Desk>().expect("a root");
        let waiting = desk.send(Wait);
        assert_eq!(desk.send(Add(0, 1)).await, Ok(1));
        assert_eq!(seen.waits_dropped.load(Ordering::SeqCst), 0);
        drop(waiting);
        until(&seen, |seen| seen.waits_dropped.load(Ordering::SeqCst) == 1).await;
    });
}

#[test]
fn every_pending_call_fails_when_the_link_is_lost() {
    over_all(|over| async move {
        let (near, far, _) = pair(over).await;
        let desk = near.root::<Desk>().expect("a root");
        let waiting: Vec<_> = (0..50).map(|_| desk.send(Wait)).collect();
        assert_eq!(desk.send(Add(0, 1)).await, Ok(1));
        far.close();
        for outcome in futures::future::join_all(waiting).await {
            assert!(matches!(
                outcome.expect_err("lost").kind(),
                ErrorKind::HostLost(_)
            ));
        }
        assert!(
            desk.send(Add(0, 1))
                .await
                .expect_err("still lost")
                .host_exit()
                .is_some()
        );
        near.lost().wait().await;
    });
}

#[test]
fn large_payloads_cross_as_views_and_their_slots_come_back() {
    over_all(|over| async move {
        let (near, _far, _) = pair(over).await;
        let desk = near.root::<Desk>().expect("a root");
        for round in 0..200_u32 {
            let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n ^ round) as u8).collect();
            let sample = Sample::new(MediaTime::ZERO, MediaTime::ZERO, bytes.clone());
            let back = desk.send(Show(sample)).await.expect("shown");
            assert_eq!(
                matches!(back.payload, Payload::View(_)),
                over != Over::Bytes
            );
            assert_eq!(back.payload.to_bytes(), bytes);
        }
        let small = Sample::new(MediaTime::ZERO, MediaTime::ZERO, vec![7; 100]);
        assert_eq!(desk.send(Show(small.clone())).await, Ok(small));
    });
}

#[test]
fn the_last_handle_dropped_stops_the_far_actor() {
    over_all(|over| async move {
        let (near, _far, _) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        let (mine, seen) = desk();
        root.send(Keep(mine)).await.expect("kept");
        assert_eq!(seen.stopped.load(Ordering::SeqCst), 0);
        drop(root.send(Give).await.expect("given"));
        until(&seen, |seen| seen.stopped.load(Ordering::SeqCst) == 1).await;
    });
}
