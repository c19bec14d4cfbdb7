//! One pool and several peers, memory that is passed on, and peers that are trusted.

use super::*;
use crate::error::LendRefused;
use crate::pool::peer::PeerTerms;
use crate::sys::mapping::TrustedPeer;

/// One more peer of a pool, as its owner sees it and as it sees itself.
struct Seat {
    lender: Lender,
    view: PeerPool,
}

impl Seat {
    fn of(pool: &Pool, limits: LenderLimits) -> Self {
        Self {
            lender: Lender::new(pool.clone(), limits),
            view: PeerPool::new(PeerPoolLimits::default()),
        }
    }

    fn announce(&mut self) -> usize {
        let news = self.lender.take_news();
        let count = news.len();
        for news in news {
            match news {
                PoolNews::Added {
                    segment,
                    slot_size,
                    slots,
                    descriptor,
                } => self
                    .view
                    .add_segment(segment, slot_size, slots, descriptor)
                    .unwrap(),
                PoolNews::Retired { segment } => self.view.retire_segment(segment).unwrap(),
            }
        }
        count
    }

    fn take(&mut self, at: SlotRef) -> SlotView {
        self.announce();
        self.view.view(at).unwrap()
    }

    fn carry_releases(&mut self) -> usize {
        let mut releases = Vec::new();
        self.view.take_releases(&mut releases);
        for release in &releases {
            self.lender.release(*release).unwrap();
        }
        releases.len()
    }
}

fn shared(max_bytes: usize) -> Pool {
    Pool::new(PoolLimits { max_bytes })
}

fn filled(pool: &Pool, len: usize, seed: u8) -> Bytes {
    let mut slot = pool.allocate(len).unwrap();
    slot.fill(seed);
    slot.freeze()
}

#[test]
fn one_slot_goes_to_two_peers_and_is_free_after_the_last() {
    let pool = shared(16 << 20);
    let limits = LenderLimits::beside_others(16 << 20, &pool);
    let (mut a, mut b) = (Seat::of(&pool, limits), Seat::of(&pool, limits));
    let bytes = filled(&pool, 100_000, 7);
    let at_a = a.lender.lease(&bytes).unwrap().unwrap();
    let at_b = b.lender.lease(&bytes.slice(1000..)).unwrap().unwrap();
    let (view_a, view_b) = (a.take(at_a), b.take(at_b));
    assert_eq!(view_a.to_bytes(), bytes);
    assert_eq!(view_b.to_bytes(), bytes[1000..]);
    assert_eq!(pool.usage().mapped_bytes, 1 << 20, "nothing was copied");
    drop((bytes, view_a));
    assert_eq!(a.carry_releases(), 1);
    assert_eq!(pool.usage().leased, 1, "the other still reads it");
    drop(view_b);
    assert_eq!(b.carry_releases(), 1);
    let usage = pool.usage();
    assert_eq!((usage.held, usage.leased), (0, 0));
}

#[test]
fn a_peer_cannot_give_back_what_another_has() {
    let pool = shared(16 << 20);
    let limits = LenderLimits::beside_others(16 << 20, &pool);
    let (mut a, mut b) = (Seat::of(&pool, limits), Seat::of(&pool, limits));
    let bytes = filled(&pool, 100_000, 7);
    let at = a.lender.lease(&bytes).unwrap().unwrap();
    assert!(
        b.lender.release(release_of(at, 1)).is_err(),
        "was told nothing"
    );
    let other = filled(&pool, 100_000, 8);
    b.lender.lease(&other).unwrap().unwrap();
    assert!(
        b.lender.release(release_of(at, 1)).is_err(),
        "was not lent it"
    );
    assert_eq!(pool.usage().leased, 2);
    assert_eq!(b.lender.revoke_all(), 1);
    drop((bytes, other));
    assert_eq!(pool.usage().leased, 1);
    a.lender.release(release_of(at, 1)).unwrap();
    assert_eq!(pool.usage().leased, 0);
}

#[test]
fn one_peer_that_keeps_everything_leaves_the_others_their_part() {
    let pool = shared(16 << 20);
    let limits = LenderLimits::beside_others(16 << 20, &pool);
    let (mut a, mut b) = (Seat::of(&pool, limits), Seat::of(&pool, limits));
    let mut kept = Vec::new();
    let refused: LendRefused = loop {
        let bytes = filled(&pool, 1 << 20, 1);
        match a.lender.lease(&bytes) {
            Ok(at) => kept.extend(at),
            Err(refused) => break refused,
        }
    };
    assert!(refused.transient, "{refused}");
    assert_eq!(kept.len(), 8);
    for _ in 0..8 {
        let at = b.lender.lease(&filled(&pool, 1 << 20, 2)).unwrap().unwrap();
        drop(b.take(at));
    }
    assert_eq!(b.carry_releases(), 8);
    // One that it has already costs nothing more, and what it gives back it gets again.
    let again = kept.pop().unwrap();
    a.lender.release(release_of(again, 1)).unwrap();
    assert!(
        a.lender
            .lease(&filled(&pool, 1 << 20, 1))
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_peer_that_maps_little_is_told_little_at_a_time() {
    let pool = shared(64 << 20);
    let mut seat = Seat::of(&pool, LenderLimits::alone(2 << 20));
    let (small, large) = (filled(&pool, 5000, 1), filled(&pool, 1 << 20, 2));
    let more = filled(&pool, 200_000, 3);
    let at_small = seat.lender.lease(&small).unwrap().unwrap();
    let view = seat.take(at_small);
    let at_large = seat.lender.lease(&large).unwrap().unwrap();
    drop(seat.take(at_large));
    let refused = seat.lender.lease(&more).unwrap_err();
    assert!(refused.transient, "{refused}");
    assert_eq!(pool.usage().leased, 2, "a refusal takes nothing");
    seat.carry_releases();
    let at_more = seat.lender.lease(&more).unwrap().unwrap();
    assert_eq!(seat.announce(), 2, "one comes for another that goes");
    assert_eq!(seat.view.view(at_more).unwrap().to_bytes(), more);
    assert_eq!(view.to_bytes(), small);
    assert_eq!(seat.view.mapped_bytes(), 2 << 20);
}

/// A sample of a foreign process, as a forwarder has it.
struct Origin {
    lent: Lent,
    here: PeerPool,
}

impl Origin {
    fn beside(pool: Option<&Pool>) -> Self {
        let terms = PeerTerms {
            beside: pool.cloned(),
            trust: None,
        };
        Self {
            lent: super::pool(16 << 20),
            here: PeerPool::on_terms(PeerPoolLimits::default(), terms),
        }
    }

    fn sample(&self, seed: u8) -> SlotView {
        let bytes = super::filled(&self.lent, 100_000, seed);
        let at = self.lent.lease(&bytes).unwrap();
        announce(&self.lent, &self.here);
        self.here.view(at).unwrap()
    }
}

#[test]
fn a_foreign_sample_is_passed_on_without_a_copy_and_released_after_the_last() {
    let pool = shared(16 << 20);
    let origin = Origin::beside(Some(&pool));
    let mut seat = Seat::of(&pool, LenderLimits::alone(16 << 20));
    let view = origin.sample(5);
    let expected = view.to_bytes();
    let first = seat.lender.forward(&view).unwrap().unwrap();
    let second = seat.lender.forward(&view).unwrap().unwrap();
    assert_eq!(first, second);
    drop(view);
    let (one, two) = (seat.take(first), seat.take(second));
    assert_eq!(one.to_bytes(), expected);
    assert_eq!(pool.usage().mapped_bytes, 0, "no slot of the forwarder");
    drop(one);
    assert_eq!(seat.carry_releases(), 1);
    assert_eq!(carry_releases(&origin.here, &origin.lent), 0, "not yet");
    drop(two);
    assert_eq!(seat.carry_releases(), 1);
    assert_eq!(carry_releases(&origin.here, &origin.lent), 1);
    assert_eq!(origin.lent.usage().leased, 0);
    assert!(seat.lender.release(release_of(first, 1)).is_err());
    let next = origin.sample(6);
    let third = seat.lender.forward(&next).unwrap().unwrap();
    assert_ne!(third.generation, first.generation);
    assert_eq!(seat.announce(), 0, "the segment is known");
    // The peer dies with it.
    assert_eq!(seat.lender.revoke_all(), 1);
    drop(next);
    assert_eq!(carry_releases(&origin.here, &origin.lent), 1);
}

#[test]
fn strangers_are_shown_nothing_of_each_other() {
    let (pool, other) = (shared(16 << 20), shared(16 << 20));
    let mut seat = Seat::of(&pool, LenderLimits::alone(16 << 20));
    for origin in [Origin::beside(None), Origin::beside(Some(&other))] {
        let view = origin.sample(5);
        assert_eq!(seat.lender.forward(&view).unwrap(), None);
    }
    assert_eq!(seat.lender.lease(&filled(&other, 5000, 1)).unwrap(), None);
    assert_eq!(seat.announce(), 0);
}

#[test]
fn segments_that_their_owner_gave_up_are_told_no_more() {
    let pool = shared(16 << 20);
    let origin = Origin::beside(Some(&pool));
    let mut seat = Seat::of(&pool, LenderLimits::alone(16 << 20));
    let view = origin.sample(1);
    let at = seat.lender.forward(&view).unwrap().unwrap();
    drop((seat.take(at), view));
    seat.carry_releases();
    carry_releases(&origin.here, &origin.lent);
    // Another size takes all of the origin's pool.
    let whole = super::filled(&origin.lent, 16 << 20, 2);
    origin.lent.lease(&whole).unwrap();
    announce(&origin.lent, &origin.here);
    let own = filled(&pool, 5000, 3);
    seat.lender.lease(&own).unwrap().unwrap();
    assert_eq!(seat.announce(), 2);
    assert_eq!(seat.view.mapped_bytes(), 1 << 20);
}

/// Has a peer announce a segment and lend it.
fn segment_of_one_slot(of: &PeerPool, id: u32) -> SlotView {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create(c"test", flags).unwrap();
    ftruncate(&file, 4096).unwrap();
    fcntl_add_seals(&file, SEGMENT_SEALS).unwrap();
    of.add_segment(id, 4096, 1, file).unwrap();
    let at = SlotRef {
        segment: id,
        slot: 0,
        generation: 1,
        offset: 0,
        len: 4096,
    };
    of.view(at).unwrap()
}

#[test]
fn a_peer_with_many_segments_does_not_make_another_map_them_all() {
    let pool = shared(16 << 20);
    let origin = PeerPool::on_terms(
        PeerPoolLimits::default(),
        PeerTerms {
            beside: Some(pool.clone()),
            trust: None,
        },
    );
    let mut seat = Seat::of(&pool, LenderLimits::alone(16 << 20));
    let other = PeerPool::on_terms(
        PeerPoolLimits::default(),
        PeerTerms {
            beside: Some(pool.clone()),
            trust: None,
        },
    );
    // So many are passed on of one peer at most.
    let mut kept = Vec::new();
    let refused = loop {
        let from = [&origin, &other][kept.len() % 2];
        let view = segment_of_one_slot(from, kept.len() as u32);
        match seat.lender.forward(&view) {
            Ok(at) => kept.push(at.unwrap()),
            Err(refused) => break refused,
        }
    };
    assert!(
        refused.transient && kept.len() == 64,
        "{} {refused}",
        kept.len()
    );
    seat.lender.release(release_of(kept[0], 1)).unwrap();
    let view = segment_of_one_slot(&origin, 1000);
    assert!(
        seat.lender.forward(&view).unwrap().is_some(),
        "there is one less"
    );
}

#[test]
fn a_peer_with_many_segments_does_not_use_up_descriptors() {
    let pool = shared(16 << 20);
    let terms = PeerTerms {
        beside: Some(pool.clone()),
        trust: None,
    };
    let origin = PeerPool::on_terms(PeerPoolLimits::default(), terms);
    let mut seat = Seat::of(&pool, LenderLimits::alone(16 << 20));
    let mut passed_on = |id: u32| {
        let view = segment_of_one_slot(&origin, id);
        let at = seat.lender.forward(&view).unwrap();
        let is_passed_on = at.is_some();
        if let Some(at) = at {
            seat.lender.release(release_of(at, 1)).unwrap();
        }
        is_passed_on
    };
    assert!((0..64).all(&mut passed_on));
    assert!(!(64..1000).any(&mut passed_on), "further ones are copied");
    origin.retire_segment(999).unwrap();
    assert!(!passed_on(999));
    origin.retire_segment(0).unwrap();
    assert!(passed_on(0), "there is one less");
}

#[test]
fn a_lender_that_goes_gives_nothing_back_of_other_peers() {
    let pool = shared(16 << 20);
    let origin = Origin::beside(Some(&pool));
    let mut seat = Seat::of(&pool, LenderLimits::alone(16 << 20));
    let view = origin.sample(5);
    seat.lender.forward(&view).unwrap().unwrap();
    drop(view);
    drop(seat);
    assert_eq!(carry_releases(&origin.here, &origin.lent), 0);
    assert_eq!(origin.lent.usage().leased, 1, "the peer may be reading it");
    let mut seat = Seat::of(&pool, LenderLimits::alone(16 << 20));
    let view = origin.sample(6);
    seat.lender.forward(&view).unwrap().unwrap();
    seat.lender.revoke_all();
    drop((view, seat));
    assert_eq!(carry_releases(&origin.here, &origin.lent), 1);
}

#[test]
fn only_what_a_trusted_peer_lends_is_seen_as_plain_bytes() {
    let lent = super::pool(16 << 20);
    let terms = PeerTerms {
        beside: None,
        trust: Some(TrustedPeer::this_process()),
    };
    let trusted = PeerPool::on_terms(PeerPoolLimits::default(), terms);
    let bytes = super::filled(&lent, 100_000, 9);
    let at = lent.lease(&bytes).unwrap();
    announce(&lent, &trusted);
    let plain = trusted.view(at).unwrap().plain_bytes().unwrap();
    assert_eq!(plain, bytes);
    let part = plain.slice(500..600);
    drop((bytes, plain));
    assert_eq!(carry_releases(&trusted, &lent), 0, "a part is left");
    assert!(
        part.iter()
            .zip(500usize..)
            .all(|(byte, at)| *byte == (9 + at) as u8)
    );
    drop(part);
    assert_eq!(carry_releases(&trusted, &lent), 1);
    let stranger = Origin::beside(None);
    assert!(stranger.sample(1).plain_bytes().is_none());
}

#[test]
fn a_lender_that_goes_takes_nothing_back() {
    let lent = super::pool(4 << 20);
    let bytes = super::filled(&lent, 5000, 9);
    lent.lease(&bytes).unwrap();
    let pool = lent.pool.clone();
    drop((lent, bytes));
    assert_eq!(pool.usage().leased, 1, "the peer may be reading it");
}

#[test]
fn who_waits_for_room_is_woken_by_a_release_and_takes_nothing() {
    run(async {
        let lent = super::pool(4 << 20);
        let held = super::filled(&lent, 4 << 20, 1);
        lent.room_when_lent(100).await;
        let at = lent.lease(&held).unwrap();
        drop(held);
        assert!(!lent.has_room_or_none_lent(100));
        let waiting = tokio::task::spawn_local({
            let pool = lent.pool.clone();
            async move { pool.room_when_lent(100).await }
        });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        lent.release(release_of(at, 1)).unwrap();
        waiting.await.unwrap();
        assert!(lent.has_room_or_none_lent(100));
        assert_eq!(lent.usage().held, 0);
    });
}
