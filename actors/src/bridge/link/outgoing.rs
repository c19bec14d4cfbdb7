//! Calls that this side has made.
//!
//! Every call has a slot until the peer's one final reply, also one whose caller has gone: the reply may have crossed with
//! the cancel, and what it carries (handles, leases of slots) must be taken in to be given back. A call for which the peer
//! has no credit left, or for whose payloads there is no shared memory yet, waits here as the message that it is, behind
//! those to the same object; its deadline counts all the time.

mod table;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use futures::future::{AbortHandle, Abortable};
use portcullis_engine::{Error, ErrorKind, Result};
use portcullis_transport::FrameHeader;
use tokio::time::Instant;

pub(crate) use self::table::Caller;
use self::table::{AbortOnDrop, Asker, Outstanding, Queued, Stage, TypedMessage};
pub(super) use self::table::{Outgoing, window};
use super::core::{Encoded, LinkCore, Pushed, Unencoded, protocol};
use super::wire::{FLAG_CANCELLED, FLAG_ERROR, FLAG_TRACED, kind};
use crate::bridge::gate::{Class, Permit};
use crate::bridge::payload_port::{Memory, Needs};
use crate::bridge::proxy::Proxy;
use crate::bridge::remote::{Remote, deadline_of};
use crate::bridge::scope;
use crate::bridge::trace::TraceContext;

/// How long a peer that reads its link may take to answer a cancel, which it does at once.
pub(super) const CANCEL_DEADLINE: Duration = Duration::from_secs(10);

/// When to look again at one that is overdue.
const CANCEL_LOOK: Duration = Duration::from_secs(1);

/// What a call has from its way to the link.
pub(crate) struct Way {
    /// Its place.
    pub(crate) permit: Permit,
    /// Of a call that was made before it came to the link.
    pub(crate) deadline: Option<Instant>,
    pub(crate) trace: Option<TraceContext>,
}

/// What has become of an attempt to make a message cross.
enum Attempt {
    Ready(Encoded),
    NoCredit,
    /// Its payloads need slots of these lengths.
    NoRoom(Needs),
    Refused(Error),
}

impl LinkCore {
    /// Whether a call may be made just now: not from within what the link itself does.
    pub(crate) fn takes_calls(&self) -> bool {
        !scope::is_active() && self.outgoing.try_borrow_mut().is_ok()
    }

    /// Puts a request on its way, as soon as there is room for it; its answer goes to `caller`.
    pub(crate) fn call<M: Remote>(
        self: &Rc<Self>,
        object: (u32, u32),
        message: M,
        caller: Arc<dyn Caller>,
        way: Way,
        proxy: impl FnOnce() -> Addr<Proxy>,
    ) {
        // One that has gone on the way here was told to the link before the link knew of the call.
        if caller.has_gone() {
            return;
        }
        if let Err(error) = self.check() {
            return caller.fail(error);
        }
        let Way {
            permit,
            deadline,
            trace,
        } = way;
        let class = Class::of::<M>();
        let is_free = self.outgoing.borrow().is_free(object, class);
        let attempt = match is_free {
            true => {
                let write = |into| postcard::to_extend(&message, into);
                self.attempt(class, M::NAME, Memory::Free, write)
            }
            false => Attempt::NoCredit,
        };
        let deadline = deadline.or_else(deadline_of::<M>);
        let mut call = Outstanding {
            generation: 0,
            trace,
            object,
            what: M::NAME,
            deadline,
            class,
            bytes: 0,
            caller: Asker::new(caller),
            permit,
            stage: Stage::Sent,
        };
        let wait = match attempt {
            Attempt::Refused(error) => return call.caller.fail(error),
            Attempt::Ready(encoded) => {
                call.bytes = encoded.len();
                let call = self.outgoing.borrow_mut().insert(call);
                self.note_deadline(deadline);
                return self.push_call(call, object, M::ID, encoded, trace);
            }
            Attempt::NoCredit => None,
            Attempt::NoRoom(needs) => Some(needs),
        };
        call.stage = Stage::Queued(Queued {
            message: Some(Box::new(TypedMessage {
                message,
                _proxy: proxy(),
            })),
            // It waits for memory and is not to be tried before; otherwise it has its turn by `advance`.
            is_head: wait.is_some(),
            room: None,
        });
        let call = {
            let mut outgoing = self.outgoing.borrow_mut();
            let call = outgoing.insert(call);
            outgoing.advance(object);
            call
        };
        self.note_deadline(deadline);
        match wait {
            Some(needs) => self.wait_for_room(call, &needs),
            None => self.send_queued(),
        }
    }

    fn note_deadline(&self, deadline: Option<Instant>) {
        let mut outgoing = self.outgoing.borrow_mut();
        if let Some(deadline) = deadline
            && outgoing.next_deadline.is_none_or(|next| deadline < next)
        {
            outgoing.next_deadline = Some(deadline);
            self.sweep.notify_one();
        }
    }

    /// Encodes a message if it may cross now.
    fn attempt(
        self: &Rc<Self>,
        class: Class,
        what: &'static str,
        memory: Memory,
        write: impl FnOnce(Vec<u8>) -> postcard::Result<Vec<u8>>,
    ) -> Attempt {
        let limits = &self.agreed.limits;
        let has_credit = |bytes| self.outgoing.borrow().has_credit(class, bytes, limits);
        if self.is_lost() || !has_credit(0) {
            return Attempt::NoCredit;
        }
        match self.encode(memory, write) {
            Ok(encoded) if encoded.len() > limits.byte_window as usize => {
                let (max, len) = (u64::from(limits.byte_window), encoded.len() as u64);
                self.undo(encoded);
                Attempt::Refused(Error::limit("bytes of a request", max, len).because(what))
            }
            Ok(encoded) if has_credit(encoded.len()) => Attempt::Ready(encoded),
            Ok(encoded) => {
                self.undo(encoded);
                Attempt::NoCredit
            }
            Err(Unencoded::NoRoom(needs)) => Attempt::NoRoom(needs),
            Err(Unencoded::Failed(why)) => Attempt::Refused(Error::invalid_request(format!(
                "{what} cannot cross the process wall: {why}"
            ))),
        }
    }

    fn push_call(
        &self,
        call: u64,
        object: (u32, u32),
        method: u32,
        encoded: Encoded,
        trace: Option<TraceContext>,
    ) {
        let header = FrameHeader {
            kind: kind::CALL,
            flags: trace.map_or(0, |_| FLAG_TRACED),
            object: object.0,
            generation: object.1,
            method,
            call,
            ..FrameHeader::default()
        };
        let trace = trace.map(TraceContext::to_bytes);
        let prefix = trace.as_ref().map_or(&[][..], <[u8; _]>::as_slice);
        if let Pushed::Refused(error) = self.push(header, prefix, encoded) {
            let failed = self.outgoing.borrow_mut().remove(call);
            if let Some(failed) = failed {
                failed.caller.fail(error);
            }
        }
    }

    /// Sends what waits and may go now.
    pub(super) fn send_queued(self: &Rc<Self>) {
        for class in Class::ALL {
            // Where the link has ended, what waits is failed with the cause, which is being found out.
            while !self.is_lost() {
                let limits = &self.agreed.limits;
                let call = {
                    let mut outgoing = self.outgoing.borrow_mut();
                    match outgoing.has_credit(class, 0, limits) {
                        true => outgoing.next_ready(class),
                        false => None,
                    }
                };
                if !call.is_some_and(|call| self.try_queued(call, Memory::Free)) {
                    break;
                }
            }
        }
    }

    /// Tries the oldest call of an object; whether others of its class may be tried then.
    fn try_queued(self: &Rc<Self>, call: u64, memory: Memory) -> bool {
        let taken = {
            let mut outgoing = self.outgoing.borrow_mut();
            outgoing.get_mut(call).and_then(|call| {
                let Stage::Queued(queued) = &mut call.stage else {
                    return None;
                };
                let message = queued.message.take()?;
                Some((call.class, call.object, call.what, call.trace, message))
            })
        };
        let Some((class, object, what, trace, message)) = taken else {
            return true;
        };
        let method = message.method();
        let attempt = self.attempt(class, what, memory, |into| message.encode(into));
        let put_back = |message| {
            if let Some(queued) = self.outgoing.borrow_mut().waiting(call) {
                queued.message = Some(message);
            }
        };
        match attempt {
            Attempt::Ready(encoded) => {
                self.outgoing.borrow_mut().set_sent(call, encoded.len());
                self.push_call(call, object, method, encoded, trace);
                // Dropped after the push: what it alone held is released after it.
                drop(message);
                true
            }
            Attempt::NoCredit => {
                put_back(message);
                self.outgoing.borrow_mut().wait_for_credit(call);
                false
            }
            Attempt::NoRoom(needs) => {
                put_back(message);
                self.wait_for_room(call, &needs);
                true
            }
            Attempt::Refused(error) => {
                let failed = {
                    let mut outgoing = self.outgoing.borrow_mut();
                    let failed = outgoing.remove(call);
                    outgoing.advance(object);
                    failed
                };
                if let Some(failed) = failed {
                    failed.caller.fail(error);
                }
                true
            }
        }
    }

    /// Tries a call again when all slots that its payloads need are free together.
    fn wait_for_room(self: &Rc<Self>, call: u64, needs: &Needs) {
        let (abort, registration) = AbortHandle::new_pair();
        if let Some(queued) = self.outgoing.borrow_mut().waiting(call) {
            queued.room = Some(AbortOnDrop(abort));
        }
        let room = self.payloads.borrow().room(needs);
        let link = Rc::clone(self);
        let wait = async move {
            let memory = room.await;
            // A message that never finds the room that it asked for leaves others their turn.
            tokio::task::yield_now().await;
            link.try_queued(call, memory);
            link.send_queued();
        };
        actix_rt::spawn(async move {
            // Aborted with the call for which it waits.
            let _ = Abortable::new(wait, registration).await;
        });
    }

    /// Cancels calls whose callers have gone and fails those whose deadline has passed.
    ///
    /// # Errors
    /// `Protocol` for a peer that answers everything but cancels.
    pub(super) fn sweep(self: &Rc<Self>, now: Instant) -> Result<()> {
        let mut cancelled = Vec::new();
        let mut dropped: Vec<Outstanding> = Vec::new();
        {
            let mut outgoing = self.outgoing.borrow_mut();
            let heard = self.peer.borrow().last_heard();
            let mut next = None;
            let mut never_sent = Vec::new();
            for (index, call) in &mut outgoing.calls {
                if let Stage::Cancelled(since) = call.stage {
                    let deadline = since + CANCEL_DEADLINE;
                    // One that says nothing is another matter: see the heartbeat. Nor is it to blame for what it may have said
                    // while this side itself stood still, and has not been read.
                    if heard >= deadline {
                        return Err(protocol(format!(
                            "no answer to the cancel of {}",
                            call.what
                        )));
                    }
                    next = earlier(next, deadline.max(now + CANCEL_LOOK));
                    continue;
                }
                let is_late = call.deadline.is_some_and(|deadline| deadline <= now);
                if is_late {
                    let what = call.what.into();
                    call.caller
                        .fail(Error::new(ErrorKind::DeadlineExceeded { what }));
                } else if !call.caller.has_gone() {
                    next = call
                        .deadline
                        .map_or(next, |deadline| earlier(next, deadline));
                    continue;
                }
                let id = u64::from(call.generation) << 32 | index as u64;
                if let Stage::Queued(_) = call.stage {
                    never_sent.push(id);
                } else {
                    call.stage = Stage::Cancelled(now);
                    next = earlier(next, now + CANCEL_DEADLINE);
                    cancelled.push(id);
                }
            }
            outgoing.next_deadline = next;
            dropped.extend(never_sent.into_iter().filter_map(|id| outgoing.remove(id)));
            let mut objects: Vec<_> = dropped.iter().map(|call| call.object).collect();
            objects.sort_unstable();
            objects.dedup();
            objects.into_iter().for_each(|object| outgoing.tidy(object));
        }
        // Outside of the borrow: a message may hold the last handle of something, and a place goes to the next one.
        drop(dropped);
        let in_line = self.lines.expire(now);
        {
            let mut outgoing = self.outgoing.borrow_mut();
            outgoing.next_deadline = [outgoing.next_deadline, in_line]
                .into_iter()
                .flatten()
                .min();
        }
        for call in cancelled {
            let header = FrameHeader {
                kind: kind::CANCEL,
                call,
                ..FrameHeader::default()
            };
            self.push_control(header, &[]);
        }
        self.send_queued();
        Ok(())
    }

    pub(super) fn receive_reply(self: &Rc<Self>, header: &FrameHeader, body: &[u8]) -> Result<()> {
        let mut call = {
            let mut outgoing = self.outgoing.borrow_mut();
            match outgoing.get_mut(header.call) {
                Some(call) if !matches!(call.stage, Stage::Queued(_)) => {}
                _ => return Err(protocol("a reply to a call that was not made")),
            }
            let removed = outgoing.remove(header.call);
            removed.ok_or_else(|| protocol("a reply to a call that was not made"))?
        };
        self.send_queued();
        self.objects
            .borrow_mut()
            .ended_call(call.object, &call.permit);
        let was_cancelled = matches!(call.stage, Stage::Cancelled(_));
        if header.flags & FLAG_CANCELLED != 0 {
            if was_cancelled {
                return Ok(());
            }
            let fault = protocol(format!("{} was not cancelled", call.what));
            call.caller.fail(fault.clone());
            return Err(fault);
        }
        if header.flags & FLAG_ERROR != 0 {
            let error = scope::read::<Error>(body)
                .map_err(|why| protocol(format!("error of {}: {why}", call.what)));
            let fault = error.as_ref().err().cloned();
            let error = error.unwrap_or_else(|fault| fault);
            call.caller.fail(error.in_process(self.agreed.peer_pid));
            return fault.map_or(Ok(()), Err);
        }
        scope::enter(self, || call.caller.answer(body))
    }
}

fn earlier(one: Option<Instant>, other: Instant) -> Option<Instant> {
    Some(one.map_or(other, |one| one.min(other)))
}
