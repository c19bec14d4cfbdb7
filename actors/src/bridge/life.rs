//! Whether an actor lives, and why it does not any more.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock, Weak};
use std::time::Duration;

use actix::{Actor, Addr};
use dashmap::DashMap;
use portcullis_engine::{Error, ErrorKind};
use tokio::sync::Notify;

/// The lives of this process's actors by their mailbox, for handles that are made of an address. An actor's end takes its
/// entry away while the mailbox still is: no other one can have its place in memory.
static LIVES: LazyLock<DashMap<usize, Weak<Life>>> = LazyLock::new(DashMap::new);

/// How often an actor is asked that runs in a context of actix's own.
const ASK: Duration = Duration::from_millis(500);

/// Tells whether an actor can still be sent anything, without keeping it.
pub(crate) type IsConnected = Box<dyn Fn() -> bool + Send + Sync>;

/// What all handles to one actor know of its end.
#[derive(Default)]
pub(crate) struct Life {
    /// Why it ends. Known a moment before the rest: calls that die with the actor are over before it counts as over.
    end: OnceLock<Error>,
    is_over: AtomicBool,
    over: Notify,
    /// Of an actor that runs in a context of actix's own, which tells nobody of its end.
    is_connected: Option<IsConnected>,
    given_up: OnceLock<GivenUp>,
    /// Messages that the actor has taken out of its mailbox, if it runs in a context of ours.
    read: AtomicU64,
}

/// Called when nobody waits for an actor's end any more.
type GivenUp = Box<dyn Fn() + Send + Sync>;

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(given_up) = self.given_up.take() {
            given_up();
        }
    }
}

impl Life {
    /// Of an actor whose end will be told.
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Of an actor that can only be asked.
    pub(crate) fn asked(is_connected: IsConnected) -> Arc<Self> {
        let mut life = Self::default();
        life.is_connected = Some(is_connected);
        Arc::new(life)
    }

    /// The life of the actor with this mailbox, if its end will be told.
    pub(crate) fn of<A: Actor>(address: &Addr<A>) -> Option<Arc<Self>> {
        LIVES.get(&key(address))?.upgrade()
    }

    /// The actor that has this mailbox begins; what comes back is for [`Life::forget`].
    pub(crate) fn begin<A: Actor>(self: &Arc<Self>, address: &Addr<A>) -> usize {
        let key = key(address);
        LIVES.insert(key, Arc::downgrade(self));
        key
    }

    /// The actor's mailbox is about to go.
    pub(crate) fn forget(key: usize) {
        LIVES.remove(&key);
    }

    /// Notes why the actor ends; the first reason counts.
    pub(crate) fn note_end(&self, error: Error) {
        // A later reason is none.
        let _ = self.end.set(error);
    }

    /// The actor has ended, and what waited in its mailbox with it.
    pub(crate) fn finish(&self) {
        self.is_over.store(true, Ordering::Release);
        self.over.notify_waiters();
    }

    /// Calls `given_up` when nobody waits for the actor's end any more. For one at most.
    pub(crate) fn when_given_up(&self, given_up: GivenUp) {
        // The first one stays.
        let _ = self.given_up.set(given_up);
    }

    /// Both at once.
    pub(crate) fn end(&self, error: Error) {
        self.note_end(error);
        self.finish();
    }

    /// Why the actor has ended, if it has and its end is told.
    pub(crate) fn told_end(&self) -> Option<&Error> {
        self.end.get()
    }

    /// Why the actor has ended, if it has.
    pub(crate) fn now(&self) -> Option<Error> {
        let asked = || {
            let is_gone = self.is_connected.as_ref().is_some_and(|is| !is());
            is_gone.then(|| Error::new(ErrorKind::ActorStopped))
        };
        self.end.get().cloned().or_else(asked)
    }

    /// The actor, which runs in a context of ours, has taken a message out of its mailbox.
    pub(crate) fn note_read(&self) {
        self.read.fetch_add(1, Ordering::Relaxed);
    }

    /// How many it has taken out.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Whether the end has to be asked for.
    pub(crate) fn is_asked(&self) -> bool {
        self.is_connected.is_some()
    }

    /// Waits for the end, on an arbiter: asks for it where it is not told.
    pub(crate) async fn ended(self: Arc<Self>) -> Error {
        if !self.is_asked() {
            return self.told().await;
        }
        loop {
            if let Some(end) = self.now() {
                return end;
            }
            tokio::time::sleep(ASK).await;
        }
    }

    /// Waits for an end that is told.
    pub(crate) async fn told(self: Arc<Self>) -> Error {
        loop {
            let over = self.over.notified();
            // Looked at after the registration, so that no end falls in between.
            if self.is_over.load(Ordering::Acquire) {
                let end = self.end.get().cloned();
                return end.unwrap_or_else(|| Error::new(ErrorKind::ActorStopped));
            }
            over.await;
        }
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Life({:?})", self.end.get())
    }
}

/// What a call to an actor gets that ended so before: the panic was another call's.
pub(crate) fn later(end: &Error) -> Error {
    match end.kind() {
        ErrorKind::Panicked { .. } => {
            Error::new(ErrorKind::ActorStopped).because(format!("it {}", end.kind()))
        }
        _ => end.clone(),
    }
}

/// The mailbox's place in memory: what an address hashes.
fn key<A: Actor>(address: &Addr<A>) -> usize {
    struct Place(usize);
    impl Hasher for Place {
        fn finish(&self) -> u64 {
            self.0 as u64
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = self.0.rotate_left(8) ^ usize::from(*byte);
            }
        }
        fn write_usize(&mut self, place: usize) {
            self.0 = place;
        }
    }
    let mut place = Place(0);
    address.hash(&mut place);
    place.0
}
