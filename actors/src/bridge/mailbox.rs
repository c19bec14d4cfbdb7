//! How far an actor in a context of actix's own has come with its mailbox, which that does not tell. Of one in ours its
//! [`Life`](super::life::Life) knows.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use actix::{Actor, Addr};

/// Counters for all mailboxes; those that share one make each other look further on than they are.
const COUNTERS: usize = 1024;

static READ: [AtomicU64; COUNTERS] = [const { AtomicU64::new(0) }; COUNTERS];

thread_local! {
    /// Whether the message whose handler has just returned was counted by its context.
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// An actor's mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mailbox(usize);

impl Mailbox {
    pub(crate) fn of<A: Actor>(address: &Addr<A>) -> Self {
        let mut hasher = DefaultHasher::new();
        address.hash(&mut hasher);
        Self(hasher.finish() as usize % COUNTERS)
    }

    /// How many messages were taken out whose handlers answer by what [`note_read`] is called from.
    pub(crate) fn read(self) -> u64 {
        READ[self.0].load(Ordering::Relaxed)
    }
}

/// An actor with this address has taken a message out and its handler has returned.
pub(crate) fn note_read<A: Actor>(address: impl FnOnce() -> Addr<A>) {
    if !IS_COUNTED.get() {
        let Mailbox(counter) = Mailbox::of(&address());
        READ[counter].fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs `body` for a message that was counted before.
pub(crate) fn counted<R>(body: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            IS_COUNTED.set(self.0);
        }
    }
    let _restore = Restore(IS_COUNTED.replace(true));
    body()
}

#[cfg(test)]
mod tests {
    use actix::Handler;
    use portcullis_derive::Remote;
    use serde::{Deserialize, Serialize};

    use super::super::{Context, Handle, ReplyFuture};

    crate::interface! { Reader = "test.Reader" { Read } }

    #[derive(Serialize, Deserialize, Remote)]
    struct Read;

    struct ReaderActor;

    impl actix::Actor for ReaderActor {
        type Context = Context<Self>;
    }

    impl Handler<Read> for ReaderActor {
        type Result = ReplyFuture<()>;
        fn handle(&mut self, _: Read, _: &mut Self::Context) -> Self::Result {
            ReplyFuture::ready(Ok(()))
        }
    }

    #[test]
    fn what_an_actor_of_ours_has_read_no_other_makes_more_of() {
        actix_rt::System::new().block_on(async {
            let one = Handle::<Reader>::start(ReaderActor);
            for _ in 0..3 {
                one.send(Read).await.expect("is read");
            }
            // More than there are counters.
            let others: Vec<_> = (0..10 * super::COUNTERS)
                .map(|_| Handle::<Reader>::start(ReaderActor))
                .collect();
            for other in &others {
                other.send(Read).await.expect("is read");
            }
            let one = one.into_any();
            assert_eq!(one.shared().read(), Some(3));
        });
    }
}
