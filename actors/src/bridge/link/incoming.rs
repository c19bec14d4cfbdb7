//! Calls that the peer has made. Each is answered exactly once: with a reply, an error, or that it was cancelled.

use std::collections::HashMap;
use std::rc::Rc;

use futures::future::{AbortHandle, Abortable};
use portcullis_engine::{Error, Result};
use portcullis_transport::FrameHeader;

use super::core::{LinkCore, Pushed, protocol};
use super::wire::{FLAG_CANCELLED, FLAG_ERROR, kind};
use crate::bridge::recipient::Reply;
use crate::bridge::scope;

/// The calls that the peer has made.
#[derive(Default)]
pub(super) struct Incoming {
    calls: HashMap<u64, Inbound>,
    bytes: usize,
}

struct Inbound {
    task: AbortHandle,
    bytes: usize,
}

impl Incoming {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn abort(self) {
        for call in self.calls.into_values() {
            call.task.abort();
        }
    }

    fn remove(&mut self, call: u64) -> Option<AbortHandle> {
        let inbound = self.calls.remove(&call)?;
        self.bytes = self.bytes.saturating_sub(inbound.bytes);
        Some(inbound.task)
    }
}

impl LinkCore {
    pub(super) fn receive_call(self: &Rc<Self>, header: &FrameHeader, body: &[u8]) -> Result<()> {
        self.check_credit(header.call, body.len())?;
        let target = self.exported(header.object, header.generation)?;
        let mut slots = target.slots.iter();
        let Some(slot) = slots.find(|slot| slot.method() == header.method) else {
            return Err(protocol(format!(
                "object {} has no method {:#010x}",
                header.object, header.method
            )));
        };
        let answer = scope::enter(self, || slot.dispatch(body))?;
        let (abort, registration) = AbortHandle::new_pair();
        {
            let mut incoming = self.incoming.borrow_mut();
            let bytes = body.len();
            incoming.bytes += bytes;
            let inbound = Inbound { task: abort, bytes };
            incoming.calls.insert(header.call, inbound);
        }
        let (link, call) = (Rc::clone(self), header.call);
        let task = async move {
            let answer = answer.await;
            link.reply(call, answer).await;
        };
        actix_rt::spawn(async move {
            // An aborted call was cancelled by its caller: nobody waits for it.
            let _ = Abortable::new(task, registration).await;
        });
        Ok(())
    }

    /// Holds the peer to the windows that were agreed.
    fn check_credit(&self, call: u64, len: usize) -> Result<()> {
        let limits = &self.agreed.limits;
        let incoming = self.incoming.borrow();
        let calls = incoming.calls.len();
        if calls >= limits.call_window as usize + limits.max_objects as usize {
            return Err(protocol("more calls in flight than agreed"));
        }
        if calls > 0 && incoming.bytes + len > limits.byte_window as usize {
            return Err(protocol("more bytes of calls in flight than agreed"));
        }
        if incoming.calls.contains_key(&call) {
            return Err(protocol("two calls with one id"));
        }
        Ok(())
    }

    /// The caller has gone.
    pub(super) fn receive_cancel(&self, call: u64) {
        let Some(task) = self.incoming.borrow_mut().remove(call) else {
            // Its reply is on the way.
            return;
        };
        task.abort();
        let header = FrameHeader {
            kind: kind::REPLY,
            flags: FLAG_CANCELLED,
            call,
            ..FrameHeader::default()
        };
        self.push_control(header, &[]);
    }

    async fn reply(self: &Rc<Self>, call: u64, answer: Result<Box<dyn Reply>>) {
        let outcome = match answer {
            Ok(reply) => self.push_reply(call, &*reply).await,
            Err(error) => Err(error),
        };
        // From here to the push nothing is awaited: a cancel finds the call either unanswered or gone.
        if self.incoming.borrow_mut().remove(call).is_none() {
            return;
        }
        if let Err(error) = outcome {
            let header = FrameHeader {
                kind: kind::REPLY,
                flags: FLAG_ERROR,
                call,
                ..FrameHeader::default()
            };
            match postcard::to_allocvec(&error.in_process(portcullis_transport::host::pid())) {
                Ok(body) => self.push_control(header, &body),
                Err(cause) => tracing::error!(%cause, "an error cannot be encoded"),
            }
        }
    }

    /// Pushes a reply as soon as there is room for it on the link and for its payloads in shared memory.
    async fn push_reply(self: &Rc<Self>, call: u64, reply: &dyn Reply) -> Result<()> {
        let header = FrameHeader {
            kind: kind::REPLY,
            call,
            ..FrameHeader::default()
        };
        loop {
            let window = self.agreed.limits.byte_window as usize;
            if self.sender.queued_bytes() > window {
                // It fails only when the link has ended, and with it this task.
                let _ = self.sender.queued_at_most(window).await;
            }
            if self.is_lost() {
                return Ok(());
            }
            match self.encode(|into| reply.encode(into)) {
                Ok(encoded) => {
                    return match self.push(header, encoded) {
                        Pushed::Refused(error) => Err(error),
                        Pushed::Done | Pushed::Ended => Ok(()),
                    };
                }
                Err(error) => {
                    let Some(len) = self.take_exhausted() else {
                        return Err(Error::invalid_request(format!(
                            "a reply cannot cross the process wall: {error}"
                        )));
                    };
                    // Every slot is at the peer: its releases are what goes on from here.
                    let room = self.payloads.borrow().room(len);
                    room.await;
                }
            }
        }
    }
}
