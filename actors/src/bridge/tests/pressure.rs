//! What waits, for credit, for memory or in a mailbox, keeps its order, holds what it refers to, and holds up nobody else.

use super::*;

/// Takes all credit for calls that wait by design.
async fn take_all_patience(root: &Handle<Desk>) -> Vec<crate::bridge::Call<Wait>> {
    let waits = (0..4096).map(|_| root.send(Wait)).collect();
    // In order behind them.
    assert_eq!(root.send(Add(1, 1)).await, Ok(2));
    waits
}

fn samples(count: usize, len: usize) -> Vec<Sample> {
    let sample = || Sample::new(MediaTime::ZERO, MediaTime::ZERO, vec![0; len]);
    (0..count).map(|_| sample()).collect()
}

#[test]
fn a_handle_in_a_message_that_waits_is_not_released_before_it() {
    over_all(|over| async move {
        let (near, far, seen) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        let other = root.send(Fresh).await.expect("is made");
        let waits = take_all_patience(&root).await;
        let waiting = root.send(WaitWith(Some(other), None));
        // Its own proxy would stop here.
        assert_eq!(far.core.census().exports, 2);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        drop(waits);
        until(&seen, |seen| {
            seen.waits_dropped.load(Ordering::SeqCst) == 4096
        })
        .await;
        assert_eq!(root.send(Add(1, 2)).await, Ok(3), "the link goes on");
        drop(waiting);
        until_idle(&near, &far).await;
    });
}

#[test]
fn a_call_outlives_its_handle_also_where_it_waits() {
    over_all(|over| async move {
        let (near, far, seen) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        let other = root.send(Fresh).await.expect("is made");
        let waits = take_all_patience(&root).await;
        let waiting = other.send(Wait);
        drop(other);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        drop(waits);
        until(&seen, |seen| {
            seen.waits_dropped.load(Ordering::SeqCst) == 4096
        })
        .await;
        assert_eq!(root.send(Add(1, 2)).await, Ok(3), "the link goes on");
        drop(waiting);
        until(&seen, |seen| {
            seen.waits_dropped.load(Ordering::SeqCst) == 4097
        })
        .await;
        until_idle(&near, &far).await;
    });
}

#[test]
fn an_object_that_comes_again_is_not_released_under_what_waits_for_it() {
    over_all(|over| async move {
        let (near, far, seen) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        root.send(Keep(root.send(Fresh).await.expect("is made")))
            .await
            .expect("kept");
        let waits = take_all_patience(&root).await;
        let first = root.send(Peek).await.expect("is there").expect("was kept");
        let waiting = first.send(Wait);
        drop(first);
        let again = root.send(Peek).await.expect("is there").expect("was kept");
        assert_eq!(again.send(Add(2, 2)).now_or_never(), None);
        drop(again);
        drop(root.send(Give).await.expect("given"));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        drop(waits);
        until(&seen, |seen| {
            seen.waits_dropped.load(Ordering::SeqCst) == 4096
        })
        .await;
        drop(waiting);
        until_idle(&near, &far).await;
        assert_eq!(root.send(Add(1, 2)).await, Ok(3), "the link goes on");
    });
}

#[test]
fn a_deadline_counts_while_the_call_waits_behind_another() {
    over_all(|over| async move {
        let (near, far, _) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        let waits = take_all_patience(&root).await;
        let before = root.send(Wait);
        let error = root.send(Late).await.expect_err("is late");
        assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded { .. }));
        drop((before, waits));
        until_idle(&near, &far).await;
    });
}

#[test]
fn large_patient_calls_keep_no_others() {
    in_all_windows(|| async {
        let (near, far, _) = pair(Over::Bytes).await;
        let root = near.root::<Desk>().expect("a root");
        let others = [
            root.send(Fresh).await.expect("is made"),
            root.send(Fresh).await.expect("is made"),
        ];
        let waiting = others
            .each_ref()
            .map(|other| other.send(WaitWith(None, samples(1, 3 << 20).pop())));
        let shown = root
            .send(Show(samples(1, 3 << 20).remove(0)))
            .await
            .expect("is shown");
        assert_eq!(shown.len(), 3 << 20);
        let error = others[0]
            .send(WaitWith(None, samples(1, 5 << 20).pop()))
            .now_or_never();
        assert!(error.is_none(), "waits for its turn");
        drop(waiting);
        let error = root
            .send(WaitWith(None, samples(1, 5 << 20).pop()))
            .await
            .expect_err("is too large");
        assert!(matches!(
            error.kind(),
            ErrorKind::LimitExceeded { max, .. } if *max == 4 << 20
        ));
        drop(others);
        until_idle(&near, &far).await;
    });
}

#[test]
fn a_reply_waits_until_all_its_payloads_have_room_and_holds_up_nobody() {
    // Not with windows of one: the call that waits has the only place.
    over_each(&[Over::Socket, Over::Rings], &[false], |over| async move {
        let (near, far, _) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        let first = root.send(Several(10, 9 << 20)).await.expect("fits");
        let second = root.send(Several(10, 9 << 20));
        assert_eq!(root.send(Add(1, 2)).await, Ok(3), "others go on");
        drop(first);
        let second = second.await.expect("fits when the first has gone");
        assert!(
            second
                .iter()
                .all(|sample| matches!(sample.payload, Payload::View(_)))
        );
        drop(second);
        until_idle(&near, &far).await;
    });
}

#[test]
fn what_can_never_have_room_is_refused() {
    in_all_windows(|| async {
        let (near, far, _) = pair(Over::Socket).await;
        let root = near.root::<Desk>().expect("a root");
        let error = root
            .send(Several(1, 257 << 20))
            .await
            .expect_err("larger than the pool");
        assert!(
            matches!(error.kind(), ErrorKind::LimitExceeded { .. }),
            "{error}"
        );
        until_idle(&near, &far).await;
    });
}

#[test]
fn a_call_waits_until_its_payloads_have_room() {
    over_descriptors(|over| async move {
        let (near, far, seen) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        root.send(Stash(samples(10, 9 << 20))).await.expect("fits");
        let second = root.send(Stash(samples(10, 9 << 20)));
        let other = near.root::<Desk>().expect("the root again");
        let given_up = other.send(Stash(samples(10, 9 << 20)));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        drop(given_up);
        seen.stash.lock().expect("sound").clear();
        second.await.expect("fits when the first has gone");
        assert_eq!(seen.stash.lock().expect("sound").len(), 10);
        seen.stash.lock().expect("sound").clear();
        until_idle(&near, &far).await;
    });
}

#[test]
fn a_full_mailbox_keeps_the_order_of_sending() {
    in_all_windows(|| async {
        let (desk, seen) = desk();
        let mut calls: Vec<_> = (0..100).map(|n| desk.send(Note(n))).collect();
        desk.tell(Note(100)).expect("has room in line");
        calls.reverse();
        for call in calls {
            call.await.expect("is noted");
        }
        assert_eq!(desk.send(Add(0, 0)).await, Ok(0));
        assert!(
            seen.notes
                .lock()
                .expect("sound")
                .iter()
                .copied()
                .eq(0..=100)
        );
    });
}

#[test]
fn a_message_that_panics_when_written_is_refused() {
    over_all(|over| async move {
        let (near, far, _) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        let error = root.send(Mute).await.expect_err("cannot be written");
        assert!(error.to_string().contains("panicked"), "{error}");
        assert_eq!(root.send(Add(1, 2)).await, Ok(3), "the link goes on");
        until_idle(&near, &far).await;
    });
}

#[test]
fn a_message_that_panics_when_read_ends_its_link() {
    over_all(|over| async move {
        let (near, far, _) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        let waiting = root.send(Wait);
        root.send(Trap).await.expect_err("cannot be read");
        let error = far.lost().wait().await;
        assert!(error.to_string().contains("panicked"), "{error}");
        waiting.await.expect_err("the link has ended");
    });
}

#[test]
fn a_handle_of_an_unknown_interface_arrives_and_gets_its_type_later() {
    over_all(|over| async move {
        let (near, far, _) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        let any = root.send(Untyped).await.expect("is made");
        assert!(any.clone().typed::<crate::host::PmpHost>().is_err());
        let typed = any.typed::<Desk>().expect("is a desk");
        assert_eq!(typed.send(Add(1, 2)).await, Ok(3));
        // One that is never typed can still go home.
        drop(root.send(Untyped).await.expect("is made"));
        drop(typed);
        until_idle(&near, &far).await;
    });
}

#[test]
fn the_root_can_be_had_again() {
    over_all(|over| async move {
        let (near, far, _) = pair(over).await;
        for n in 0..3 {
            let root = near.root::<Desk>().expect("a root");
            assert_eq!(root.send(Add(n, 0)).await, Ok(n));
            drop(root);
            until_idle(&near, &far).await;
        }
        assert!(near.root::<crate::host::PmpHost>().is_err());
        assert!(near.root::<Desk>().is_ok());
    });
}

#[test]
fn waiting_and_giving_up_again_and_again_is_no_flood() {
    over_descriptors(|over| async move {
        let (near, far, seen) = pair(over).await;
        let root = near.root::<Desk>().expect("a root");
        for n in 0..6000 {
            let waiting = root.send(Wait);
            // Until it has begun there.
            while far.core.census().incoming == 0 {
                tokio::task::yield_now().await;
            }
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            drop(waiting);
            until(&seen, |seen| {
                seen.waits_dropped.load(Ordering::SeqCst) == n + 1
            })
            .await;
        }
        assert_eq!(root.send(Add(1, 2)).await, Ok(3), "the link goes on");
    });
}
