//! How far an actor has come with its mailbox, which a mailbox itself does not tell.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use actix::{Actor, Addr};

/// Counters for all mailboxes; those that share one make each other look further on than they are.
const COUNTERS: usize = 1024;

static BEGUN: [AtomicU64; COUNTERS] = [const { AtomicU64::new(0) }; COUNTERS];

/// An actor's mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mailbox(usize);

impl Mailbox {
    pub(crate) fn of<A: Actor>(address: &Addr<A>) -> Self {
        let mut hasher = DefaultHasher::new();
        address.hash(&mut hasher);
        Self(hasher.finish() as usize % COUNTERS)
    }

    /// Its actor has taken a message out and answers later.
    pub(crate) fn note_begun(self) {
        BEGUN[self.0].fetch_add(1, Ordering::Relaxed);
    }

    /// How many messages were taken out so.
    pub(crate) fn begun(self) -> u64 {
        BEGUN[self.0].load(Ordering::Relaxed)
    }
}
