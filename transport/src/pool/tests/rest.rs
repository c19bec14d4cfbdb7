//! Slots that rest take no room that is needed.

use super::*;

#[test]
fn in_a_small_pool_no_slot_is_made_for_the_sake_of_rest() {
    let pool = pool(8 << 20);
    for _ in 0..10 {
        drop(pool.allocate(4 << 20).unwrap());
    }
    assert_eq!(pool.usage().mapped_bytes, 4 << 20);
    let large = pool.allocate(4 << 20).unwrap();
    let small = pool.allocate(100_000).unwrap();
    assert!(pool.usage().mapped_bytes < 8 << 20, "has a slot of its own");
    drop((large, small));
}

#[test]
fn in_a_large_pool_two_slots_take_turns() {
    let pool = pool(64 << 20);
    let mut places = BTreeSet::new();
    let mut last = 0;
    for _ in 0..10 {
        let slot = pool.allocate(4 << 20).unwrap();
        assert_ne!(slot.as_ptr().addr(), last);
        last = slot.as_ptr().addr();
        places.insert(last);
    }
    assert_eq!((places.len(), pool.usage().mapped_bytes), (2, 8 << 20));
}
