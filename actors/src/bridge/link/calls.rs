//! Calls in flight, in both directions.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use actix::dev::OneshotSender;
use futures::future::{AbortHandle, Abortable};
use portcullis_engine::{Error, ErrorKind, Result};
use portcullis_transport::FrameHeader;
use slab::Slab;

use super::core::{LinkCore, protocol};
use super::wire::{FLAG_ERROR, kind};
use crate::bridge::remote::Remote;
use crate::bridge::scope;

/// The calls of a link.
#[derive(Default)]
pub(super) struct Calls {
    pending: Slab<Pending>,
    inbound: HashMap<u64, AbortHandle>,
    issued: u32,
}

/// A call whose answer is awaited here.
struct Pending {
    generation: u32,
    deadline: Option<Instant>,
    what: &'static str,
    caller: Box<dyn Caller>,
}

/// A caller whose message type is forgotten.
trait Caller {
    fn has_gone(&self) -> bool;
    /// Decodes the answer and hands it over; an error is the peer's fault.
    fn answer(self: Box<Self>, body: &[u8]) -> Result<()>;
    fn fail(self: Box<Self>, error: Error);
}

struct TypedCaller<M: Remote>(Option<OneshotSender<M::Result>>);

impl<M: Remote> Caller for TypedCaller<M> {
    fn has_gone(&self) -> bool {
        self.0.as_ref().is_some_and(OneshotSender::is_closed)
    }

    fn answer(self: Box<Self>, body: &[u8]) -> Result<()> {
        let reply: Result<M::Reply> = postcard::from_bytes(body)
            .map_err(|error| protocol(format!("reply of {}: {error}", M::NAME)));
        let fault = reply.as_ref().err().cloned();
        if let Some(caller) = self.0 {
            // A caller that has gone in the meantime needs no answer; what the reply holds is released by its drop.
            let _ = caller.send(reply);
        }
        fault.map_or(Ok(()), Err)
    }

    fn fail(self: Box<Self>, error: Error) {
        if let Some(caller) = self.0 {
            let _ = caller.send(Err(error));
        }
    }
}

/// A message in the form in which it crosses, not yet on its way.
#[derive(Debug)]
pub(crate) struct EncodedCall {
    header: FrameHeader,
    body: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Calls {
    pub(super) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn cancel_inbound(&mut self, call: u64) {
        if let Some(task) = self.inbound.remove(&call) {
            task.abort();
        }
    }

    pub(super) fn fail(self, error: &Error) {
        for (_, task) in self.inbound {
            task.abort();
        }
        for pending in self.pending {
            pending.1.caller.fail(error.clone());
        }
    }

    fn take(&mut self, call: u64) -> Option<Pending> {
        let (index, generation) = (call as u32 as usize, (call >> 32) as u32);
        if self.pending.get(index)?.generation != generation {
            return None;
        }
        Some(self.pending.remove(index))
    }

    fn was_issued(&self, call: u64) -> bool {
        let generation = (call >> 32) as u32;
        generation != 0 && (generation <= self.issued)
    }
}

impl LinkCore {
    /// Encodes a request to an object of the peer.
    pub(crate) fn encode_call<M: Remote>(
        self: &Rc<Self>,
        object: u32,
        generation: u32,
        message: &M,
    ) -> Result<EncodedCall> {
        self.check()?;
        let body = self
            .encode(|into| postcard::to_extend(message, into))
            .map_err(|error| {
                if let Some(len) = self.payloads.borrow_mut().take_exhausted() {
                    Error::limit("shared payload memory", 0, len as u64).because(M::NAME)
                } else {
                    Error::invalid_request(format!(
                        "{} cannot cross the process wall: {error}",
                        M::NAME
                    ))
                }
            })?;
        Ok(EncodedCall {
            header: FrameHeader {
                kind: kind::CALL,
                object,
                generation,
                method: M::ID,
                deadline_us: M::DEADLINE
                    .map_or(0, |d| u32::try_from(d.as_micros()).unwrap_or(u32::MAX)),
                ..FrameHeader::default()
            },
            body,
            descriptors: self.take_outgoing_descriptors(),
        })
    }

    /// Puts a request on its way; its answer goes to `caller`.
    pub(crate) fn start_call<M: Remote>(
        &self,
        call: EncodedCall,
        caller: Option<OneshotSender<M::Result>>,
    ) {
        let EncodedCall {
            mut header,
            body,
            descriptors,
        } = call;
        if let Err(error) = self.check() {
            return Box::new(TypedCaller::<M>(caller)).fail(error);
        }
        {
            let mut calls = self.calls.borrow_mut();
            calls.issued = calls.issued.wrapping_add(1).max(1);
            let generation = calls.issued;
            let index = calls.pending.insert(Pending {
                generation,
                deadline: M::DEADLINE.map(|wait| Instant::now() + wait),
                what: M::NAME,
                caller: Box::new(TypedCaller::<M>(caller)),
            });
            header.call = (u64::from(generation) << 32) | index as u64;
        }
        if self.is_lost() {
            // The cause is being found out: this call is failed with the others.
            return;
        }
        if let Err(error) = self.push(header, &body, descriptors) {
            let failed = self.calls.borrow_mut().take(header.call);
            if let Some(pending) = failed {
                pending.caller.fail(error);
            }
        }
    }

    /// Runs `write` as the encoding of one message; on failure what it exported is taken back.
    fn encode(
        self: &Rc<Self>,
        write: impl FnOnce(Vec<u8>) -> postcard::Result<Vec<u8>>,
    ) -> postcard::Result<Vec<u8>> {
        self.begin_encoding();
        let body = scope::enter(self, || write(Vec::with_capacity(128)));
        if body.is_ok() {
            self.keep_encoding();
        } else {
            self.undo_encoding();
            self.take_outgoing_descriptors();
        }
        body
    }

    /// Cancels calls whose callers have gone and fails those whose deadline has passed.
    pub(super) fn sweep(&self, now: Instant) {
        let (mut gone, mut late) = (Vec::new(), Vec::new());
        {
            let mut calls = self.calls.borrow_mut();
            let ended: Vec<_> = calls
                .pending
                .iter()
                .filter(|(_, p)| p.caller.has_gone() || p.deadline.is_some_and(|d| d <= now))
                .map(|(index, _)| index)
                .collect();
            for index in ended {
                let pending = calls.pending.remove(index);
                gone.push((u64::from(pending.generation) << 32) | index as u64);
                late.push(pending);
            }
        }
        for call in gone {
            let header = FrameHeader {
                kind: kind::CANCEL,
                call,
                ..FrameHeader::default()
            };
            self.push_control(header, &[]);
        }
        for pending in late {
            let what = pending.what.into();
            pending
                .caller
                .fail(Error::new(ErrorKind::DeadlineExceeded { what }));
        }
        self.credit.notify_waiters();
    }

    pub(super) fn receive_reply(self: &Rc<Self>, header: &FrameHeader, body: &[u8]) -> Result<()> {
        let pending = {
            let mut calls = self.calls.borrow_mut();
            match calls.take(header.call) {
                Some(pending) => pending,
                // Cancelled here while the answer was on its way: what it carries is taken in and released again.
                None if calls.was_issued(header.call) => {
                    drop(calls);
                    return self.discard_reply(header, body);
                }
                None => return Err(protocol("a reply to a call that was never made")),
            }
        };
        self.credit.notify_waiters();
        if header.flags & FLAG_ERROR != 0 {
            let error: Error = postcard::from_bytes(body)
                .map_err(|error| protocol(format!("error of {}: {error}", pending.what)))?;
            pending.caller.fail(error.in_process(self.agreed.peer_pid));
            return Ok(());
        }
        scope::enter(self, || pending.caller.answer(body))
    }

    fn discard_reply(self: &Rc<Self>, _: &FrameHeader, _: &[u8]) -> Result<()> {
        // Its type is unknown, so leases and references inside of it cannot be found. The peer that saw the cancel gives
        // none out; the few that crossed with it are reclaimed when the link ends.
        Ok(())
    }

    pub(super) fn receive_call(self: &Rc<Self>, header: &FrameHeader, body: &[u8]) -> Result<()> {
        let limit = (self.agreed.limits.call_window + self.agreed.limits.max_objects) as usize;
        if self.calls.borrow().inbound.len() >= limit {
            return Err(protocol("more calls in flight than agreed"));
        }
        if self.calls.borrow().inbound.contains_key(&header.call) {
            return Err(protocol("two calls with one id"));
        }
        let target = self.exported(header.object, header.generation)?;
        let Some(slot) = target
            .slots
            .iter()
            .find(|slot| slot.method() == header.method)
        else {
            return Err(protocol(format!(
                "object {} has no method {:#010x}",
                header.object, header.method
            )));
        };
        let answer = scope::enter(self, || slot.dispatch(body))?;
        let (abort, registration) = AbortHandle::new_pair();
        self.calls.borrow_mut().inbound.insert(header.call, abort);
        let link = Rc::clone(self);
        let call = header.call;
        let task = async move {
            let answer = answer.await;
            link.reply(call, answer).await;
            link.calls.borrow_mut().inbound.remove(&call);
        };
        actix_rt::spawn(async move {
            // An aborted call was cancelled by its caller: nobody waits for it.
            let _ = Abortable::new(task, registration).await;
        });
        Ok(())
    }

    async fn reply(
        self: &Rc<Self>,
        call: u64,
        answer: Result<Box<dyn crate::bridge::recipient::Reply>>,
    ) {
        let mut header = FrameHeader {
            kind: kind::REPLY,
            call,
            ..FrameHeader::default()
        };
        let outcome = match answer {
            Ok(reply) => loop {
                if self.is_lost() {
                    return;
                }
                match self.encode(|into| reply.encode(into)) {
                    Ok(body) => break self.push(header, &body, self.take_outgoing_descriptors()),
                    Err(error) => {
                        let exhausted = self.payloads.borrow_mut().take_exhausted();
                        let Some(len) = exhausted else {
                            break Err(protocol(format!("a reply cannot cross: {error}")));
                        };
                        // Every slot is at the peer: its releases are what goes on from here.
                        let room = self.payloads.borrow().room(len);
                        room.await;
                    }
                }
            },
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            header.flags = FLAG_ERROR;
            let error = error.in_process(std::process::id());
            match postcard::to_allocvec(&error) {
                Ok(body) => self.push_control(header, &body),
                Err(cause) => tracing::error!(%cause, "an error cannot be encoded"),
            }
        }
    }
}
