//! Calls that the peer has made. Each is answered exactly once: with a reply, an error, or that it was cancelled.

mod answers;
mod calls;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use futures::future::{AbortHandle, Abortable};
use portcullis_engine::{Error, ErrorKind, Result};
use portcullis_transport::FrameHeader;

pub(super) use self::answers::Woken;
use self::calls::Calls;
use super::core::{Encoded, LinkCore, Pushed, Unencoded, protocol};
use super::outgoing;
use super::wire::{FLAG_CANCELLED, FLAG_ERROR, FLAG_TRACED, kind};
use crate::bridge::gate::Class;
use crate::bridge::handle::Shared;
use crate::bridge::payload_port::Memory;
use crate::bridge::recipient::Answer;
use crate::bridge::scope;
use crate::bridge::trace::{self, Carried, TraceContext};

/// Bytes of cancelled calls that may wait in mailboxes, in byte windows.
const CANCELLED_WINDOWS: usize = 4;

/// The calls that the peer has made.
#[derive(Default)]
pub(super) struct Incoming {
    calls: Calls<Inbound>,
    /// Came in this turn: their actors have not had theirs.
    fresh: Vec<u64>,
    /// What is in flight, by class.
    in_flight: [InFlight; 2],
    cancelled: Cancelled,
    order: u64,
}

#[derive(Clone, Copy, Default)]
struct InFlight {
    calls: usize,
    bytes: usize,
}

struct Inbound {
    stage: Stage,
    bytes: usize,
    /// When it came, among all calls.
    order: u64,
    class: Class,
    served: Rc<Served>,
}

/// An object of this side that the peer calls.
pub(super) struct Served {
    target: Weak<Shared>,
    object: u64,
    /// Calls in flight that have a deadline.
    prompt: Cell<u32>,
}

impl Served {
    pub(super) fn new(target: &Arc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            target: Arc::downgrade(target),
            object: target.object,
            prompt: Cell::new(0),
        })
    }
}

enum Stage {
    /// Its actor has not answered. Not there while it is being polled.
    Asked(Option<Pin<Box<dyn Answer>>>, Option<Waker>),
    /// Its reply waits for room.
    Replying { _task: AbortOnDrop },
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
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
    /// How many messages the actor had read by the last look.
    read: u64,
}

impl Incoming {
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    fn insert(
        &mut self,
        call: u64,
        answer: Pin<Box<dyn Answer>>,
        bytes: usize,
        class: Class,
        served: Rc<Served>,
    ) {
        self.order += 1;
        let in_flight = &mut self.in_flight[class as usize];
        in_flight.calls += 1;
        in_flight.bytes += bytes;
        if class == Class::Prompt {
            served.prompt.set(served.prompt.get() + 1);
        }
        let inbound = Inbound {
            stage: Stage::Asked(Some(answer), None),
            bytes,
            order: self.order,
            class,
            served,
        };
        self.calls.insert(call, inbound);
        self.fresh.push(call);
    }

    fn remove(&mut self, call: u64) -> Option<Inbound> {
        let inbound = self.calls.remove(call)?;
        let in_flight = &mut self.in_flight[inbound.class as usize];
        in_flight.calls = in_flight.calls.saturating_sub(1);
        in_flight.bytes = in_flight.bytes.saturating_sub(inbound.bytes);
        if inbound.class == Class::Prompt {
            let prompt = &inbound.served.prompt;
            prompt.set(prompt.get().saturating_sub(1));
        }
        Some(inbound)
    }

    /// The call's actor has answered it, or will never answer anything.
    fn answered(&mut self, call: u64) {
        if self.cancelled.calls == 0 {
            return;
        }
        if let Some(inbound) = self.calls.get_mut(call) {
            self.cancelled
                .read_before(inbound.served.object, inbound.order);
        }
    }
}

impl Incoming {
    /// Whether answers of the object's actor are there that are not yet on their way.
    pub(super) fn has_answers_of(&self, object: u64) -> bool {
        let mut calls = self.calls.values();
        calls.any(|call| {
            call.served.object == object && matches!(call.stage, Stage::Replying { .. })
        })
    }
}

impl Cancelled {
    fn add(&mut self, inbound: &Inbound) {
        // An actor that is gone, or whose mailbox never waits, has nothing left there.
        let target = inbound.served.target.upgrade();
        let Some(read) = target.and_then(|target| target.read()) else {
            return;
        };
        let actor = self
            .actors
            .entry(inbound.served.object)
            .or_insert_with(|| Unread {
                target: Weak::clone(&inbound.served.target),
                calls: BTreeMap::new(),
                read,
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

    /// Finds out what more has been read: the mailbox of an actor that is gone is gone too. What else an actor has read since
    /// was before them, or is counted as one of them: no more than there may be in its mailbox.
    fn look(&mut self) {
        let mut gone = BTreeMap::new();
        self.actors.retain(|_, actor| {
            let Some(target) = actor.target.upgrade() else {
                gone.append(&mut actor.calls);
                return false;
            };
            let read = target.read().unwrap_or(actor.read);
            for _ in 0..read.wrapping_sub(actor.read) {
                let Some((order, bytes)) = actor.calls.pop_first() else {
                    break;
                };
                gone.insert(order, bytes);
            }
            actor.read = read;
            !actor.calls.is_empty()
        });
        self.forget(&gone);
    }
}

impl LinkCore {
    pub(super) fn receive_call(self: &Rc<Self>, header: &FrameHeader, body: &[u8]) -> Result<()> {
        // The trace is not the caller's to count.
        let traced = match header.flags & FLAG_TRACED {
            0 => 0,
            _ => trace::LEN,
        };
        if self.incoming.borrow().calls.contains(header.call) {
            return Err(protocol("two calls with one id"));
        }
        let Some((target, served)) = self.called(header.object, header.generation) else {
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
        let class = slot.class();
        self.check_credit(class, &served, body.len().saturating_sub(traced))?;
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
            slot.dispatch(&target, body)
        })?;
        let mut incoming = self.incoming.borrow_mut();
        incoming.insert(header.call, answer, body.len(), class, served);
        Ok(())
    }

    /// Looks for answers: to the calls that came before this turn, and to those that were woken.
    pub(super) fn look_for_answers(self: &Rc<Self>) {
        let mut calls = mem::take(&mut self.incoming.borrow_mut().fresh);
        self.woken.take(&mut calls);
        for call in calls.drain(..) {
            self.look_for_answer(call);
        }
        let mut incoming = self.incoming.borrow_mut();
        if incoming.fresh.is_empty() {
            // For its memory.
            incoming.fresh = calls;
        }
    }

    fn look_for_answer(self: &Rc<Self>, call: u64) {
        let (mut answer, waker) = match self.incoming.borrow_mut().calls.get_mut(call) {
            Some(Inbound {
                stage: Stage::Asked(answer, waker),
                ..
            }) => match answer.take() {
                Some(answer) => (answer, waker.take()),
                None => return,
            },
            // It was cancelled, or has its answer.
            _ => return,
        };
        let is_fresh = waker.is_none();
        let mut poll = |waker: &Waker| answer.as_mut().poll(&mut Context::from_waker(waker));
        let mut outcome = poll(waker.as_ref().unwrap_or(Waker::noop()));
        let mut waker = waker;
        if outcome.is_pending() && is_fresh {
            let own = self.woken.waker(call);
            outcome = poll(&own);
            waker = Some(own);
        }
        match outcome {
            Poll::Ready(outcome) => self.reply(call, outcome, answer),
            Poll::Pending => {
                let mut incoming = self.incoming.borrow_mut();
                let inbound = incoming.calls.get_mut(call);
                if let Some(Stage::Asked(place, own)) = inbound.map(|call| &mut call.stage) {
                    *place = Some(answer);
                    *own = waker;
                }
            }
        }
    }

    /// Holds the peer to the windows that were agreed.
    fn check_credit(&self, class: Class, served: &Served, len: usize) -> Result<()> {
        let limits = &self.agreed.limits;
        let mut incoming = self.incoming.borrow_mut();
        let in_flight = incoming.in_flight[class as usize];
        if in_flight.calls >= outgoing::window(class, limits) {
            return Err(protocol("more calls in flight than agreed"));
        }
        if class == Class::Prompt && served.prompt.get() >= limits.object_window {
            return Err(protocol("more calls in flight to one object than agreed"));
        }
        if in_flight.bytes + len > limits.byte_window as usize {
            return Err(protocol("more bytes of calls in flight than agreed"));
        }
        let window = limits.call_window as usize + limits.max_objects as usize;
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
        Ok(())
    }

    /// The caller has gone.
    pub(super) fn receive_cancel(&self, call: u64) {
        let inbound = {
            let mut incoming = self.incoming.borrow_mut();
            let Some(inbound) = incoming.remove(call) else {
                // Its reply is on the way.
                return;
            };
            incoming.cancelled.add(&inbound);
            inbound
        };
        // Outside of the borrow: it may hold the last handle of something.
        drop(inbound);
        // It may be what an actor's end waits for.
        self.answered.notify_waiters();
        let header = FrameHeader {
            kind: kind::REPLY,
            flags: FLAG_CANCELLED,
            call,
            ..FrameHeader::default()
        };
        self.push_control(header, &[]);
    }

    /// The actor has answered.
    fn reply(self: &Rc<Self>, call: u64, outcome: Result<()>, answer: Pin<Box<dyn Answer>>) {
        self.incoming.borrow_mut().answered(call);
        let outcome = match outcome {
            Ok(()) => match self.try_push_reply(call, &*answer, Memory::Free) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => return self.reply_later(call, answer),
            },
            Err(error) => Err(error),
        };
        self.end_incoming(call, outcome);
    }

    /// Replies when there is room.
    fn reply_later(self: &Rc<Self>, call: u64, answer: Pin<Box<dyn Answer>>) {
        let (abort, registration) = AbortHandle::new_pair();
        match self.incoming.borrow_mut().calls.get_mut(call) {
            Some(inbound) => {
                inbound.stage = Stage::Replying {
                    _task: AbortOnDrop(abort),
                };
            }
            None => return,
        }
        let link = Rc::clone(self);
        let reply = async move {
            let outcome = link.push_reply(call, &*answer).await;
            // From the push to here nothing is awaited: a cancel finds the call either unanswered or gone.
            link.end_incoming(call, outcome);
        };
        actix_rt::spawn(async move {
            // An aborted call was cancelled by its caller: nobody waits for it.
            let _ = Abortable::new(reply, registration).await;
        });
    }

    fn end_incoming(&self, call: u64, outcome: Result<()>) {
        let inbound = self.incoming.borrow_mut().remove(call);
        if let (Some(_), Err(error)) = (inbound, outcome) {
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
    async fn push_reply(self: &Rc<Self>, call: u64, answer: &dyn Answer) -> Result<()> {
        let mut memory = Memory::Free;
        loop {
            let window = self.agreed.limits.byte_window as usize;
            if self.sender.queued_bytes() > window {
                // It fails only when the link has ended, and with it this task.
                let _ = self.sender.queued_at_most(window).await;
            }
            match self.encode(memory, |into| answer.encode(into)) {
                Err(Unencoded::NoRoom(needs)) => {
                    let room = self.payloads.borrow().room(&needs);
                    memory = room.await;
                    // A reply that never finds the room that it asked for leaves others their turn.
                    tokio::task::yield_now().await;
                }
                encoded => return self.push_encoded_reply(call, encoded),
            }
        }
    }

    /// Pushes a reply if there is room just now.
    fn try_push_reply(
        self: &Rc<Self>,
        call: u64,
        answer: &dyn Answer,
        memory: Memory,
    ) -> Poll<Result<()>> {
        if self.sender.queued_bytes() > self.agreed.limits.byte_window as usize {
            return Poll::Pending;
        }
        match self.encode(memory, |into| answer.encode(into)) {
            Err(Unencoded::NoRoom(_)) => Poll::Pending,
            encoded => Poll::Ready(self.push_encoded_reply(call, encoded)),
        }
    }

    fn push_encoded_reply(&self, call: u64, encoded: Result<Encoded, Unencoded>) -> Result<()> {
        let encoded = match encoded {
            Ok(encoded) => encoded,
            Err(Unencoded::Failed(why)) => {
                return Err(Error::invalid_request(format!(
                    "a reply cannot cross the process wall: {why}"
                )));
            }
            Err(Unencoded::NoRoom(_)) => return Ok(()),
        };
        if self.is_lost() {
            self.undo(encoded);
            return Ok(());
        }
        let header = FrameHeader {
            kind: kind::REPLY,
            call,
            ..FrameHeader::default()
        };
        match self.push(header, &[], encoded) {
            Pushed::Refused(error) => Err(error),
            Pushed::Done | Pushed::Ended => Ok(()),
        }
    }
}
