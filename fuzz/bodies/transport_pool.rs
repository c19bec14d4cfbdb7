//! A pool and its peer's half, driven by any sequence of uses and lies: the accounts stay right.

use bytes::Bytes;
use portcullis_transport::pool::PeerPoolLimits;
use portcullis_transport::{
    PeerPool, Pool, PoolLimits, PoolNews, SlotMut, SlotRef, SlotRelease, SlotView,
};

/// Six bytes are one step.
pub(crate) fn run(data: &[u8]) {
    let pool = Pool::new(PoolLimits { max_bytes: 4 << 20 });
    let peer = PeerPool::new(PeerPoolLimits::default());
    let mut held: Vec<Bytes> = Vec::new();
    let mut views: Vec<SlotView> = Vec::new();
    // Views of references that were never given: kept to the end, for their releases are lies too.
    let mut rogue: Vec<SlotView> = Vec::new();
    let mut releases = Vec::new();
    for step in data.chunks_exact(6) {
        let [what, a, b, c, d, e] = *step else {
            continue;
        };
        let index = usize::from(a);
        match what % 7 {
            0 => held.extend(
                pool.allocate(usize::from(a) << (b % 16))
                    .ok()
                    .map(SlotMut::freeze),
            ),
            1 if index < held.len() => drop(held.swap_remove(index)),
            2 if index < held.len() => {
                if let Some(at) = pool.lease(&held[index]) {
                    announce(&pool, &peer);
                    let view = peer.view(at).expect("what the pool gave is valid");
                    assert_eq!(view.to_bytes(), held[index]);
                    views.push(view);
                }
            }
            3 if index < views.len() => drop(views.swap_remove(index)),
            4 => {
                peer.take_releases(&mut releases);
                for release in releases.drain(..) {
                    pool.release(release).expect("an honest release");
                }
            }
            5 => {
                // Generations this high are not reached here: the pool must see each of these as a lie.
                let lie = SlotRelease {
                    segment: a.into(),
                    slot: b.into(),
                    generation: u32::MAX - u32::from(c),
                    count: d.into(),
                };
                assert!(pool.release(lie).is_err());
            }
            6 => {
                let at = SlotRef {
                    segment: a.into(),
                    slot: b.into(),
                    generation: 1,
                    offset: u32::from(c) << (d % 32),
                    len: u32::from(e) << (d / 8),
                };
                if let Ok(view) = peer.view(at) {
                    assert_eq!(view.to_bytes().len(), view.len());
                    assert_eq!(view.read_u64(view.len()), None);
                    rogue.push(view);
                }
            }
            _ => {}
        }
        assert!(pool.usage().mapped_bytes <= 4 << 20);
    }
    held.clear();
    views.clear();
    peer.take_releases(&mut releases);
    for release in releases {
        pool.release(release).expect("an honest release");
    }
    let usage = pool.usage();
    assert_eq!((usage.held, usage.leased), (0, 0));
}

fn announce(pool: &Pool, peer: &PeerPool) {
    for news in pool.take_news() {
        match news {
            PoolNews::Added {
                segment,
                slot_size,
                slots,
                descriptor,
            } => peer
                .add_segment(segment, slot_size, slots, descriptor)
                .expect("a sound segment"),
            // A rogue view may still use it: then it stays.
            PoolNews::Retired { segment } => drop(peer.retire_segment(segment)),
            _ => {}
        }
    }
}
