//! Calls that the peer has made. Each is answered exactly once: with a reply, an error, or that it was cancelled.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use futures::future::{AbortHandle, Abortable};
use portcullis_engine::{Error, ErrorKind, Result};
use portcullis_transport::FrameHeader;

use super::core::{LinkCore, Pushed, Unencoded, protocol};
use super::wire::{FLAG_CANCELLED, FLAG_ERROR, FLAG_TRACED, kind};
use crate::bridge::handle::Shared;
use crate::bridge::payload_port::Memory;
use crate::bridge::recipient::Reply;
use crate::bridge::scope;
use crate::bridge::trace::{self, Carried, TraceContext};

/// Bytes of cancelled calls that may wait in mailboxes, in byte windows.
const CANCELLED_WINDOWS: usize = 4;

/// The calls that the peer has made.
#[derive(Default)]
pub(super) struct Incoming {
    calls: HashMap<u64, Inbound>,
    bytes: usize,
    cancelled: Cancelled,
    order: u64,
}

struct Inbound {
    task: AbortHandle,
    bytes: usize,
    /// When it came, among all calls.
    order: u64,
    target: Weak<Shared>,
    object: u64,
    /// Its answer is there and not yet on its way.
    is_answered: bool,
}

/// Cancelled calls that may still wait in their actors' mailboxes. A mailbox has no way to say what it has dropped, but it is
/// in order: when a call is answered, all that came before it to the same actor have left it.
#[derive(Default)]
struct Cancelled {
    actors: HashMap<u64, Unread>,
    calls: usize,
    bytes: usize,
}

struct Unread {
    target: Weak<Shared>,
    /// Bytes of each, by its order.
    calls: BTreeMap<u64, usize>,
    /// How many handlers had begun by the last look.
    begun: u64,
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

    fn insert(&mut self, call: u64, task: AbortHandle, bytes: usize, target: &Arc<Shared>) {
        self.order += 1;
        self.bytes += bytes;
        let inbound = Inbound {
            task,
            bytes,
            order: self.order,
            target: Arc::downgrade(target),
            object: target.object,
            is_answered: false,
        };
        self.calls.insert(call, inbound);
    }

    fn remove(&mut self, call: u64) -> Option<Inbound> {
        let inbound = self.calls.remove(&call)?;
        self.bytes = self.bytes.saturating_sub(inbound.bytes);
        Some(inbound)
    }

    /// The call's actor has answered it, or will never answer anything.
    fn answered(&mut self, call: u64) {
        if let Some(inbound) = self.calls.get_mut(&call) {
            inbound.is_answered = true;
            self.cancelled.read_before(inbound.object, inbound.order);
        }
    }
}

impl Incoming {
    /// Whether answers of the object's actor are there that are not yet on their way.
    pub(super) fn has_answers_of(&self, object: u64) -> bool {
        let mut calls = self.calls.values();
        calls.any(|call| call.object == object && call.is_answered)
    }
}

impl Cancelled {
    fn add(&mut self, inbound: Inbound) {
        // An actor that is gone, or whose mailbox never waits, has nothing left there.
        let target = inbound.target.upgrade();
        let Some(begun) = target.and_then(|target| target.begun()) else {
            return;
        };
        let actor = self.actors.entry(inbound.object).or_insert_with(|| Unread {
            target: inbound.target,
            calls: BTreeMap::new(),
            begun,
        });
        actor.calls.insert(inbound.order, inbound.bytes);
        self.calls += 1;
        self.bytes += inbound.bytes;
    }

    fn read_before(&mut self, object: u64, order: u64) {
        let Some(actor) = self.actors.get_mut(&object) else {
            return;
        };
        let later = actor.calls.split_off(&order);
        let read = std::mem::replace(&mut actor.calls, later);
        if actor.calls.is_empty() {
            self.actors.remove(&object);
        }
        self.forget(&read);
    }

    fn forget(&mut self, read: &BTreeMap<u64, usize>) {
        self.calls -= read.len();
        self.bytes -= read.values().sum::<usize>();
    }

    /// Finds out what more has been read: the mailbox of an actor that is gone is gone too, and each handler that began
    /// has taken one message out.
    fn look(&mut self) {
        let mut read = BTreeMap::new();
        self.actors.retain(|_, actor| {
            let Some(target) = actor.target.upgrade() else {
                read.append(&mut actor.calls);
                return false;
            };
            let begun = target.begun().unwrap_or(actor.begun);
            for _ in 0..begun.wrapping_sub(actor.begun) {
                let Some((order, bytes)) = actor.calls.pop_first() else {
                    break;
                };
                read.insert(order, bytes);
            }
            actor.begun = begun;
            !actor.calls.is_empty()
        });
        self.forget(&read);
    }
}

impl LinkCore {
    pub(super) fn receive_call(self: &Rc<Self>, header: &FrameHeader, body: &[u8]) -> Result<()> {
        // The trace is not the caller's to count.
        let traced = match header.flags & FLAG_TRACED {
            0 => 0,
            _ => trace::LEN,
        };
        self.check_credit(header.call, body.len().saturating_sub(traced))?;
        let Some(target) = self.exported(header.object, header.generation) else {
            if !self.was_exported(header.object, header.generation) {
                return Err(protocol(format!("object {} does not exist", header.object)));
            }
            self.push_error(header.call, Error::new(ErrorKind::ActorStopped));
            return Ok(());
        };
        let mut slots = target.slots().iter();
        let Some(slot) = slots.find(|slot| slot.method() == header.method) else {
            let what = format!("no method {:#010x} of the object", header.method);
            self.push_error(header.call, Error::invalid_request(what));
            return Ok(());
        };
        let (body, carried) = match header.flags & FLAG_TRACED {
            0 => (body, None),
            _ => {
                let (trace, body) = TraceContext::split(body)
                    .ok_or_else(|| protocol("a traced call without its trace"))?;
                (
                    body,
                    Carried::arrived(trace, self.agreed.peer_pid, slot.name()),
                )
            }
        };
        let answer = scope::enter(self, || {
            let _within = carried.as_ref().map(Carried::enter);
            slot.dispatch(body)
        })?;
        let (abort, registration) = AbortHandle::new_pair();
        self.incoming
            .borrow_mut()
            .insert(header.call, abort, body.len(), &target);
        let (link, call) = (Rc::clone(self), header.call);
        let task = async move {
            let answer = answer.await;
            link.incoming.borrow_mut().answered(call);
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
        let window = limits.call_window as usize + limits.max_objects as usize;
        let mut incoming = self.incoming.borrow_mut();
        if incoming.calls.len() >= window {
            return Err(protocol("more calls in flight than agreed"));
        }
        // Calls that wait by design have a window of their own.
        if incoming.bytes + len > 2 * limits.byte_window as usize {
            return Err(protocol("more bytes of calls in flight than agreed"));
        }
        let bytes = CANCELLED_WINDOWS * limits.byte_window as usize;
        let is_beyond =
            |cancelled: &Cancelled| cancelled.calls >= window || cancelled.bytes >= bytes;
        if is_beyond(&incoming.cancelled) {
            incoming.cancelled.look();
            if is_beyond(&incoming.cancelled) {
                return Err(protocol(
                    "more cancelled calls than agreed to actors that do not read them",
                ));
            }
        }
        if incoming.calls.contains_key(&call) {
            return Err(protocol("two calls with one id"));
        }
        Ok(())
    }

    /// The caller has gone.
    pub(super) fn receive_cancel(&self, call: u64) {
        {
            let mut incoming = self.incoming.borrow_mut();
            let Some(inbound) = incoming.remove(call) else {
                // Its reply is on the way.
                return;
            };
            inbound.task.abort();
            incoming.cancelled.add(inbound);
        }
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
            self.push_error(call, error);
        }
        self.answered.notify_waiters();
    }

    fn push_error(&self, call: u64, error: Error) {
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

    /// Pushes a reply as soon as there is room for it on the link and for its payloads in shared memory.
    async fn push_reply(self: &Rc<Self>, call: u64, reply: &dyn Reply) -> Result<()> {
        let header = FrameHeader {
            kind: kind::REPLY,
            call,
            ..FrameHeader::default()
        };
        let mut memory = Memory::Free;
        loop {
            let window = self.agreed.limits.byte_window as usize;
            if self.sender.queued_bytes() > window {
                // It fails only when the link has ended, and with it this task.
                let _ = self.sender.queued_at_most(window).await;
            }
            if self.is_lost() {
                return Ok(());
            }
            match self.encode(memory, |into| reply.encode(into)) {
                Ok(encoded) => {
                    return match self.push(header, &[], encoded) {
                        Pushed::Refused(error) => Err(error),
                        Pushed::Done | Pushed::Ended => Ok(()),
                    };
                }
                Err(Unencoded::NoRoom(needs)) => {
                    let room = self.payloads.borrow().room(&needs);
                    memory = room.await;
                    // A reply that never finds the room that it asked for leaves others their turn.
                    tokio::task::yield_now().await;
                }
                Err(Unencoded::Failed(why)) => {
                    return Err(Error::invalid_request(format!(
                        "a reply cannot cross the process wall: {why}"
                    )));
                }
            }
        }
    }
}
