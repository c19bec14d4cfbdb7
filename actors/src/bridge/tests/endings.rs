//! What must end a call, or an actor's watch, in whichever order things happen.

use std::thread;

use super::hostile::run_in_no_time;
use super::life::{Fetch, Mortal, MortalActor, Stop};
use super::*;

/// Keeps the link's next turn for a sweep that knows of nothing else yet.
fn have_it_sweep_first(root: &Handle<Desk>) {
    drop(root.send(Wait));
}

#[test]
fn a_call_that_has_gone_on_its_way_to_the_link_is_never_made() {
    over_each(&Over::ALL, &[false], |over| async move {
        let (near, far, seen) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        have_it_sweep_first(&root);
        let there = root.clone();
        let gone = thread::spawn(move || drop(there.send(Wait)));
        gone.join().expect("is sent and dropped");
        until_idle(&near, &far).await;
        assert_eq!(root.send(Add(1, 2)).await, Ok(3));
        // At most the one before it was begun.
        assert!(seen.waits_dropped.load(Ordering::SeqCst) <= 1);
    });
}

#[test]
fn a_call_that_is_let_go_on_another_thread_and_has_gone_is_never_made() {
    over_each(&Over::ALL, &[false], |over| async move {
        let (near, far, seen) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        let held: Vec<_> = (0..64).map(|number| root.send(Note(number))).collect();
        // In line, and behind it one for which there is a place.
        let (front, behind) = (root.send(Add(1, 1)), root.send(Wait));
        // These have the places until the link's thread goes on, which then sweeps first.
        drop(held);
        let gone = thread::spawn(move || {
            // The link's thread is told of one and then of the other.
            drop(front);
            drop(behind);
        });
        gone.join().expect("are dropped");
        until_idle(&near, &far).await;
        assert_eq!(root.send(Add(1, 2)).await, Ok(3));
        assert_eq!(seen.waits_dropped.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_deadline_counts_on_the_way_to_the_link() {
    run_in_no_time(async {
        let (near, _far, _) = pair(Over::Bytes).await;
        let root = near.root::<Desk>().expect("a root");
        let there = root.clone();
        let first = thread::spawn(move || there.send(Add(1, 2)));
        let first = first.join().expect("is sent");
        let began = tokio::time::Instant::now();
        // Behind the first, on the same way.
        let late = root.send(Late);
        tokio::time::advance(Duration::from_millis(51)).await;
        let error = late.await.expect_err("is late");
        assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }));
        let waited = began.elapsed();
        assert!(waited < Duration::from_millis(60), "{waited:?}");
        assert_eq!(first.await, Ok(3));
    });
}

#[test]
fn an_actors_end_is_told_though_an_answer_is_cancelled_that_waited_for_room() {
    // Not with windows of one: what waits for room would have the only place.
    over_each(&[Over::Socket, Over::Rings], &[false], |over| async move {
        let (near, far) = over.endpoints();
        let root = Handle::<Mortal>::start(MortalActor::default());
        let terms = || PayloadTerms {
            most_mebibytes: Some(16),
            ..PayloadTerms::default()
        };
        let (near, _far) = tokio::join!(
            connect_on(terms(), near, 0, None),
            connect_on(terms(), far, 1, Some(root.into_any()))
        );
        let root = near.root::<Mortal>().expect("a root");
        let fetch = |_| Box::pin(root.send(Fetch(3 << 20)));
        let mut fetches: Vec<_> = (0..12).map(fetch).collect();
        assert_eq!(root.send(Stop).await, Ok(()));
        let mut held = Vec::new();
        fetches.retain_mut(|fetch| match fetch.as_mut().now_or_never() {
            Some(sample) => {
                held.push(sample.expect("is fetched"));
                false
            }
            None => true,
        });
        assert!(!held.is_empty() && !fetches.is_empty(), "some had room");
        let watch = root.watch();
        drop(fetches);
        assert_eq!(watch.await.kind(), &ErrorKind::ActorStopped);
        drop(held);
    });
}
