//! Calls that this side has made.
//!
//! Every call has a slot until the peer's one final reply, also one whose caller has gone: the reply may have crossed with
//! the cancel, and what it carries (handles, leases of slots) must be taken in to be given back. A call for which the peer
//! has no credit left is held here, in order, and its proxy's mailbox stands still until there is room again.

use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use actix::dev::OneshotSender;
use portcullis_engine::{Error, ErrorKind, Result};
use portcullis_transport::{FrameHeader, LinkLimits};
use slab::Slab;
use tokio::time::Instant;

use super::core::{Encoded, LinkCore, Pushed, protocol};
use super::wire::{FLAG_CANCELLED, FLAG_ERROR, kind};
use crate::bridge::remote::Remote;
use crate::bridge::scope;

/// How long a peer that reads its link may take to answer a cancel, which it does at once.
const CANCEL_DEADLINE: Duration = Duration::from_secs(10);

/// The calls that this side has made.
#[derive(Default)]
pub(super) struct Outgoing {
    calls: Slab<Outstanding>,
    generations: u32,
    /// Calls that wait for credit, oldest first.
    held: VecDeque<u64>,
    sent: Sent,
    /// When the earliest deadline passes, as far as it is known.
    next_deadline: Option<Instant>,
}

/// What is at the peer.
#[derive(Clone, Copy, Default)]
struct Sent {
    /// Calls with a deadline.
    prompt: usize,
    /// Calls that wait by design.
    patient: usize,
    /// Bytes of all of them.
    bytes: usize,
}

struct Outstanding {
    generation: u32,
    what: &'static str,
    deadline: Option<Instant>,
    is_patient: bool,
    bytes: usize,
    caller: Box<dyn Caller>,
    stage: Stage,
}

enum Stage {
    Held(FrameHeader, Encoded),
    Sent,
    /// The caller has gone; since when the peer knows.
    Cancelled(Instant),
}

/// A caller whose message type is forgotten.
trait Caller {
    fn has_gone(&self) -> bool;
    /// Decodes the answer and hands it over; an error is the peer's fault. Where the caller has gone, what the answer
    /// holds is given back.
    fn answer(self: Box<Self>, body: &[u8]) -> Result<()>;
    fn fail(&mut self, error: Error);
}

struct TypedCaller<M: Remote>(Option<OneshotSender<M::Result>>);

impl<M: Remote> Caller for TypedCaller<M> {
    fn has_gone(&self) -> bool {
        self.0.as_ref().is_some_and(OneshotSender::is_closed)
    }

    fn answer(self: Box<Self>, body: &[u8]) -> Result<()> {
        let reply: M::Result = postcard::from_bytes(body)
            .map_err(|error| protocol(format!("reply of {}: {error}", M::NAME)));
        let fault = reply.as_ref().err().cloned();
        if let Some(caller) = self.0 {
            // A caller that has gone needs no answer; what the reply holds is released by its drop.
            let _ = caller.send(reply);
        }
        fault.map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: Error) {
        if let Some(caller) = self.0.take() {
            // As above.
            let _ = caller.send(Err(error));
        }
    }
}

/// A request in the form in which it crosses, not yet on its way.
#[derive(Debug)]
pub(crate) struct EncodedCall {
    header: FrameHeader,
    encoded: Encoded,
}

impl Sent {
    fn of(call: &Outstanding) -> Self {
        Self {
            prompt: usize::from(!call.is_patient),
            patient: usize::from(call.is_patient),
            bytes: call.bytes,
        }
    }

    fn add(&mut self, other: Self) {
        self.prompt += other.prompt;
        self.patient += other.patient;
        self.bytes += other.bytes;
    }

    fn subtract(&mut self, other: Self) {
        self.prompt = self.prompt.saturating_sub(other.prompt);
        self.patient = self.patient.saturating_sub(other.patient);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }

    /// Whether so much may be at the peer. One call of any size always may.
    fn is_within(&self, limits: &LinkLimits) -> bool {
        let calls = self.prompt + self.patient;
        self.prompt <= limits.call_window as usize
            && self.patient <= limits.max_objects as usize
            && (calls == 1 || self.bytes <= limits.byte_window as usize)
    }
}

impl Outgoing {
    /// Whether somebody waits for the peer.
    pub(super) fn is_waiting(&self) -> bool {
        self.sent.prompt + self.sent.patient > 0
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline
    }

    pub(super) fn fail(self, error: &Error) {
        for (_, mut call) in self.calls {
            call.caller.fail(error.clone());
        }
    }

    fn has_credit(&self, limits: &LinkLimits) -> bool {
        let mut more = self.sent;
        more.add(Sent {
            prompt: 1,
            patient: 1,
            bytes: 1,
        });
        self.held.is_empty() && more.is_within(limits)
    }

    fn insert(&mut self, mut call: Outstanding) -> u64 {
        self.generations = self.generations.wrapping_add(1).max(1);
        call.generation = self.generations;
        let generation = u64::from(call.generation) << 32;
        generation | self.calls.insert(call) as u64
    }

    fn get_mut(&mut self, call: u64) -> Option<&mut Outstanding> {
        let (index, generation) = (call as u32 as usize, (call >> 32) as u32);
        self.calls
            .get_mut(index)
            .filter(|call| call.generation == generation)
    }

    fn remove(&mut self, call: u64) -> Option<Outstanding> {
        self.get_mut(call)?;
        let removed = self.calls.try_remove(call as u32 as usize)?;
        if !matches!(removed.stage, Stage::Held(..)) {
            self.sent.subtract(Sent::of(&removed));
        }
        Some(removed)
    }

    /// The next held call that may go now.
    fn next_to_send(&mut self, limits: &LinkLimits) -> Option<(u64, FrameHeader, Encoded)> {
        loop {
            let call = *self.held.front()?;
            let sent = self.sent;
            let Some(held) = self.get_mut(call) else {
                // Its caller has gone meanwhile.
                self.held.pop_front();
                continue;
            };
            let own = Sent::of(held);
            let mut more = sent;
            more.add(own);
            if !more.is_within(limits) {
                return None;
            }
            let stage = std::mem::replace(&mut held.stage, Stage::Sent);
            self.held.pop_front();
            self.sent = more;
            if let Stage::Held(mut header, encoded) = stage {
                header.call = call;
                return Some((call, header, encoded));
            }
        }
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
        let encoded = self.encode(|into| postcard::to_extend(message, into));
        let encoded = encoded.map_err(|error| match self.take_exhausted() {
            Some(len) => Error::limit("shared payload memory", 0, len as u64).because(M::NAME),
            None => Error::invalid_request(format!(
                "{} cannot cross the process wall: {error}",
                M::NAME
            )),
        })?;
        let deadline_us =
            M::DEADLINE.map_or(0, |d| u32::try_from(d.as_micros()).unwrap_or(u32::MAX));
        Ok(EncodedCall {
            header: FrameHeader {
                kind: kind::CALL,
                object,
                generation,
                method: M::ID,
                deadline_us,
                ..FrameHeader::default()
            },
            encoded,
        })
    }

    /// Puts a request on its way, as soon as there is credit for it; its answer goes to `caller`.
    pub(crate) fn start_call<M: Remote>(
        &self,
        call: EncodedCall,
        caller: Option<OneshotSender<M::Result>>,
    ) {
        let mut caller = TypedCaller::<M>(caller);
        if let Err(error) = self.check() {
            self.undo(call.encoded);
            return caller.fail(error);
        }
        let now = Instant::now();
        let deadline = M::DEADLINE.and_then(|wait| now.checked_add(wait));
        {
            let mut outgoing = self.outgoing.borrow_mut();
            let id = outgoing.insert(Outstanding {
                generation: 0,
                what: M::NAME,
                deadline,
                is_patient: M::DEADLINE.is_none(),
                bytes: call.encoded.len(),
                caller: Box::new(caller),
                stage: Stage::Held(call.header, call.encoded),
            });
            outgoing.held.push_back(id);
            if let Some(deadline) = deadline
                && outgoing.next_deadline.is_none_or(|next| deadline < next)
            {
                outgoing.next_deadline = Some(deadline);
                self.sweep.notify_one();
            }
        }
        self.send_held();
    }

    /// Sends what there is credit for.
    pub(super) fn send_held(&self) {
        // Where the link has ended, what is held is failed with the cause, which is being found out.
        while !self.is_lost() {
            let limits = &self.agreed.limits;
            let Some((call, header, encoded)) = self.outgoing.borrow_mut().next_to_send(limits)
            else {
                break;
            };
            if let Pushed::Refused(error) = self.push(header, encoded) {
                let failed = self.outgoing.borrow_mut().remove(call);
                if let Some(mut failed) = failed {
                    failed.caller.fail(error);
                }
            }
        }
        self.credit.notify_waiters();
    }

    /// A future that waits until the link has room for another call, if it has none now.
    pub(crate) fn credit(self: &Rc<Self>) -> Option<impl Future<Output = ()> + 'static> {
        if self.has_credit() {
            return None;
        }
        let link = Rc::clone(self);
        Some(async move {
            while !link.has_credit() {
                link.credit.notified().await;
            }
        })
    }

    fn has_credit(&self) -> bool {
        self.is_lost() || self.outgoing.borrow().has_credit(&self.agreed.limits)
    }

    /// Cancels calls whose callers have gone and fails those whose deadline has passed.
    ///
    /// # Errors
    /// `Protocol` for a peer that answers everything but cancels.
    pub(super) fn sweep(&self, now: Instant) -> Result<()> {
        let mut cancelled = Vec::new();
        let mut dropped = Vec::new();
        {
            let mut outgoing = self.outgoing.borrow_mut();
            let mut next = None;
            let mut never_sent = Vec::new();
            for (index, call) in &mut outgoing.calls {
                if let Stage::Cancelled(since) = call.stage {
                    let deadline = since + CANCEL_DEADLINE;
                    if deadline <= now {
                        return Err(protocol(format!(
                            "no answer to the cancel of {}",
                            call.what
                        )));
                    }
                    next = earlier(next, deadline);
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
                if let Stage::Held(..) = call.stage {
                    never_sent.push(id);
                } else {
                    call.stage = Stage::Cancelled(now);
                    next = earlier(next, now + CANCEL_DEADLINE);
                    cancelled.push(id);
                }
            }
            outgoing.next_deadline = next;
            dropped.extend(never_sent.into_iter().filter_map(|id| outgoing.remove(id)));
        }
        for call in dropped {
            if let Stage::Held(_, encoded) = call.stage {
                self.undo(encoded);
            }
        }
        for call in cancelled {
            let header = FrameHeader {
                kind: kind::CANCEL,
                call,
                ..FrameHeader::default()
            };
            self.push_control(header, &[]);
        }
        self.send_held();
        Ok(())
    }

    pub(super) fn receive_reply(self: &Rc<Self>, header: &FrameHeader, body: &[u8]) -> Result<()> {
        let mut call = {
            let mut outgoing = self.outgoing.borrow_mut();
            match outgoing.get_mut(header.call) {
                Some(call) if !matches!(call.stage, Stage::Held(..)) => {}
                _ => return Err(protocol("a reply to a call that was not made")),
            }
            let removed = outgoing.remove(header.call);
            removed.ok_or_else(|| protocol("a reply to a call that was not made"))?
        };
        self.send_held();
        let was_cancelled = matches!(call.stage, Stage::Cancelled(_));
        if header.flags & FLAG_CANCELLED != 0 {
            return match was_cancelled {
                true => Ok(()),
                false => Err(protocol(format!("{} was not cancelled", call.what))),
            };
        }
        if header.flags & FLAG_ERROR != 0 {
            let error: Error = postcard::from_bytes(body)
                .map_err(|error| protocol(format!("error of {}: {error}", call.what)))?;
            call.caller.fail(error.in_process(self.agreed.peer_pid));
            return Ok(());
        }
        scope::enter(self, || call.caller.answer(body))
    }
}

fn earlier(one: Option<Instant>, other: Instant) -> Option<Instant> {
    Some(one.map_or(other, |one| one.min(other)))
}
