//! The calls that this side has made, and what of them is at the peer.

use std::collections::VecDeque;

use actix::dev::OneshotSender;
use portcullis_engine::{Error, Result};
use portcullis_transport::{FrameHeader, LinkLimits};
use slab::Slab;
use tokio::time::Instant;

use crate::bridge::link::core::{Encoded, protocol};
use crate::bridge::remote::Remote;

/// The calls that this side has made.
#[derive(Default)]
pub(in crate::bridge::link) struct Outgoing {
    pub(super) calls: Slab<Outstanding>,
    generations: u32,
    /// Calls that wait for credit, oldest first.
    pub(super) held: VecDeque<u64>,
    sent: Sent,
    /// When the earliest deadline passes, as far as it is known.
    pub(super) next_deadline: Option<Instant>,
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

pub(super) struct Outstanding {
    pub(super) generation: u32,
    pub(super) what: &'static str,
    pub(super) deadline: Option<Instant>,
    pub(super) is_patient: bool,
    pub(super) bytes: usize,
    pub(super) caller: Box<dyn Caller>,
    pub(super) stage: Stage,
}

pub(super) enum Stage {
    Held(FrameHeader, Encoded),
    Sent,
    /// The caller has gone; since when the peer knows.
    Cancelled(Instant),
}

/// A caller whose message type is forgotten.
pub(super) trait Caller {
    fn has_gone(&self) -> bool;
    /// Decodes the answer and hands it over; an error is the peer's fault. Where the caller has gone, what the answer
    /// holds is given back.
    fn answer(self: Box<Self>, body: &[u8]) -> Result<()>;
    fn fail(&mut self, error: Error);
}

pub(super) struct TypedCaller<M: Remote>(pub(super) Option<OneshotSender<M::Result>>);

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
    pub(in crate::bridge::link) fn is_waiting(&self) -> bool {
        self.sent.prompt + self.sent.patient > 0
    }

    #[cfg(test)]
    pub(in crate::bridge::link) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(in crate::bridge::link) fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline
    }

    pub(in crate::bridge::link) fn fail(self, error: &Error) {
        for (_, mut call) in self.calls {
            call.caller.fail(error.clone());
        }
    }

    pub(super) fn has_credit(&self, limits: &LinkLimits) -> bool {
        let mut more = self.sent;
        more.add(Sent {
            prompt: 1,
            patient: 1,
            bytes: 1,
        });
        self.held.is_empty() && more.is_within(limits)
    }

    pub(super) fn insert(&mut self, mut call: Outstanding) -> u64 {
        self.generations = self.generations.wrapping_add(1).max(1);
        call.generation = self.generations;
        let generation = u64::from(call.generation) << 32;
        generation | self.calls.insert(call) as u64
    }

    pub(super) fn get_mut(&mut self, call: u64) -> Option<&mut Outstanding> {
        let (index, generation) = (call as u32 as usize, (call >> 32) as u32);
        self.calls
            .get_mut(index)
            .filter(|call| call.generation == generation)
    }

    pub(super) fn remove(&mut self, call: u64) -> Option<Outstanding> {
        self.get_mut(call)?;
        let removed = self.calls.try_remove(call as u32 as usize)?;
        if !matches!(removed.stage, Stage::Held(..)) {
            self.sent.subtract(Sent::of(&removed));
        }
        Some(removed)
    }

    /// The next held call that may go now.
    pub(super) fn next_to_send(
        &mut self,
        limits: &LinkLimits,
    ) -> Option<(u64, FrameHeader, Encoded)> {
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
