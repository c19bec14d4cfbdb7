//! Tells the peer when an actor has ended to which it has a handle, and hears the same of the peer's.
//!
//! The notice goes the way of the replies and behind all of them that were there when the actor ended. The actor's end wakes
//! who waits for it after it has woken its callers, and both run in the order in which they were woken; an answer that is
//! there and waits for room holds the notice up.

use std::rc::Rc;
use std::sync::Arc;

use futures::future::AbortHandle;
use portcullis_engine::{Error, Result};
use portcullis_transport::FrameHeader;

use super::core::{LinkCore, protocol};
use super::wire::kind;
use crate::bridge::handle::Shared;

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
        if self.is_lost() || self.exported(object, generation).is_none() {
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
        // One that was released meanwhile is nobody's concern any more.
        let life = self
            .objects
            .borrow()
            .life_of(header.object, header.generation);
        let Some(life) = life else {
            return Ok(());
        };
        let end: Error = postcard::from_bytes(body)
            .map_err(|error| protocol(format!("end of object {}: {error}", header.object)))?;
        life.end(end.in_process(self.agreed.peer_pid));
        Ok(())
    }
}
