//! A pool with one peer, as most tests have it.

use super::*;

/// A pool and the one peer that it is lent to.
pub(super) struct Lent {
    pub(super) pool: Pool,
    lender: Mutex<Lender>,
}

impl std::ops::Deref for Lent {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.pool
    }
}

impl Lent {
    fn lender(&self) -> MutexGuard<'_, Lender> {
        self.lender.lock().unwrap()
    }

    pub(super) fn locate(&self, bytes: &Bytes) -> Option<SlotRef> {
        let place = self.pool.shared.table().locate(bytes)?;
        Some(SlotRef {
            segment: place.segment,
            slot: place.slot,
            generation: place.generation,
            offset: place.offset,
            len: place.len,
        })
    }

    pub(super) fn lease(&self, bytes: &Bytes) -> Option<SlotRef> {
        self.lender().lease(bytes).unwrap()
    }

    pub(super) fn release(&self, release: SlotRelease) -> Result<(), TransportError> {
        self.lender().release(release)
    }

    pub(super) fn revoke_all(&self) -> usize {
        self.lender().revoke_all()
    }

    pub(super) fn take_news(&self) -> Vec<PoolNews> {
        self.lender().take_news()
    }
}

pub(super) fn pool(max_bytes: usize) -> Lent {
    let pool = Pool::new(PoolLimits { max_bytes });
    let lender = Lender::new(pool.clone(), LenderLimits::alone(max_bytes as u64));
    Lent {
        pool,
        lender: Mutex::new(lender),
    }
}
