//! Samples that go to several hosts, or from one to another.

use super::*;
use crate::bridge::SampleMemory;
use portcullis_engine::SampleAllocator;

const LEN: usize = 100_000;

/// A host of an application that gives it this memory.
async fn host(memory: Option<&SampleMemory>) -> (Link, Link, Arc<Seen>) {
    let terms = PayloadTerms {
        memory: memory.cloned(),
        ..PayloadTerms::default()
    };
    let (near, far) = Over::Socket.endpoints();
    let (root, seen) = desk();
    let (near, far) = tokio::join!(
        connect_on(terms, near, 0, None),
        connect(far, 1, Some(root.into_any()))
    );
    (near, far, seen)
}

/// Bytes of the slots that the application has made for its hosts.
fn mapped(link: &Link) -> usize {
    link.core.mapped_bytes()
}

async fn stash(link: &Link, sample: Sample) {
    let root = link.root::<Desk>().expect("a root");
    root.send(Stash(vec![sample])).await.expect("is kept");
}

async fn made_by(link: &Link) -> Sample {
    let root = link.root::<Desk>().expect("a root");
    let mut samples = root.send(Several(1, LEN)).await.expect("is made");
    let sample = samples.pop().expect("is one");
    assert!(matches!(sample.payload, Payload::View(_)));
    sample
}

fn filled(memory: &SampleMemory, len: usize) -> Sample {
    let mut buffer = super::super::SlotAllocator::of(memory).allocate(len);
    buffer.fill(7);
    Sample::new(MediaTime::ZERO, MediaTime::ZERO, buffer)
}

#[test]
fn a_sample_of_one_host_is_passed_on_to_another_without_a_copy() {
    run(async {
        let memory = SampleMemory::new();
        let (a, far_a, _) = host(Some(&memory)).await;
        let (b, far_b, seen) = host(Some(&memory)).await;
        stash(&b, made_by(&a).await).await;
        assert_eq!(mapped(&b), 0, "the application has made no slot");
        assert_eq!(far_a.core.census().leased, 1, "the first host has lent one");
        assert_eq!(
            b.core.census().leased,
            1,
            "and the application has lent it on"
        );
        let kept = seen.stash.lock().expect("sound").pop().expect("is kept");
        assert_eq!(kept.payload.to_bytes(), vec![0; LEN]);
        // What it sends on itself it copies: it shares memory with nobody.
        stash(&a, kept).await;
        until_idle(&b, &far_b).await;
        while a.core.census().leased + far_a.core.census().leased > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn hosts_that_share_nothing_get_copies() {
    run(async {
        let (memory, other) = (SampleMemory::new(), SampleMemory::new());
        for (of_a, of_b) in [
            (None, None),
            (Some(&memory), None),
            (None, Some(&memory)),
            (Some(&memory), Some(&other)),
        ] {
            let (a, far_a, _) = host(of_a).await;
            let (b, _far_b, seen) = host(of_b).await;
            let before = mapped(&b);
            stash(&b, made_by(&a).await).await;
            assert!(mapped(&b) >= before.max(1), "a slot of the application");
            until_idle(&a, &far_a).await;
            let kept = seen.stash.lock().expect("sound").pop().expect("is kept");
            assert_eq!(kept.payload.to_bytes(), vec![0; LEN]);
        }
    });
}

#[test]
fn a_sample_goes_to_two_hosts_at_once_in_one_slot() {
    run(async {
        let memory = SampleMemory::new();
        let (a, far_a, seen_a) = host(Some(&memory)).await;
        let (b, far_b, seen_b) = host(Some(&memory)).await;
        let sample = filled(&memory, LEN);
        let before = mapped(&a);
        tokio::join!(stash(&a, sample.clone()), stash(&b, sample));
        assert_eq!(mapped(&a), before, "no other slot was taken");
        assert_eq!(memory.pool().usage().leased, 1);
        for seen in [&seen_a, &seen_b] {
            let kept = seen.stash.lock().expect("sound").pop().expect("is kept");
            assert_eq!(kept.payload.to_bytes(), vec![7; LEN]);
        }
        until_idle(&a, &far_a).await;
        until_idle(&b, &far_b).await;
        let usage = memory.pool().usage();
        assert_eq!((usage.held, usage.leased), (0, 0));
    });
}

#[test]
fn a_host_that_dies_with_samples_of_another_gives_them_back() {
    run(async {
        let memory = SampleMemory::new();
        let (a, far_a, _) = host(Some(&memory)).await;
        let (b, far_b, _seen) = host(Some(&memory)).await;
        stash(&b, made_by(&a).await).await;
        stash(&b, filled(&memory, LEN)).await;
        assert_eq!(memory.pool().usage().leased, 1);
        far_b.close();
        b.lost().wait().await;
        until_idle(&a, &far_a).await;
        let usage = memory.pool().usage();
        assert_eq!((usage.held, usage.leased), (0, 0));
    });
}

#[test]
fn a_host_that_keeps_all_it_gets_waits_alone() {
    run(async {
        let memory = SampleMemory::of_size(16 << 20);
        let (a, far_a, seen_a) = host(Some(&memory)).await;
        let (b, far_b, seen_b) = host(Some(&memory)).await;
        for _ in 0..8 {
            stash(&a, filled(&memory, 1 << 20)).await;
        }
        let root = a.root::<Desk>().expect("a root");
        let mut waiting = Box::pin(root.send(Stash(vec![filled(&memory, 1 << 20)])));
        assert!((&mut waiting).now_or_never().is_none());
        for _ in 0..3 {
            stash(&b, filled(&memory, 1 << 20)).await;
            seen_b.stash.lock().expect("sound").clear();
        }
        assert!((&mut waiting).now_or_never().is_none(), "it has its part");
        drop(seen_a.stash.lock().expect("sound").pop());
        waiting.await.expect("it has given one back");
        seen_a.stash.lock().expect("sound").clear();
        until_idle(&a, &far_a).await;
        until_idle(&b, &far_b).await;
    });
}

#[test]
fn one_slot_is_enough_for_any_number_of_samples() {
    run(async {
        for over in Over::ALL {
            let (near, far) = over.endpoints();
            let (root, _) = desk();
            let terms = || PayloadTerms {
                most_mebibytes: Some(4),
                ..PayloadTerms::default()
            };
            let (near, far) = tokio::join!(
                connect_on(terms(), near, 0, None),
                connect_on(terms(), far, 1, Some(root.into_any()))
            );
            let root = near.root::<Desk>().expect("a root");
            // The first size takes the whole pool for one slot, on either side.
            for (len, count) in [
                (1_400_000, 20),
                (64 << 10, 200),
                (4096, 200),
                (188, 200),
                (1_400_000, 20),
            ] {
                let calls = (0..count).map(|number| {
                    let payload = vec![number as u8; len];
                    let sample = Sample::new(MediaTime::ZERO, MediaTime::ZERO, payload);
                    let call = root.send(Show(sample));
                    async move {
                        let back = call.await.expect("comes back").payload;
                        assert_eq!(back.len(), len);
                        assert_eq!(back.to_bytes()[len - 1], number as u8);
                    }
                });
                futures::future::join_all(calls).await;
            }
            until_idle(&near, &far).await;
        }
    });
}
