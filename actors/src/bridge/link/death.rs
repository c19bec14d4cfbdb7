//! Tells the peer when an actor has ended to which it has a handle, and hears the same of the peer's.
//!
//! The notice goes the way of the replies and behind all of them that were there when the actor ended. The actor's end wakes
//! who waits for it after it has woken its callers, and both run in the order in which they were woken; an answer that is
//! there and waits for room holds the notice up.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::future::AbortHandle;
use portcullis_engine::{Error, Result};
use portcullis_transport::FrameHeader;

use super::core::{LinkCore, protocol};
use super::objects::Export;
use super::wire::kind;
use crate::bridge::handle::Shared;
use crate::bridge::life::Life;
use crate::bridge::scope;

/// An object's id and its generation.
type Key = (u32, u32);

/// Ends that are waited for where no handle is left.
#[derive(Default)]
pub(super) struct Vigils {
    /// Of the peer's actors.
    ours: HashMap<Key, Vec<Weak<Life>>>,
    /// Of this side's actors, for the peer.
    theirs: HashMap<Key, AbortOnDrop>,
    /// Of ours, those for which nobody waits any more.
    given_up: Arc<Mutex<Vec<Key>>>,
}

impl Vigils {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ours.len() + self.theirs.len()
    }

    /// All actors of the peer have ended, for this reason.
    pub(super) fn end(self, end: &Error) {
        for life in self.ours.into_values().flatten() {
            if let Some(life) = life.upgrade() {
                life.end(end.clone());
            }
        }
    }
}

/// Ends a task of the link.
pub(super) struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl LinkCore {
    /// Waits for the end of an exported actor, for as long as it is exported.
    pub(super) fn mourn(self: &Rc<Self>, shared: &Shared, id: u32, generation: u32) -> AbortOnDrop {
        let (abort, registration) = AbortHandle::new_pair();
        let (life, object) = (Arc::clone(&shared.life), shared.object);
        // What is told of its end is told while it is exported; the link does not live for it.
        let link = Rc::downgrade(self);
        let mourning = async move {
            let end = life.ended().await;
            let Some(link) = link.upgrade() else {
                return;
            };
            // Those that came in this turn were not looked at yet.
            link.look_for_answers();
            loop {
                let answered = link.answered.notified();
                if !link.incoming.borrow().has_answers_of(object) {
                    break;
                }
                answered.await;
            }
            link.push_death(id, generation, end);
        };
        let mourning = futures::future::Abortable::new(mourning, registration);
        actix_rt::spawn(async move {
            // Aborted with the export.
            let _ = mourning.await;
        });
        AbortOnDrop(abort)
    }

    fn push_death(&self, object: u32, generation: u32, end: Error) {
        let vigil = self
            .vigils
            .borrow_mut()
            .theirs
            .remove(&(object, generation));
        let is_exported = self.objects.borrow_mut().tell(object, generation);
        if self.is_lost() || !(is_exported || vigil.is_some()) {
            return;
        }
        let header = FrameHeader {
            kind: kind::DEATH,
            object,
            generation,
            ..FrameHeader::default()
        };
        match postcard::to_allocvec(&end.in_process(portcullis_transport::host::pid())) {
            Ok(body) => self.push_control(header, &body),
            Err(cause) => tracing::error!(%cause, "an error cannot be encoded"),
        }
    }

    /// An actor of the peer has ended.
    pub(super) fn receive_death(&self, header: &FrameHeader, body: &[u8]) -> Result<()> {
        let key = (header.object, header.generation);
        let watched = self.vigils.borrow_mut().ours.remove(&key);
        let watched = watched.into_iter().flatten();
        let mut lives: Vec<_> = watched.filter_map(|life| life.upgrade()).collect();
        lives.extend(self.objects.borrow().life_of(key.0, key.1));
        // One that was released meanwhile is nobody's concern any more.
        if lives.is_empty() {
            return Ok(());
        }
        let end: Error = scope::read(body)
            .map_err(|why| protocol(format!("end of object {}: {why}", header.object)))?;
        let end = end.in_process(self.agreed.peer_pid);
        for life in lives {
            life.end(end.clone());
        }
        Ok(())
    }

    /// The last handle here to an actor of the peer has gone; whether somebody still waits for its end.
    pub(super) fn keep_watch(&self, key: Key, life: Arc<Life>) -> bool {
        // One is here, one is with the proxy, which is stopping.
        if Arc::strong_count(&life) <= 2 || life.told_end().is_some() {
            return false;
        }
        let mut vigils = self.vigils.borrow_mut();
        if vigils.ours.len() >= self.agreed.limits.max_objects as usize {
            // Nothing more is heard of it here.
            life.end(Error::cancelled());
            return false;
        }
        let (given_up, sweep) = (Arc::clone(&vigils.given_up), Arc::clone(&self.sweep));
        life.when_given_up(Box::new(move || {
            given_up
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(key);
            sweep.notify_one();
        }));
        let lives = vigils.ours.entry(key).or_default();
        lives.push(Arc::downgrade(&life));
        drop(vigils);
        // It may be the last one by now.
        drop(life);
        true
    }

    /// The last handle here to an actor of the peer has gone with the link: who waits for its end is told of the link's.
    pub(super) fn watch_loss(&self, key: Key, life: &Arc<Life>) {
        match self.check() {
            Err(end) => life.end(end),
            // The cause is being found out.
            Ok(()) => {
                let mut vigils = self.vigils.borrow_mut();
                vigils
                    .ours
                    .entry(key)
                    .or_default()
                    .push(Arc::downgrade(life));
            }
        }
    }

    /// Tells the peer of whose ends nobody waits any more.
    pub(super) fn give_up_watches(&self) {
        let given_up = {
            let vigils = self.vigils.borrow();
            let mut given_up = vigils
                .given_up
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *given_up)
        };
        for key in given_up {
            let is_over = {
                let mut vigils = self.vigils.borrow_mut();
                let Some(lives) = vigils.ours.get_mut(&key) else {
                    continue;
                };
                lives.retain(|life| life.strong_count() > 0);
                lives.is_empty() && vigils.ours.remove(&key).is_some()
            };
            if is_over {
                self.push_release(key, 0, 0);
            }
        }
    }

    /// An export has lost its last reference.
    pub(super) fn unexport(&self, index: usize, export: Export) -> Result<()> {
        if export.is_watched && !export.is_told {
            let mut vigils = self.vigils.borrow_mut();
            if vigils.theirs.len() >= self.agreed.limits.max_objects as usize {
                return Err(protocol("more watches of released objects than agreed"));
            }
            // An index is below `max_objects`.
            let key = (index as u32, export.generation);
            vigils.theirs.insert(key, export.mourner);
        }
        // What is left of it is dropped here, outside of any borrow: it may be the last handle to an actor.
        Ok(())
    }

    /// The peer waits for an object's end no more.
    pub(super) fn receive_unwatch(&self, key: Key) -> Result<()> {
        let vigil = self.vigils.borrow_mut().theirs.remove(&key);
        // It may have crossed with the end.
        match vigil.is_some() || self.was_exported(key.0, key.1) {
            true => Ok(()),
            false => Err(protocol("a release of what was not given")),
        }
    }
}
