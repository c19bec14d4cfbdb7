//! Each call ends once, on both sides: by a reply, a cancel, a deadline, or the link's end.

use std::rc::Rc;

use super::*;

fn sample(len: usize) -> Sample {
    Sample::new(MediaTime::ZERO, MediaTime::ZERO, vec![7; len])
}

#[test]
fn a_late_call_fails_here_and_is_dropped_there() {
    over_all(|over| async move {
        let (near, far, seen) = pair(over).await;
        let desk = near.root::<Desk>().expect("a root");
        let error = desk.send(Late).await.expect_err("is late");
        assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }));
        until(&seen, |seen| seen.waits_dropped.load(Ordering::SeqCst) == 1).await;
        until_idle(&near, &far).await;
    });
}

#[test]
fn a_reply_that_crosses_with_its_cancel_is_taken_in_and_given_back() {
    over_all(|over| async move {
        let (near, far, _) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        for round in 0..300 {
            let (mine, _) = desk();
            let keep = root.send(Keep(mine));
            let show = root.send(Show(sample(100_000)));
            let give = root.send(Give);
            // Dropped at another point of its life in each round.
            for _ in 0..round % 20 {
                tokio::task::yield_now().await;
            }
            drop((keep, show, give));
        }
        drop(root.send(Give).await.expect("is answered"));
        until_idle(&near, &far).await;
    });
}

#[test]
fn what_was_kept_back_for_want_of_credit_goes_when_there_is_some() {
    over_all(|over| async move {
        let (near, far, _) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        // Some waits hold slots of calls, but not those of calls with a deadline.
        let waits: Vec<_> = (0..2000).map(|_| root.send(Wait)).collect();
        let shows = (0..40).map(|_| root.send(Show(sample(1 << 20))));
        for shown in futures::future::join_all(shows).await {
            assert_eq!(shown.expect("is shown").len(), 1 << 20);
        }
        let sums = futures::future::join_all((0..3000).map(|n| root.send(Add(n, 0)))).await;
        assert!(sums.into_iter().eq((0..3000).map(Ok)));
        drop(waits);
        until_idle(&near, &far).await;
    });
}

#[test]
fn a_message_that_cannot_cross_is_refused_and_leaves_nothing() {
    over_all(|over| async move {
        let (near, far, _) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        if over == Over::Bytes {
            let error = root
                .send(Show(sample(20 << 20)))
                .await
                .expect_err("too large");
            assert!(
                matches!(error.kind(), ErrorKind::LimitExceeded { max, .. } if *max == 4 << 20)
            );
        }
        let file = std::fs::File::open("/dev/null").expect("is there");
        let lent = root.send(Lend(FileDescriptor::new(file.into()))).await;
        match over {
            Over::Socket | Over::Rings => lent.expect("is lent"),
            Over::Bytes => {
                let error = lent.expect_err("no descriptors").to_string();
                assert!(error.contains("Lend") && error.contains("cross"), "{error}");
            }
        }
        let taken = FileDescriptor::new(std::fs::File::open("/dev/null").expect("is there").into());
        drop(taken.take());
        root.send(Lend(taken)).await.expect_err("it was taken");
        assert_eq!(root.send(Add(1, 2)).await, Ok(3), "the link goes on");
        until_idle(&near, &far).await;
    });
}

#[test]
fn a_link_that_has_ended_is_freed_with_its_last_handle() {
    over_all(|over| async move {
        let (near, far, _) = pair(over).await;
        let (root, core) = (
            near.root::<Desk>().expect("a root"),
            Rc::downgrade(&near.core),
        );
        let (mine, seen) = desk();
        root.send(Keep(mine)).await.expect("kept");
        let waiting = root.send(Wait);
        near.close();
        near.lost().wait().await;
        far.lost().wait().await;
        assert!(waiting.await.is_err());
        until(&seen, |seen| seen.stopped.load(Ordering::SeqCst) == 1).await;
        drop((near, root));
        // The link's own tasks let go in their next turns; the deadline is `over_all`'s.
        while core.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    });
}
