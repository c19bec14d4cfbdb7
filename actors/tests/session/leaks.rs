//! Nothing is left of a session: no thread, no descriptor, no process.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use portcullis_actors::client::{Placement, SourceReaderBuilder, StreamSelector};
use portcullis_actors::pipeline::byte_stream::Input;
use portcullis_engine::MediaTime;

use super::{components, eventually, placements, session, topology, within_deadline};

pub(crate) fn claims(run: &mut impl FnMut(&str, fn())) {
    run(
        "nothing_is_left_of_sessions_however_they_end",
        nothing_is_left_of_sessions,
    );
    run(
        "nothing_is_left_of_starts_that_were_given_up",
        nothing_is_left_of_starts,
    );
    run(
        "nothing_is_left_of_readers_however_they_end",
        nothing_is_left_of_readers,
    );
}

/// Starts that are given up at another moment each time.
fn nothing_is_left_of_starts() {
    within_deadline(async {
        let start = |micros| {
            let starting = super::builder(&Placement::isolated()).start();
            tokio::time::timeout(Duration::from_micros(micros), starting)
        };
        start(10_000_000).await.expect("in time").expect("starts");
        let before = held();
        let before = (before.0 + 2, before.1, before.2);
        for n in 0..100 {
            drop(start(n * 60).await);
        }
        nothing_more_than(before).await;
    });
}

/// Threads, descriptors and children of this process.
fn held() -> (usize, usize, usize) {
    let count = |path: &str| std::fs::read_dir(path).map_or(0, Iterator::count);
    let children =
        std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()));
    let children = children.unwrap_or_default().split_whitespace().count();
    (count("/proc/self/task"), count("/proc/self/fd"), children)
}

async fn nothing_more_than(before: (usize, usize, usize)) {
    let within =
        |now: (usize, usize, usize)| now.0 <= before.0 && now.1 <= before.1 && now.2 <= before.2;
    let what = format!("threads, descriptors, children: {before:?} before");
    eventually(&what, || {
        let now = held();
        if !within(now) {
            return false;
        }
        true
    })
    .await;
}

fn nothing_is_left_of_sessions() {
    within_deadline(async {
        for placement in placements() {
            one_session(&placement, 1).await;
            // tokio keeps the threads that opened files for a while.
            let before = held();
            let before = (before.0 + 2, before.1, before.2);
            for ending in 0..200 {
                one_session(&placement, ending).await;
            }
            nothing_more_than(before).await;
        }
    });
}

/// A session that is dropped in one of several states.
async fn one_session(placement: &Placement, ending: u32) {
    let session = session(placement).await;
    let _events = session.events();
    match ending % 8 {
        0 => {}
        1 => {
            // Dropped while it resolves.
            let setting = session.set_topology(topology(1_000_000), Vec::new());
            let short = tokio::time::timeout(Duration::from_micros(200), setting).await;
            drop(short);
        }
        ending => {
            session
                .set_topology(topology(1_000_000), Vec::new())
                .await
                .expect("resolves");
            if ending > 2 {
                session.start(None).await.expect("starts");
            }
            if ending == 4 {
                session.pause().await.expect("pauses");
            }
            if ending == 5 {
                session
                    .start(Some(MediaTime::from_secs(5)))
                    .await
                    .expect("seeks");
            }
            if ending == 6 {
                session.stop().await.expect("stops");
            }
            if ending == 7 {
                session.shutdown().await.expect("the first");
            }
        }
    }
}

fn nothing_is_left_of_readers() {
    within_deadline(async {
        for placement in placements() {
            one_reader(&placement, 1).await;
            let before = held();
            let before = (before.0 + 2, before.1, before.2);
            for ending in 0..100 {
                one_reader(&placement, ending).await;
            }
            nothing_more_than(before).await;
        }
    });
}

async fn one_reader(placement: &Placement, ending: u32) {
    let registry = Arc::new(components::registry());
    let open =
        |input| SourceReaderBuilder::new(Arc::clone(&registry), placement.clone(), input).open();
    match ending % 4 {
        // Dropped while an input gives nothing.
        0 => {
            let body = futures::stream::once(async { Ok("TEST".into()) })
                .chain(futures::stream::pending());
            let opening = open(Input::stream(body));
            let outcome = tokio::time::timeout(Duration::from_millis(2), opening).await;
            assert!(outcome.is_err(), "there is no count yet");
        }
        1 => drop(open(Input::from(b"TEST100".to_vec())).await.expect("opens")),
        ending => {
            let reader = open(Input::from(b"TEST100000".to_vec()))
                .await
                .expect("opens");
            let mut samples = reader
                .samples(StreamSelector::FIRST_AUDIO)
                .await
                .expect("starts");
            for _ in 0..ending * 10 {
                samples.next().await.expect("many").expect("intact");
            }
        }
    }
}
