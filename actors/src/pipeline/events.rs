//! What a node has to say to its session, until the session asks.

use std::collections::VecDeque;

use portcullis_derive::Remote;
use portcullis_engine::{Error, MediaType, StreamId};
use serde::{Deserialize, Serialize};

use super::port::Epoch;
use crate::bridge::{Answerer, Deferred, deferred};

/// Asks a node for its events; waits until there is one. One asker at a time: a second ask ends the first with `Cancelled`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Vec<(Epoch, NodeEvent)>, no_deadline)]
pub struct NextNodeEvents;

/// Something that happened in a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NodeEvent {
    /// The end of a source's stream was delivered.
    EndOfStream(StreamId),
    /// A stream of a sink has rendered its last sample.
    StreamRendered(u32),
    /// The type that flows into a stream of a sink has changed.
    FormatChanged(u32, MediaType),
    /// A sample or stream could not be handled; the node goes on.
    Fault(Error),
    /// The node cannot go on.
    Failed(Error),
}

/// Events that wait for the session to ask.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    waiting: VecDeque<(Epoch, NodeEvent)>,
    asker: Option<Answerer<Vec<(Epoch, NodeEvent)>>>,
}

impl EventQueue {
    /// Faults and changes of type beyond this many are left out until the session has asked: a hostile file can make one of
    /// them per sample.
    const LIMIT: usize = 256;
    /// Whatever they are: a hostile session need not ask at all. The oldest go first.
    const HARD_LIMIT: usize = 1024;

    pub(crate) fn push(&mut self, epoch: Epoch, event: NodeEvent) {
        let is_spare = matches!(event, NodeEvent::Fault(_) | NodeEvent::FormatChanged(..));
        if is_spare && self.waiting.len() >= Self::LIMIT {
            return;
        }
        self.waiting.push_back((epoch, event));
        if self.waiting.len() > Self::HARD_LIMIT {
            self.waiting.pop_front();
        }
        if let Some(asker) = self.asker.take()
            && let Err(unheard) = asker.answer(self.waiting.drain(..).collect())
        {
            self.waiting = unheard.into();
        }
    }

    pub(crate) fn next(&mut self) -> Deferred<Vec<(Epoch, NodeEvent)>> {
        if !self.waiting.is_empty() {
            return Deferred::ready(Ok(self.waiting.drain(..).collect()));
        }
        let (asker, answer) = deferred();
        if let Some(before) = self.asker.replace(asker) {
            before.fail(Error::cancelled());
        }
        answer
    }
}
