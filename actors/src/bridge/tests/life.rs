//! An actor's end: who watches learns of it in order and why, wherever the actor is; a panic ends one call and one actor.

use super::super::{Context, Watch};
use super::*;

crate::interface! { pub(super) Mortal = "test.Mortal" {
    Begin, Count, Fetch, Stop, Panic, PanicLater, PanicInContext, Other, Linger,
} }

/// Makes another mortal.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Handle<Mortal>)]
pub(super) struct Begin;

/// Counts up.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = u64)]
pub(super) struct Count;

/// Gives a sample of so many bytes.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Sample)]
pub(super) struct Fetch(pub(super) usize);

/// Stops the actor.
#[derive(Serialize, Deserialize, Remote)]
pub(super) struct Stop;

/// Panics.
#[derive(Serialize, Deserialize, Remote)]
pub(super) struct Panic;

/// Panics in its reply future.
#[derive(Serialize, Deserialize, Remote)]
pub(super) struct PanicLater;

/// Panics in what it spawns in the actor's context.
#[derive(Serialize, Deserialize, Remote)]
#[remote(no_deadline)]
pub(super) struct PanicInContext;

/// Gives what this one was given.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Option<Handle<Mortal>>)]
pub(super) struct Other(Option<Handle<Mortal>>);

/// Answers when its reply future is done, whether or not the actor still lives.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = u64)]
pub(super) struct Linger;

#[derive(Default)]
pub(super) struct MortalActor {
    count: u64,
    other: Option<Handle<Mortal>>,
}

impl Actor for MortalActor {
    type Context = Context<Self>;
}

impl Handler<Begin> for MortalActor {
    type Result = Result<Handle<Mortal>>;
    fn handle(&mut self, _: Begin, _: &mut Self::Context) -> Self::Result {
        Ok(Handle::start(Self::default()))
    }
}

impl Handler<Count> for MortalActor {
    type Result = Result<u64>;
    fn handle(&mut self, _: Count, _: &mut Self::Context) -> Self::Result {
        self.count += 1;
        Ok(self.count)
    }
}

impl Handler<Fetch> for MortalActor {
    type Result = Result<Sample>;
    fn handle(&mut self, message: Fetch, _: &mut Self::Context) -> Self::Result {
        let payload = vec![7; message.0];
        Ok(Sample::new(MediaTime::ZERO, MediaTime::ZERO, payload))
    }
}

impl Handler<Stop> for MortalActor {
    type Result = Result<()>;
    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) -> Self::Result {
        actix::ActorContext::stop(ctx);
        Ok(())
    }
}

impl Handler<Panic> for MortalActor {
    type Result = Result<()>;
    fn handle(&mut self, _: Panic, _: &mut Self::Context) -> Self::Result {
        panic!("out of {}", "order");
    }
}

impl Handler<PanicLater> for MortalActor {
    type Result = ReplyFuture<()>;
    fn handle(&mut self, _: PanicLater, _: &mut Self::Context) -> Self::Result {
        ReplyFuture::new(async {
            tokio::task::yield_now().await;
            panic!("later");
        })
    }
}

impl Handler<PanicInContext> for MortalActor {
    type Result = Result<()>;
    fn handle(&mut self, _: PanicInContext, ctx: &mut Self::Context) -> Self::Result {
        ctx.spawn(actix::fut::wrap_future(async {
            tokio::task::yield_now().await;
            panic!("in the context");
        }));
        Ok(())
    }
}

impl Handler<Other> for MortalActor {
    type Result = Result<Option<Handle<Mortal>>>;
    fn handle(&mut self, message: Other, _: &mut Self::Context) -> Self::Result {
        Ok(std::mem::replace(&mut self.other, message.0))
    }
}

impl Handler<Linger> for MortalActor {
    type Result = ReplyFuture<u64>;
    fn handle(&mut self, _: Linger, _: &mut Self::Context) -> Self::Result {
        ReplyFuture::new(async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(11)
        })
    }
}

/// Where the actor is that is watched.
#[derive(Clone, Copy, Debug)]
enum Where {
    Here,
    Over(Over),
}

/// A mortal, and what keeps the link to it.
async fn mortal(at: Where) -> (Handle<Mortal>, Option<(Link, Link)>) {
    let root = Handle::<Mortal>::start(MortalActor::default());
    let Where::Over(over) = at else {
        return (root, None);
    };
    let (near, far) = over.endpoints();
    let (near, far) = tokio::join!(
        connect(near, 0, None),
        connect(far, 1, Some(root.into_any()))
    );
    let root = near.root::<Mortal>().expect("a root");
    let mortal = root.send(Begin).await.expect("begins");
    (mortal, Some((near, far)))
}

/// Runs a test for an actor here and one across each kind of link.
fn everywhere<F: Future<Output = ()> + 'static>(test: impl Fn(Where) -> F) {
    run(test(Where::Here));
    over_all(|over| test(Where::Over(over)));
}

fn is_panic_at(error: &Error, text: &str) -> bool {
    matches!(error.kind(), ErrorKind::Panicked { message, place }
        if message == text && place.contains("tests/life.rs:"))
}

#[test]
fn a_watch_learns_that_its_actor_stopped_and_calls_fail_from_then_on() {
    everywhere(|at| async move {
        let (mortal, _links) = mortal(at).await;
        let watch = mortal.watch();
        let also = mortal.clone().into_any().watch();
        assert!(mortal.is_alive() && watch.now().is_none());
        drop(mortal.watch());
        assert_eq!(mortal.send(Stop).await, Ok(()), "{at:?}");
        let end = watch.await;
        assert_eq!(end.kind(), &ErrorKind::ActorStopped, "{at:?}");
        assert!(!mortal.is_alive());
        assert_eq!(also.now().expect("ended").kind(), &ErrorKind::ActorStopped);
        let error = mortal.send(Count).await.expect_err("it stopped");
        assert_eq!(error.kind(), &ErrorKind::ActorStopped, "{at:?}");
        let late = mortal.watch().await;
        assert_eq!(late.kind(), &ErrorKind::ActorStopped);
    });
}

#[test]
fn the_end_comes_behind_the_replies_and_each_call_ends_once() {
    everywhere(|at| async move {
        let (mortal, _links) = mortal(at).await;
        let watch = mortal.watch();
        type Answered = futures::future::LocalBoxFuture<'static, bool>;
        let call = |number| -> Answered {
            match number {
                50 => mortal.send(Stop).map(|answer| answer.is_ok()).boxed_local(),
                // Some answers are large and wait for room.
                _ if number % 5 == 0 => {
                    let fetched = mortal.send(Fetch(300_000));
                    fetched.map(|answer| answer.is_ok()).boxed_local()
                }
                _ => mortal
                    .send(Count)
                    .map(|answer| answer.is_ok())
                    .boxed_local(),
            }
        };
        let calls: Vec<_> = (0..100).map(call).collect();
        watch.await;
        for (number, call) in calls.into_iter().enumerate() {
            match number {
                // What was answered before the end is there when the end is known.
                0..=50 => assert_eq!(call.now_or_never(), Some(true), "{at:?}: {number}"),
                _ => assert!(!call.await, "{at:?}: {number}"),
            }
        }
    });
}

#[test]
fn a_panic_fails_its_call_with_message_and_place_and_ends_only_its_actor() {
    everywhere(|at| async move {
        let (mortal, links) = mortal(at).await;
        let other = mortal.send(Begin).await.expect("begins");
        let watch = mortal.watch();
        let before = mortal.send(Count);
        let panic = mortal.send(Panic);
        let behind = mortal.send(Count);
        assert_eq!(before.await, Ok(1));
        let error = panic.await.expect_err("panics");
        assert!(is_panic_at(&error, "out of order"), "{at:?}: {error}");
        let error = behind.await.expect_err("its actor is gone");
        assert_eq!(error.kind(), &ErrorKind::ActorStopped, "{at:?}");
        let end = watch.await;
        assert!(is_panic_at(&end, "out of order"), "{at:?}: {end}");
        let error = mortal.send(Count).await.expect_err("it is gone");
        assert_eq!(error.kind(), &ErrorKind::ActorStopped, "{at:?}");
        // Others, the arbiter and the link go on.
        assert_eq!(other.send(Count).await, Ok(1), "{at:?}");
        assert!(links.is_none_or(|(near, _)| near.lost().now().is_none()));
    });
}

#[test]
fn a_panic_in_a_reply_future_fails_its_call_and_one_in_the_context_its_actor() {
    everywhere(|at| async move {
        let (mortal, _links) = mortal(at).await;
        let error = mortal.send(PanicLater).await.expect_err("panics");
        assert!(is_panic_at(&error, "later"), "{at:?}: {error}");
        assert_eq!(mortal.send(Count).await, Ok(1), "{at:?}: it goes on");
        let watch = mortal.watch();
        assert_eq!(mortal.send(PanicInContext).await, Ok(()));
        let end = watch.await;
        assert!(is_panic_at(&end, "in the context"), "{at:?}: {end}");
        mortal.send(Count).await.expect_err("it is gone");
    });
}

#[test]
fn a_reply_that_outlives_its_actor_arrives() {
    everywhere(|at| async move {
        let (mortal, _links) = mortal(at).await;
        let linger = mortal.send(Linger);
        let stop = mortal.send(Stop);
        assert_eq!(stop.await, Ok(()));
        mortal.watch().await;
        assert_eq!(linger.await, Ok(11), "{at:?}");
    });
}

#[test]
fn a_watch_keeps_no_actor_and_leaves_nothing() {
    everywhere(|at| async move {
        let (mortal, links) = mortal(at).await;
        let watch = mortal.watch();
        let dropped: Vec<Watch> = (0..1000).map(|_| mortal.watch()).collect();
        drop(dropped);
        // Its last handle: it stops, and whoever waits for that is told though nobody has a handle.
        drop(mortal);
        assert_eq!(watch.await.kind(), &ErrorKind::ActorStopped, "{at:?}");
        if let Some((near, far)) = links {
            until_idle(&near, &far).await;
            assert_eq!(near.core.vigils(), 0);
            assert_eq!(far.core.vigils(), 0);
        }
    });
}

#[test]
fn a_watch_without_a_handle_is_given_up_on_both_sides() {
    over_all(|over| async move {
        let (mortal, links) = mortal(Where::Over(over)).await;
        let (near, far) = links.expect("a link");
        let root = near.root::<Mortal>().expect("a root");
        // Kept alive by the far side itself.
        root.send(Other(Some(mortal.clone()))).await.expect("kept");
        let (one, two) = (mortal.watch(), mortal.watch());
        drop(mortal);
        until_idle(&near, &far).await;
        while far.core.vigils() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!((near.core.vigils(), far.core.vigils()), (1, 1));
        drop(one);
        // It comes again as another import, and that one ends what it watches.
        let again = root.send(Other(None)).await.expect("given").expect("kept");
        drop(two);
        while (near.core.vigils(), far.core.vigils()) != (0, 0) {
            tokio::task::yield_now().await;
        }
        let (again_ends, again) = (again.watch(), again);
        again.send(Stop).await.expect("stops");
        assert_eq!(again_ends.await.kind(), &ErrorKind::ActorStopped);
        drop(again);
        until_idle(&near, &far).await;
    });
}

#[test]
fn a_watch_learns_that_the_link_is_lost_and_why() {
    over_all(|over| async move {
        let (mortal, links) = mortal(Where::Over(over)).await;
        let watch = mortal.watch();
        let (near, far) = links.expect("a link");
        far.close();
        let end = watch.await;
        assert!(matches!(end.kind(), ErrorKind::HostLost(_)), "{end}");
        assert!(!mortal.is_alive());
        drop(near);
    });
}

#[test]
fn a_handle_that_goes_while_the_cause_of_a_loss_is_found_out_leaves_no_watch_behind() {
    over_all(|over| async move {
        let (found, finding) = tokio::sync::oneshot::channel::<()>();
        let why = |_: TransportError| {
            async move {
                drop(finding.await);
                Error::new(ErrorKind::HostLost(HostExit::default()))
            }
            .boxed_local()
        };
        let (one, two) = over.endpoints();
        let root = Handle::<Mortal>::start(MortalActor::default());
        let near = Link::builder().diagnose(Box::new(why)).connect(one);
        let (near, far) = tokio::join!(near, connect(two, 1, Some(root.into_any())));
        let near = near.expect("connects");
        let root = near.root::<Mortal>().expect("a root");
        let mortal = root.send(Begin).await.expect("begins");
        let watch = mortal.watch();
        far.close();
        while !near.core.is_lost() {
            tokio::task::yield_now().await;
        }
        drop(mortal);
        // Its proxy stops in one of the next turns.
        while near.core.census().imports > 1 {
            tokio::task::yield_now().await;
        }
        assert!(watch.now().is_none());
        drop(found);
        assert!(watch.await.host_exit().is_some());
    });
}

#[test]
fn an_actor_in_a_context_of_actix_is_asked() {
    in_all_windows(|| async {
        let (desk, _) = desk();
        let watch = desk.watch();
        assert!(desk.is_alive() && watch.now().is_none());
        drop(desk);
        assert_eq!(watch.await.kind(), &ErrorKind::ActorStopped);
    });
}

#[test]
fn a_handle_to_a_dead_actor_comes_home_and_goes_out_again() {
    over_all(|over| async move {
        let (mortal, links) = mortal(Where::Over(over)).await;
        let (near, far) = links.expect("a link");
        let root = near.root::<Mortal>().expect("a root");
        mortal.send(Stop).await.expect("stops");
        mortal.watch().await;
        root.send(Other(Some(mortal.clone()))).await.expect("kept");
        drop(mortal);
        // The far side gives its own dead actor anew.
        let again = root.send(Other(None)).await.expect("given").expect("kept");
        assert_eq!(again.watch().await.kind(), &ErrorKind::ActorStopped);
        again.send(Count).await.expect_err("it is gone");
        drop(again);
        until_idle(&near, &far).await;
    });
}

#[test]
fn an_actor_that_ends_while_nobody_hears_of_it_is_released() {
    over_all(|over| async move {
        let (mortal, links) = mortal(Where::Over(over)).await;
        let (near, far) = links.expect("a link");
        let stop = mortal.send(Stop);
        drop(mortal);
        // The reply and the end cross with the release.
        drop(stop.await);
        until_idle(&near, &far).await;
        assert!(near.lost().now().is_none() && far.lost().now().is_none());
    });
}
