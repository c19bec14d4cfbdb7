//! The calls that this side has made: what of them is at the peer, and what waits to go there, in order for each object.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use actix::Addr;
use futures::future::AbortHandle;
use portcullis_engine::{Error, ErrorKind, Result};
use portcullis_transport::LinkLimits;
use slab::Slab;
use tokio::time::Instant;

use crate::bridge::gate::{Class, Permit};
use crate::bridge::link::core::protocol;
use crate::bridge::proxy::Proxy;
use crate::bridge::remote::Remote;
use crate::bridge::trace::TraceContext;
use crate::panics;

/// The calls that this side has made.
#[derive(Default)]
pub(in crate::bridge::link) struct Outgoing {
    pub(super) calls: Slab<Outstanding>,
    generations: u32,
    /// Calls that wait, oldest first, for each object of the peer to which any wait.
    queues: HashMap<(u32, u32), VecDeque<u64>>,
    /// Heads of those queues that wait for credit, by class. One that waits for memory is not here.
    ready: [VecDeque<u64>; 2],
    /// What is at the peer, by class.
    sent: [Sent; 2],
    /// When the earliest deadline passes, as far as it is known.
    pub(super) next_deadline: Option<Instant>,
}

#[derive(Clone, Copy, Default)]
struct Sent {
    calls: usize,
    bytes: usize,
}

pub(super) struct Outstanding {
    pub(super) generation: u32,
    pub(super) object: (u32, u32),
    pub(super) what: &'static str,
    pub(super) trace: Option<TraceContext>,
    pub(super) deadline: Option<Instant>,
    pub(super) class: Class,
    /// Bytes at the peer.
    pub(super) bytes: usize,
    pub(super) caller: Asker,
    /// Its place on the way to the object: given to the next one when this is dropped.
    pub(super) permit: Permit,
    pub(super) stage: Stage,
}

pub(super) enum Stage {
    Queued(Queued),
    Sent,
    /// The caller has gone; since when the peer knows.
    Cancelled(Instant),
}

/// A message that waits here.
pub(super) struct Queued {
    /// Not there while it is being tried.
    pub(super) message: Option<Box<dyn Waiting>>,
    /// Is the oldest of its object.
    pub(super) is_head: bool,
    /// Ends what waits for memory for it.
    pub(super) room: Option<AbortOnDrop>,
}

pub(super) struct AbortOnDrop(pub(super) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A message whose type is forgotten. As it is not encoded yet it still holds the handles in it: none of them is released
/// before the message is on its way.
pub(super) trait Waiting {
    fn method(&self) -> u32;
    fn encode(&self, into: Vec<u8>) -> postcard::Result<Vec<u8>>;
}

pub(super) struct TypedMessage<M> {
    pub(super) message: M,
    /// Keeps the object itself from being released.
    pub(super) _proxy: Addr<Proxy>,
}

impl<M: Remote> Waiting for TypedMessage<M> {
    fn method(&self) -> u32 {
        M::ID
    }

    fn encode(&self, into: Vec<u8>) -> postcard::Result<Vec<u8>> {
        postcard::to_extend(&self.message, into)
    }
}

/// A caller whose message type is forgotten.
pub(crate) trait Caller: Send + Sync {
    fn has_gone(&self) -> bool;
    /// Decodes the answer and hands it over; an error is the peer's fault. Where the caller has gone, what the answer
    /// holds is given back.
    fn answer(&self, body: &[u8]) -> Result<()>;
    /// Gives the caller an error, unless it has gone or has its answer.
    fn fail(&self, error: Error);
}

/// The caller of a call that is at the link: it gets an error where the call ends without an answer.
pub(super) struct Asker {
    caller: Arc<dyn Caller>,
    is_answered: bool,
}

impl Asker {
    pub(super) fn new(caller: Arc<dyn Caller>) -> Self {
        Self {
            caller,
            is_answered: false,
        }
    }

    pub(super) fn has_gone(&self) -> bool {
        self.caller.has_gone()
    }

    pub(super) fn answer(&mut self, body: &[u8]) -> Result<()> {
        // The user's own code reads the reply.
        let answered = panics::catch(|| self.caller.answer(body)).unwrap_or_else(|panic| {
            let fault = protocol(format!("reading a reply {}", panic.kind()));
            self.caller.fail(fault.clone());
            Err(fault)
        });
        self.is_answered = true;
        answered
    }

    pub(super) fn fail(&self, error: Error) {
        self.caller.fail(error);
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        if !self.is_answered {
            self.caller.fail(Error::new(ErrorKind::ActorStopped));
        }
    }
}

/// How many calls of a class may be at the peer.
pub(in crate::bridge::link) fn window(class: Class, limits: &LinkLimits) -> usize {
    match class {
        Class::Prompt => limits.call_window as usize,
        // Each object may be waited for.
        Class::Patient => limits.max_objects as usize,
    }
}

impl Outgoing {
    /// Whether somebody waits for the peer.
    pub(in crate::bridge::link) fn is_waiting(&self) -> bool {
        !self.calls.is_empty()
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(in crate::bridge::link) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(in crate::bridge::link) fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline
    }

    pub(in crate::bridge::link) fn fail(self, error: &Error) {
        for (_, call) in self.calls {
            call.caller.fail(error.clone());
        }
    }

    /// Either side stood still: what the peer owes an answer for it owes from now on.
    pub(in crate::bridge::link) fn restart_cancels(&mut self) {
        let now = Instant::now();
        for (_, call) in &mut self.calls {
            if let Stage::Cancelled(since) = &mut call.stage {
                *since = now;
            }
        }
    }

    /// Whether a call may be tried that has just been made: nothing is before it.
    pub(super) fn is_free(&self, object: (u32, u32), class: Class) -> bool {
        !self.queues.contains_key(&object) && self.ready[class as usize].is_empty()
    }

    /// Whether one more call of so many bytes may be at the peer.
    pub(super) fn has_credit(&self, class: Class, bytes: usize, limits: &LinkLimits) -> bool {
        let sent = self.sent[class as usize];
        sent.calls < window(class, limits) && sent.bytes + bytes <= limits.byte_window as usize
    }

    pub(super) fn insert(&mut self, mut call: Outstanding) -> u64 {
        self.generations = self.generations.wrapping_add(1).max(1);
        call.generation = self.generations;
        let generation = u64::from(call.generation) << 32;
        let (object, is_queued) = (call.object, matches!(call.stage, Stage::Queued(_)));
        if !is_queued {
            self.count(call.class, call.bytes);
        }
        let id = generation | self.calls.insert(call) as u64;
        if is_queued {
            self.queues.entry(object).or_default().push_back(id);
        }
        id
    }

    pub(super) fn get_mut(&mut self, call: u64) -> Option<&mut Outstanding> {
        let (index, generation) = (call as u32 as usize, (call >> 32) as u32);
        self.calls
            .get_mut(index)
            .filter(|call| call.generation == generation)
    }

    /// Takes a call out. If it waited, [`Outgoing::tidy`] is due for its object.
    pub(super) fn remove(&mut self, call: u64) -> Option<Outstanding> {
        self.get_mut(call)?;
        let removed = self.calls.try_remove(call as u32 as usize)?;
        if !matches!(removed.stage, Stage::Queued(..)) {
            let sent = &mut self.sent[removed.class as usize];
            sent.calls = sent.calls.saturating_sub(1);
            sent.bytes = sent.bytes.saturating_sub(removed.bytes);
        }
        Some(removed)
    }

    /// The next call of the class that waits for nothing but credit.
    pub(super) fn next_ready(&mut self, class: Class) -> Option<u64> {
        loop {
            let call = self.ready[class as usize].pop_front()?;
            if self.waiting(call).is_some() {
                return Some(call);
            }
        }
    }

    /// The call waits for credit, before all others.
    pub(super) fn wait_for_credit(&mut self, call: u64) {
        if let Some(class) = self.get_mut(call).map(|call| call.class) {
            self.ready[class as usize].push_front(call);
        }
    }

    /// The part of a call that only one that waits has.
    pub(super) fn waiting(&mut self, call: u64) -> Option<&mut Queued> {
        match &mut self.get_mut(call)?.stage {
            Stage::Queued(queued) => Some(queued),
            Stage::Sent | Stage::Cancelled(_) => None,
        }
    }

    /// A call that waited is at the peer now.
    pub(super) fn set_sent(&mut self, call: u64, bytes: usize) {
        if let Some(sent) = self.get_mut(call) {
            sent.stage = Stage::Sent;
            sent.bytes = bytes;
            let (class, object) = (sent.class, sent.object);
            self.count(class, bytes);
            self.advance(object);
        }
    }

    /// Forgets calls to an object that do not wait any more, wherever they stood.
    pub(super) fn tidy(&mut self, object: (u32, u32)) {
        if let Some(mut queue) = self.queues.remove(&object) {
            queue.retain(|call| self.waiting(*call).is_some());
            self.queues.insert(object, queue);
        }
        self.advance(object);
    }

    /// The oldest call to the object that still waits has its turn.
    pub(super) fn advance(&mut self, object: (u32, u32)) {
        loop {
            let Some(queue) = self.queues.get_mut(&object) else {
                return;
            };
            let Some(&head) = queue.front() else {
                self.queues.remove(&object);
                return;
            };
            match self.get_mut(head) {
                Some(Outstanding {
                    class,
                    stage: Stage::Queued(queued),
                    ..
                }) => {
                    let class = *class as usize;
                    if !std::mem::replace(&mut queued.is_head, true) {
                        self.ready[class].push_back(head);
                    }
                    return;
                }
                _ => {
                    if let Some(queue) = self.queues.get_mut(&object) {
                        queue.pop_front();
                    }
                }
            }
        }
    }

    fn count(&mut self, class: Class, bytes: usize) {
        let sent = &mut self.sent[class as usize];
        sent.calls += 1;
        sent.bytes += bytes;
    }
}
