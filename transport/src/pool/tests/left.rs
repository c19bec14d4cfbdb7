//! Memory that peers keep after it was given up.

use super::*;

const MAX: usize = 8 << 20;

/// Slots of these lengths at once: segments that are cut otherwise are given up, as nobody has anything of them.
fn all(pool: &Pool, lens: &[usize]) -> Option<Vec<SlotMut>> {
    run(pool.allocate_all_when_lent(lens)).ok()
}

/// Lends slots of these lengths and has them released, if they can be had.
fn lend(pool: &Lent, lens: &[usize]) -> bool {
    let Some(slots) = all(pool, lens) else {
        return false;
    };
    for slot in slots {
        let at = pool.lease(&slot.freeze()).unwrap();
        pool.release(release_of(at, 1)).unwrap();
    }
    true
}

/// Bytes of the files that a peer was sent, which a hostile one keeps.
fn told(pool: &Lent) -> usize {
    let added = pool.take_news().into_iter().map(|news| match news {
        PoolNews::Added {
            slot_size, slots, ..
        } => slot_size as usize * slots as usize,
        PoolNews::Retired { .. } => 0,
    });
    added.sum()
}

#[test]
fn a_peer_that_keeps_what_was_given_up_does_not_grow_the_pool_for_ever() {
    let pool = pool(MAX);
    let mut sum = 0;
    let mut rounds = 0;
    while lend(&pool, &[MAX]) && lend(&pool, &[4 << 20; 2]) {
        sum += told(&pool);
        rounds += 1;
        assert!(rounds < 1000, "it does not end");
    }
    sum += told(&pool);
    let usage = pool.usage();
    assert!(
        usage.left_bytes > 3 * MAX && sum <= 5 * MAX,
        "{sum} {usage:?}"
    );
    assert_eq!(usage.leased, 0);
    // Nobody waits for what does not come, and what there is serves on.
    let refused = match lend(&pool, &[MAX]) {
        false => vec![MAX],
        true => vec![4 << 20; 2],
    };
    run(async {
        assert!(pool.allocate_all_when_lent(&refused).await.is_err());
        if let [one] = refused[..] {
            assert!(!pool.allocate(one).unwrap_err().transient);
            assert!(pool.allocate_when_free(one).await.is_err());
            pool.room_when_lent(one).await;
        }
    });
    for _ in 0..100 {
        assert!(lend(&pool, &[4 << 20]) && lend(&pool, &[100]));
    }
    // With the peer its mappings go.
    pool.revoke_all();
    assert_eq!(pool.usage().left_bytes, 0);
    assert!(all(&pool, &refused).is_some());
}

#[test]
fn what_no_peer_knows_is_given_up_as_often_as_it_takes_and_first() {
    let pool = pool(MAX);
    for _ in 0..100 {
        assert!(all(&pool, &[MAX]).is_some());
        assert!(all(&pool, &[4 << 20; 2]).is_some());
    }
    assert_eq!(pool.usage().left_bytes, 0);
    // One of two must go: not the older one, of which the peer knows.
    let pool = super::pool(12 << 20);
    let known = filled(&pool, 4 << 20, 1);
    let unknown = pool.allocate(4 << 20).unwrap();
    let at = pool.lease(&known).unwrap();
    pool.release(release_of(at, 1)).unwrap();
    drop((known, unknown));
    assert!(pool.allocate(8 << 20).is_ok());
    assert_eq!(pool.usage().left_bytes, 0);
    assert!(pool.allocate(12 << 20).is_err(), "no slot is of this size");
    assert!(all(&pool, &[8 << 20, 4 << 20]).is_some());
    assert_eq!(pool.usage().left_bytes, 0, "and this one fits beside it");
}

#[test]
fn what_cannot_be_made_room_for_costs_no_segment() {
    let pool = pool(MAX);
    let held = filled(&pool, 1 << 20, 1);
    assert!(lend(&pool, &[4 << 20]));
    assert!(pool.allocate(MAX).unwrap_err().transient);
    assert_eq!(pool.usage().left_bytes, 0);
    drop(held);
    assert!(pool.allocate(MAX).is_ok());
    assert_eq!(pool.usage().left_bytes, 4 << 20);
}
