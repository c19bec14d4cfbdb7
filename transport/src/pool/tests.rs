//! The claims of a pool, with owner and peer in one process: the peer's mapping is another one all the same.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;

use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create, open,
};

use super::*;
use crate::error::TransportError;
use crate::sys::segment::SEGMENT_SEALS;
use crate::testing::{Prng, run};

mod left;
mod lent;
mod rest;
mod sharing;

use lent::{Lent, pool};

fn peer() -> PeerPool {
    PeerPool::new(PeerPoolLimits::default())
}

/// Tells the peer what the pool has to say.
fn announce(pool: &Lent, peer: &PeerPool) {
    for news in pool.take_news() {
        match news {
            PoolNews::Added {
                segment,
                slot_size,
                slots,
                descriptor,
            } => peer
                .add_segment(segment, slot_size, slots, descriptor)
                .unwrap(),
            PoolNews::Retired { segment } => peer.retire_segment(segment).unwrap(),
        }
    }
}

fn filled(pool: &Pool, len: usize, seed: u8) -> Bytes {
    let mut slot = pool.allocate(len).unwrap();
    assert_eq!(slot.len(), len);
    slot.iter_mut()
        .zip(0usize..)
        .for_each(|(byte, index)| *byte = seed.wrapping_add(index as u8));
    slot.freeze()
}

fn release_of(at: SlotRef, count: u32) -> SlotRelease {
    SlotRelease {
        segment: at.segment,
        slot: at.slot,
        generation: at.generation,
        count,
    }
}

/// Carries the peer's releases to the pool.
fn carry_releases(peer: &PeerPool, pool: &Lent) -> usize {
    let mut releases = Vec::new();
    peer.take_releases(&mut releases);
    releases
        .iter()
        .for_each(|release| pool.release(*release).unwrap());
    releases.len()
}

#[test]
fn freed_slots_are_used_again_and_none_that_is_in_use() {
    let pool = pool(64 << 20);
    // As many as rest, and one; of small ones none rests, and of the largest there is no other.
    let expected = [
        (1, 1),
        (4096, 1),
        (4097, 129),
        (65_536, 33),
        (1 << 20, 3),
        (3 << 20, 2),
        ((4 << 20) + 1, 1),
    ];
    for (len, count) in expected {
        let taken = (0..2_000).map(|_| pool.allocate(len).unwrap().as_ptr().addr());
        let places: BTreeSet<usize> = taken.collect();
        assert_eq!(places.len(), count, "{len}");
        let bytes = filled(&pool, len, 1);
        let address = bytes.as_ptr().addr();
        assert!(places.contains(&address));
        let part = bytes.slice(len / 2..);
        drop(bytes);
        for _ in 0..2_000 {
            let other = pool.allocate(len).unwrap();
            assert_ne!(other.as_ptr().addr(), address, "part of it is still in use");
        }
        drop(part);
    }
    let usage = pool.usage();
    assert_eq!((usage.held, usage.leased), (0, 0));
}

#[test]
fn a_sample_crosses_without_a_copy_and_comes_back() {
    let pool = pool(64 << 20);
    let peer = peer();
    let bytes = filled(&pool, 100_000, 3);
    let at = pool.lease(&bytes).unwrap();
    announce(&pool, &peer);
    let view = peer.view(at).unwrap();
    assert_eq!(view.len(), 100_000);
    assert_eq!(
        view.read_u64(5),
        Some(u64::from_le_bytes([8, 9, 10, 11, 12, 13, 14, 15]))
    );
    assert_eq!(
        view.read_u64(100_000 - 8).unwrap().to_le_bytes(),
        bytes[99_992..]
    );
    assert_eq!(view.read_u64(100_000 - 7), None);
    assert_eq!(view.read_u64(usize::MAX), None);
    assert_eq!(view.to_bytes(), bytes);
    let mut some = [0; 10];
    view.copy_to(50, &mut some).unwrap();
    assert_eq!(some, bytes[50..60]);
    assert!(view.copy_to(99_991, &mut some).is_none());
    let part = view.clone();
    drop(bytes);
    assert_eq!(pool.usage().leased, 1);
    drop(view);
    assert_eq!(carry_releases(&peer, &pool), 0, "a clone is left");
    drop(part);
    assert_eq!(carry_releases(&peer, &pool), 1);
    assert_eq!(pool.usage().leased, 0);
}

#[test]
fn any_part_of_a_slot_is_recognised_and_nothing_else() {
    let pool = pool(8 << 20);
    let bytes = filled(&pool, 5000, 0);
    let whole = pool.locate(&bytes).unwrap();
    assert_eq!((whole.offset, whole.len), (0, 5000));
    let part = pool.locate(&bytes.slice(100..4000)).unwrap();
    assert_eq!(
        part,
        SlotRef {
            offset: 100,
            len: 3900,
            ..whole
        }
    );
    assert_eq!(pool.locate(&Bytes::from(vec![0; 5000])), None);
    assert_eq!(pool.locate(&Bytes::from_static(b"static")), None);
    assert_eq!(
        pool.locate(&bytes.slice(7..7)),
        None,
        "nothing lies nowhere"
    );
    let other = super::tests::pool(8 << 20);
    assert_eq!(other.lease(&bytes), None);
    let empty = pool.allocate(0).unwrap().freeze();
    assert!(empty.is_empty());
}

#[test]
fn a_truncated_slot_gives_what_was_kept() {
    let pool = pool(8 << 20);
    let mut slot = pool.allocate(4096).unwrap();
    slot.truncate(10);
    slot.truncate(20);
    assert_eq!(slot.freeze().len(), 10);
}

#[test]
fn releasing_what_was_not_lent_is_a_protocol_error() {
    let pool = pool(8 << 20);
    let bytes = filled(&pool, 100, 0);
    let at = pool.lease(&bytes).unwrap();
    pool.lease(&bytes).unwrap();
    for wrong in [
        release_of(at, 3),
        release_of(at, 0),
        release_of(
            SlotRef {
                generation: at.generation + 1,
                ..at
            },
            1,
        ),
        release_of(
            SlotRef {
                slot: at.slot + 1,
                ..at
            },
            1,
        ),
        release_of(
            SlotRef {
                slot: u32::MAX,
                ..at
            },
            1,
        ),
        release_of(
            SlotRef {
                segment: at.segment + 1,
                ..at
            },
            1,
        ),
    ] {
        let error = pool.release(wrong).unwrap_err();
        assert!(matches!(error, TransportError::Protocol { .. }), "{error}");
    }
    pool.release(release_of(at, 2)).unwrap();
    assert!(pool.release(release_of(at, 1)).is_err());
    drop(bytes);
    let again = filled(&pool, 100, 0);
    assert_ne!(pool.locate(&again).unwrap().generation, at.generation);
    pool.lease(&again).unwrap();
    assert!(
        pool.release(release_of(at, 1)).is_err(),
        "an old generation"
    );
}

#[test]
fn exhaustion_is_an_error_and_ends_with_a_release() {
    let pool = pool(4 << 20);
    let one = filled(&pool, 4 << 20, 0);
    let at = pool.lease(&one).unwrap();
    let refused = pool.allocate(100).unwrap_err();
    assert!(refused.transient, "{refused}");
    drop(one);
    assert!(
        pool.allocate(100).unwrap_err().transient,
        "the peer still reads it"
    );
    pool.release(release_of(at, 1)).unwrap();
    pool.allocate(100).unwrap();
    assert!(!pool.allocate((4 << 20) + 1).unwrap_err().transient);
    assert!(!pool.allocate(MAX_SLOT + 1).unwrap_err().transient);
    assert!(!pool.allocate(usize::MAX).unwrap_err().transient);
}

#[test]
fn whoever_waits_for_a_slot_gets_the_next_one() {
    let pool = pool(4 << 20);
    run(async {
        let held: Vec<SlotMut> = (0..4).map(|_| pool.allocate(1 << 20).unwrap()).collect();
        let mut waiting: Vec<_> = (0..8)
            .map(|_| {
                let pool = pool.pool.clone();
                tokio::spawn(async move {
                    pool.allocate_when_free(1 << 20)
                        .await
                        .map(|slot| slot.len())
                })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|task| !task.is_finished()));
        std::thread::spawn(move || drop(held)).join().unwrap();
        for task in waiting.drain(..) {
            assert_eq!(task.await.unwrap(), Ok(1 << 20));
        }
        assert!(
            !pool
                .allocate_when_free(usize::MAX)
                .await
                .unwrap_err()
                .transient
        );
    });
}

#[test]
fn idle_segments_make_room_for_other_sizes() {
    let pool = pool(8 << 20);
    let peer = peer();
    let small: Vec<Bytes> = (0..8).map(|_| filled(&pool, 1 << 20, 1)).collect();
    for bytes in &small {
        let at = pool.lease(bytes).unwrap();
        announce(&pool, &peer);
        drop(peer.view(at).unwrap());
    }
    let mapped = peer.mapped_bytes();
    assert_eq!(mapped, 8 << 20);
    assert!(pool.allocate(4 << 20).is_err());
    carry_releases(&peer, &pool);
    assert!(pool.allocate(4 << 20).is_err(), "still held here");
    drop(small);
    let large = filled(&pool, 8 << 20, 2);
    let at = pool.lease(&large).unwrap();
    announce(&pool, &peer);
    assert_eq!(peer.mapped_bytes(), 8 << 20);
    assert_eq!(peer.view(at).unwrap().to_bytes(), large);
}

#[test]
fn a_segment_that_was_never_announced_is_never_retired() {
    let pool = pool(4 << 20);
    drop(pool.allocate(1).unwrap());
    pool.lease(&filled(&pool, 4 << 20, 0)).unwrap();
    let news = pool.take_news();
    assert_eq!(news.len(), 1);
    assert!(matches!(news[0], PoolNews::Added { slots: 1, .. }));
}

#[test]
fn a_larger_slot_serves_when_its_own_size_is_used_up() {
    let pool = pool(5 << 20);
    let large = pool.allocate(4 << 20).unwrap();
    let address = large.as_ptr().addr();
    let _one = pool.allocate(1 << 20).unwrap();
    drop(large);
    assert_eq!(pool.allocate(1 << 20).unwrap().as_ptr().addr(), address);
}

#[test]
fn a_dead_peers_slots_come_back() {
    let pool = pool(4 << 20);
    let held = filled(&pool, 1 << 20, 0);
    for _ in 0..3 {
        pool.lease(&filled(&pool, 1 << 20, 0)).unwrap();
    }
    let at = pool.lease(&held).unwrap();
    assert!(pool.allocate(1 << 20).is_err());
    assert_eq!(pool.revoke_all(), 4);
    let usage = pool.usage();
    assert_eq!((usage.held, usage.leased, usage.free), (1, 0, 3));
    assert!(pool.release(release_of(at, 1)).is_err(), "too late");
}

#[test]
fn several_slots_are_had_together_or_not_at_all() {
    run(async {
        let pool = pool(16 << 20);
        let lent = filled(&pool, 4 << 20, 1);
        let at = pool.lease(&lent).unwrap();
        drop(lent);
        let four = [4 << 20; 4];
        let waiting = tokio::task::spawn_local({
            let pool = pool.pool.clone();
            async move { pool.allocate_all_when_lent(&four).await }
        });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.usage().held, 0, "who waits holds nothing");
        let three = pool.allocate_all_when_lent(&four[1..]).await.unwrap();
        drop(three);
        pool.release(release_of(at, 1)).unwrap();
        let four_slots = waiting.await.unwrap().unwrap();
        assert_eq!(pool.usage().held, 4);
        // Nothing is at the peer: nobody is made to wait for what this process holds itself.
        assert!(pool.allocate_all_when_lent(&[1]).await.is_err());
        drop(four_slots);
        let never = pool.allocate_all_when_lent(&[4 << 20; 5]).await;
        assert!(!never.unwrap_err().transient);
        // Many sizes at once, as many as the whole pool holds.
        let sizes = [8 << 20, 4 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20];
        assert_eq!(pool.allocate_all_when_lent(&sizes).await.unwrap().len(), 6);
    });
}

#[test]
fn the_peer_cannot_map_a_segment_for_writing() {
    let pool = pool(4 << 20);
    pool.lease(&filled(&pool, 1, 0)).unwrap();
    for news in pool.take_news() {
        let PoolNews::Added { descriptor, .. } = news else {
            continue;
        };
        assert!(
            rustix::fs::fcntl_get_seals(&descriptor)
                .unwrap()
                .contains(SEGMENT_SEALS)
        );
        let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        if let Ok(again) = open(path, OFlags::RDWR, Mode::empty()) {
            assert!(rustix::io::pwrite(&again, b"x", 0).is_err());
            assert!(std::fs::File::from(again).set_len(0).is_err());
        }
    }
}

#[test]
fn a_segment_that_is_not_what_it_must_be_is_refused() {
    let limits = PeerPoolLimits {
        max_bytes: 1 << 20,
        max_segments: 2,
    };
    let peer = PeerPool::new(limits);
    let file = |len: u64, seals: SealFlags| {
        let file = memfd_create(c"test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, len).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        file
    };
    let refused = |slot_size: u32, slots: u32, descriptor: OwnedFd, why: &str| {
        let error = peer
            .add_segment(1, slot_size, slots, descriptor)
            .unwrap_err();
        assert!(
            matches!(error, TransportError::Protocol { .. }) && error.to_string().contains(why),
            "{error}"
        );
    };
    refused(4096, 2, file(8192, SealFlags::empty()), "sealed");
    for missing in SEGMENT_SEALS.iter() {
        refused(
            4096,
            2,
            file(8192, SEGMENT_SEALS.difference(missing)),
            "sealed",
        );
    }
    refused(4096, 3, file(8192, SEGMENT_SEALS), "long");
    refused(4096, 1, file(8192, SEGMENT_SEALS), "long");
    refused(4096, 1, crate::testing::pipe_pair().0, "sealed");
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    if let Ok(huge) = memfd_create(c"test", flags) {
        fcntl_add_seals(&huge, SEGMENT_SEALS).unwrap();
        refused(4096, 1, huge, "ordinary memory");
    }
    refused(0, 1, file(0, SEGMENT_SEALS), "slots");
    refused(4096, 0, file(0, SEGMENT_SEALS), "slots");
    refused(4097, 1, file(4097, SEGMENT_SEALS), "slots");
    refused(2048, 4, file(8192, SEGMENT_SEALS), "slots");
    refused(u32::MAX, u32::MAX, file(4096, SEGMENT_SEALS), "slots");
    refused(4096, u32::MAX, file(4096, SEGMENT_SEALS), "mapped");
    refused(1 << 20, 2, file(2 << 20, SEGMENT_SEALS), "mapped");
    peer.add_segment(1, 4096, 2, file(8192, SEGMENT_SEALS))
        .unwrap();
    refused(4096, 2, file(8192, SEGMENT_SEALS), "in use");
    peer.add_segment(2, 4096, 2, file(8192, SEGMENT_SEALS))
        .unwrap();
    assert!(
        peer.add_segment(3, 4096, 2, file(8192, SEGMENT_SEALS))
            .is_err(),
        "too many"
    );
    assert!(peer.retire_segment(3).is_err());
    peer.retire_segment(1).unwrap();
    assert_eq!(peer.mapped_bytes(), 8192);
}

#[test]
fn a_reference_out_of_bounds_is_refused() {
    let pool = pool(4 << 20);
    let peer = peer();
    let at = pool.lease(&filled(&pool, 100, 0)).unwrap();
    assert!(peer.view(at).is_err(), "not announced yet");
    announce(&pool, &peer);
    for wrong in [
        SlotRef { segment: 9, ..at },
        SlotRef { slot: 256, ..at },
        SlotRef {
            slot: u32::MAX,
            ..at
        },
        SlotRef {
            offset: 4000,
            len: 97,
            ..at
        },
        SlotRef {
            offset: u32::MAX,
            len: 1,
            ..at
        },
        SlotRef {
            len: u32::MAX,
            ..at
        },
    ] {
        assert!(
            matches!(peer.view(wrong), Err(TransportError::Protocol { .. })),
            "{wrong:?}"
        );
    }
    let view = peer
        .view(SlotRef {
            offset: 4000,
            len: 96,
            ..at
        })
        .unwrap();
    assert!(peer.retire_segment(at.segment).is_err(), "still lent");
    drop(view);
    peer.retire_segment(at.segment).unwrap();
}

#[test]
fn the_link_hears_of_releases() {
    let pool = pool(4 << 20);
    let peer = peer();
    let at = pool.lease(&filled(&pool, 100, 0)).unwrap();
    announce(&pool, &peer);
    let view = peer.view(at).unwrap();
    run(async {
        let ready = tokio::spawn({
            let peer = peer.clone();
            async move { peer.releases_ready().await }
        });
        tokio::task::yield_now().await;
        assert!(!ready.is_finished());
        std::thread::spawn(move || drop(view)).join().unwrap();
        ready.await.unwrap();
        assert_eq!(carry_releases(&peer, &pool), 1);
    });
}

#[test]
fn whatever_a_hostile_peer_releases_the_accounts_stay_right() {
    let pool = pool(2 << 20);
    let mut random = Prng::new(11);
    let mut held: Vec<Bytes> = Vec::new();
    let mut lent: Vec<SlotRef> = Vec::new();
    for _ in 0..20_000 {
        match random.below(5) {
            0 => held.extend(
                pool.allocate(1 + random.below(70_000) as usize)
                    .ok()
                    .map(SlotMut::freeze),
            ),
            1 if !held.is_empty() => {
                drop(held.swap_remove(random.below(held.len() as u64) as usize))
            }
            2 if !held.is_empty() => {
                lent.extend(pool.lease(&held[random.below(held.len() as u64) as usize]))
            }
            3 if !lent.is_empty() => {
                let at = lent.swap_remove(random.below(lent.len() as u64) as usize);
                pool.release(release_of(at, 1)).unwrap();
            }
            _ => {
                let lie = SlotRelease {
                    segment: random.below(4) as u32,
                    slot: random.below(300) as u32,
                    generation: u32::MAX - random.below(4) as u32,
                    count: random.below(3) as u32,
                };
                assert!(pool.release(lie).is_err());
            }
        }
        let usage = pool.usage();
        assert_eq!(usage.held, held.len());
        assert!(usage.mapped_bytes <= 2 << 20);
    }
    drop(held);
    lent.drain(..)
        .for_each(|at| pool.release(release_of(at, 1)).unwrap());
    let usage = pool.usage();
    assert_eq!((usage.held, usage.leased), (0, 0));
}

#[test]
fn many_threads_share_one_pool() {
    let pool = pool(8 << 20);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                let mut random = Prng::new(seed);
                for _ in 0..2_000 {
                    let Ok(mut slot) = pool.allocate(1 + random.below(20_000) as usize) else {
                        continue;
                    };
                    let mark = random.next() as u8;
                    slot.fill(mark);
                    let bytes = slot.freeze();
                    let at = pool.lease(&bytes).unwrap();
                    assert!(
                        bytes.iter().all(|byte| *byte == mark),
                        "nobody else writes it"
                    );
                    drop(bytes);
                    pool.release(release_of(at, 1)).unwrap();
                }
            });
        }
    });
    let usage = pool.usage();
    assert_eq!((usage.held, usage.leased), (0, 0));
}
