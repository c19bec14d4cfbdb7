//! Calls that this side has made.
//!
//! Every call has a slot until the peer's one final reply, also one whose caller has gone: the reply may have crossed with
//! the cancel, and what it carries (handles, leases of slots) must be taken in to be given back. A call for which the peer
//! has no credit left is held here, in order, and its proxy's mailbox stands still until there is room again.

mod table;

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use actix::dev::OneshotSender;
use portcullis_engine::{Error, ErrorKind, Result};
use portcullis_transport::FrameHeader;
use tokio::time::Instant;

pub(super) use self::table::Outgoing;
use self::table::{Caller, Outstanding, Stage, TypedCaller};
use super::core::{Encoded, LinkCore, Pushed, protocol};
use super::wire::{FLAG_CANCELLED, FLAG_ERROR, kind};
use crate::bridge::remote::Remote;
use crate::bridge::scope;

/// How long a peer that reads its link may take to answer a cancel, which it does at once.
const CANCEL_DEADLINE: Duration = Duration::from_secs(10);

/// A request in the form in which it crosses, not yet on its way.
#[derive(Debug)]
pub(crate) struct EncodedCall {
    header: FrameHeader,
    encoded: Encoded,
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
