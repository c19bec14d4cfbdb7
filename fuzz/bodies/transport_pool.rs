//! A pool, its peer's half, and a second peer to which the first one's samples are passed on, driven by any sequence of uses
//! and lies: the accounts stay right.

use bytes::Bytes;
use portcullis_transport::pool::PeerPoolLimits;
use portcullis_transport::{
    Lender, LenderLimits, PeerPool, PeerTerms, Pool, PoolLimits, PoolNews, SlotMut, SlotRef,
    SlotRelease, SlotView,
};

/// Six bytes are one step.
pub(crate) fn run(data: &[u8]) {
    let pool = Pool::new(PoolLimits { max_bytes: 4 << 20 });
    let mut lender = Lender::new(pool.clone(), LenderLimits::alone(4 << 20));
    // What the peer does with it: it passes it on to another.
    let forwarder = Pool::new(PoolLimits { max_bytes: 1 << 20 });
    let terms = PeerTerms {
        beside: Some(forwarder.clone()),
        trust: None,
    };
    let peer = PeerPool::on_terms(PeerPoolLimits::default(), terms);
    let mut onward = Lender::new(forwarder, LenderLimits::alone(2 << 20));
    let mut passed: Vec<SlotRef> = Vec::new();
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
        match what % 9 {
            0 => held.extend(
                pool.allocate(usize::from(a) << (b % 16))
                    .ok()
                    .map(SlotMut::freeze),
            ),
            1 if index < held.len() => drop(held.swap_remove(index)),
            2 if index < held.len() => {
                if let Ok(Some(at)) = lender.lease(&held[index]) {
                    announce(&mut lender, &peer);
                    let view = peer.view(at).expect("what the pool gave is valid");
                    assert_eq!(view.to_bytes(), held[index]);
                    views.push(view);
                }
            }
            3 if index < views.len() => drop(views.swap_remove(index)),
            4 => {
                peer.take_releases(&mut releases);
                for release in releases.drain(..) {
                    lender.release(release).expect("an honest release");
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
                assert!(lender.release(lie).is_err());
                assert!(onward.release(lie).is_err());
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
            7 if index < views.len() => passed.extend(onward.forward(&views[index]).ok().flatten()),
            8 if index < passed.len() => {
                let at = passed.swap_remove(index);
                onward.release(back(at)).expect("was passed on");
            }
            _ => {}
        }
        assert!(pool.usage().mapped_bytes <= 4 << 20);
    }
    held.clear();
    for at in passed {
        onward.release(back(at)).expect("was passed on");
    }
    assert_eq!(onward.lent(), 0);
    views.clear();
    peer.take_releases(&mut releases);
    for release in releases {
        lender.release(release).expect("an honest release");
    }
    let usage = pool.usage();
    assert_eq!((usage.held, usage.leased), (0, 0));
}

fn back(at: SlotRef) -> SlotRelease {
    SlotRelease {
        segment: at.segment,
        slot: at.slot,
        generation: at.generation,
        count: 1,
    }
}

fn announce(lender: &mut Lender, peer: &PeerPool) {
    for news in lender.take_news() {
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
