//! Real hosts: their actors' ends, handles of a third process, and a host that is stopped.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use portcullis_actors::bridge::{Handle, Heartbeat, PeerState};
use portcullis_actors::host::{ActorHost, Host};
use portcullis_actors::runtime;
use portcullis_engine::ErrorKind;
use rustix::process::{Pid, Signal, kill_process};

use crate::claims::within_deadline;
use crate::lab::{
    AskKept, AwaitEvents, Begin, Events, IsHome, Keep, Kept, Lab, LabActor, Nested, Panic, Stop,
    Wait, WaitOnKept, WatchKept, Whose,
};
use crate::spans;

pub(crate) fn claims(run: &mut impl FnMut(&str, fn())) {
    run(
        "a_user_actor_is_called_from_both_sides",
        a_user_actor_is_called_from_both_sides,
    );
    run(
        "a_panic_in_a_host_ends_one_actor_and_not_the_host",
        a_panic_in_a_host_ends_one_actor_and_not_the_host,
    );
    run(
        "a_handle_of_a_third_host_works_in_collections",
        a_handle_of_a_third_host_works_in_collections,
    );
    run(
        "cancel_release_and_death_cross_a_third_process",
        cancel_release_and_death_cross_a_third_process,
    );
    run(
        "a_stopped_host_is_reported_and_goes_on",
        a_stopped_host_is_reported_and_goes_on,
    );
    run(
        "a_host_that_stays_stopped_is_lost_by_default",
        a_host_that_stays_stopped_is_lost_by_default,
    );
}

async fn host() -> ActorHost<Lab> {
    Host::current().start_actor::<Lab>().await.expect("starts")
}

/// A lab of this process.
async fn own() -> Handle<Lab> {
    let own = runtime::run(|| async { Ok(Handle::<Lab>::start(LabActor::default())) });
    own.await.expect("starts")
}

fn nested(handle: &Handle<Lab>) -> Nested {
    vec![
        None,
        Some(HashMap::from([("it".into(), handle.clone())])),
        Some(HashMap::new()),
    ]
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process"), signal).expect("is there");
}

fn a_user_actor_is_called_from_both_sides() {
    within_deadline(async {
        let host = host().await;
        let whose = host.root().send(Whose).await.expect("answers");
        assert_eq!(whose, host.pid());
        host.root()
            .send(Keep(nested(&own().await)))
            .await
            .expect("kept");
        let whose = host.root().send(AskKept).await.expect("answers");
        assert_eq!(whose, std::process::id());
    });
}

fn a_panic_in_a_host_ends_one_actor_and_not_the_host() {
    within_deadline(async {
        let host = host().await;
        let lab = host.root().send(Begin).await.expect("begins");
        let watch = lab.watch();
        let error = lab.send(Panic).await.expect_err("panics");
        for error in [error, watch.await] {
            let ErrorKind::Panicked { message, place } = error.kind() else {
                panic!("{error}");
            };
            assert_eq!(message, "the lab burns");
            assert!(place.contains("lab.rs:"), "{place}");
            assert_eq!(error.place().process, Some(host.pid()));
        }
        assert!(!lab.is_alive());
        host.root().send(Whose).await.expect("goes on");
    });
}

fn a_handle_of_a_third_host_works_in_collections() {
    within_deadline(async {
        let (b, c) = (host().await, host().await);
        let far = c.root().send(Begin).await.expect("begins");
        b.root().send(Keep(nested(&far))).await.expect("kept");
        // From b through this process to c, and the answer back.
        assert_eq!(b.root().send(AskKept).await, Ok(c.pid()));
        let back = b.root().send(Kept).await.expect("given");
        let [None, Some(it), Some(empty)] = &back[..] else {
            panic!("{back:?}");
        };
        assert_eq!(it.get("it"), Some(&far), "not a proxy of a proxy");
        assert!(empty.is_empty());
        // Home it is the original.
        assert_eq!(c.root().send(IsHome(it["it"].clone())).await, Ok(true));
        assert_eq!(b.root().send(IsHome(far)).await, Ok(false));
    });
}

fn cancel_release_and_death_cross_a_third_process() {
    within_deadline(async {
        let (b, c) = (host().await, host().await);
        let far = c.root().send(Begin).await.expect("begins");
        b.root().send(Keep(nested(&far))).await.expect("kept");

        let mut events = Events {
            waits_begun: 1,
            ..Events::default()
        };
        let waiting = b.root().send(WaitOnKept);
        c.root().send(AwaitEvents(events)).await.expect("waits");
        drop(waiting);
        events.waits_dropped = 1;
        c.root()
            .send(AwaitEvents(events))
            .await
            .expect("is dropped");

        // The last handle is b's: when it goes, the actor in c does.
        drop(far);
        drop(b.root().send(Kept).await.expect("given"));
        events.stopped = 1;
        c.root()
            .send(AwaitEvents(events))
            .await
            .expect("is released");

        // One that stops by itself, one that panics, and one whose process is killed: b learns of each.
        for way in 0..3 {
            let far = c.root().send(Begin).await.expect("begins");
            b.root().send(Keep(nested(&far))).await.expect("kept");
            let watching = b.root().send(WatchKept);
            match way {
                0 => far.send(Stop).await.expect("stops"),
                1 => drop(far.send(Panic).await.expect_err("panics")),
                _ => c.kill(),
            }
            let end = watching.await.expect("b lives");
            match (way, end.kind()) {
                (0, ErrorKind::ActorStopped) | (1, ErrorKind::Panicked { .. }) => {}
                (2, ErrorKind::HostLost(exit)) => {
                    assert_eq!((exit.pid, exit.signal), (c.pid(), Some(9)));
                }
                (_, end) => panic!("{way}: {end}"),
            }
            let error = b.root().send(AskKept).await.expect_err("it is gone");
            match (way, error.kind()) {
                (0 | 1, ErrorKind::ActorStopped) | (2, ErrorKind::HostLost(_)) => {}
                (_, error) => panic!("{way}: {error}"),
            }
        }
    });
}

fn a_stopped_host_is_reported_and_goes_on() {
    within_deadline(async {
        let heartbeat = Heartbeat::default()
            .interval(Duration::from_millis(100))
            .never_lost();
        let host = Host::current().heartbeat(heartbeat);
        let host = host.start_actor::<Lab>().await.expect("starts");
        let mut states = host.peer_states();
        host.root().send(Whose).await.expect("answers");
        let waiting = host.root().send(Wait);

        signal(host.pid(), Signal::STOP);
        let began = Instant::now();
        let late = host.root().send(Whose).await.expect_err("is late");
        assert!(
            matches!(late.kind(), ErrorKind::DeadlineExceeded { .. }),
            "{late}"
        );
        assert!(
            began.elapsed() >= Duration::from_secs(4),
            "its own deadline"
        );
        let PeerState::Unresponsive { since } = states.next().await.expect("stands") else {
            panic!("{states:?}");
        };
        assert!(since.elapsed().expect("is past") >= Duration::from_secs(3));
        let warned = |text: &str| {
            let pid = host.pid().to_string();
            spans::seen().iter().any(|event| {
                event.fields.get("message").is_some_and(|it| it == text)
                    && event.fields.get("process") == Some(&pid)
            })
        };
        assert!(warned("the peer is unresponsive"));
        assert!(host.lost().now().is_none());

        signal(host.pid(), Signal::CONT);
        assert_eq!(states.next().await, Some(PeerState::Responsive));
        assert!(warned("the peer answers again"));
        host.root().send(Whose).await.expect("answers again");
        drop(waiting);
        let done = Events {
            waits_begun: 1,
            waits_dropped: 1,
            ..Events::default()
        };
        host.root()
            .send(AwaitEvents(done))
            .await
            .expect("was cancelled");
    });
}

fn a_host_that_stays_stopped_is_lost_by_default() {
    within_deadline(async {
        let host = host().await;
        let waiting = host.root().send(Wait);
        let watch = host.root().watch();
        signal(host.pid(), Signal::STOP);
        let error = waiting.await.expect_err("is lost");
        let exit = error.host_exit().expect("lost");
        assert_eq!(exit.signal, Some(9), "{error}");
        assert!(error.to_string().contains("sign of life"), "{error}");
        assert!(watch.await.host_exit().is_some());
        assert_eq!(host.peer_states().now(), PeerState::Lost);
    });
}
