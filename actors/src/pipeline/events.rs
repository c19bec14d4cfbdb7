//! What a node has to say to its session, until the session asks.

use std::collections::VecDeque;

use portcullis_derive::Remote;
use portcullis_engine::{Error, MediaType, Result, StreamId};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::port::Epoch;
use crate::bridge::ReplyFuture;

/// Asks a node for its events; waits until there is one. One asker at a time: a second ask ends the first with `Cancelled`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Vec<(Epoch, NodeEvent)>, no_deadline)]
pub struct NextNodeEvents;

/// Something that happened in a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NodeEvent {
    /// A stream of a source has no more samples.
    EndOfStream(StreamId),
    /// All selected streams of a source have ended.
    EndOfPresentation,
    /// A stream of a sink has rendered its last sample.
    StreamRendered(u32),
    /// The type that flows into a stream of a sink has changed.
    FormatChanged(u32, MediaType),
    /// A sample or stream could not be handled; the node goes on.
    Fault(Error),
    /// The node cannot go on.
    Failed(Error),
}

/// Events that wait, at most [`EventQueue::LIMIT`] of them.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    waiting: VecDeque<(Epoch, NodeEvent)>,
    asker: Option<oneshot::Sender<Vec<(Epoch, NodeEvent)>>>,
}

impl EventQueue {
    /// Faults beyond this many are dropped until the session has asked: a hostile file can make one per sample.
    const LIMIT: usize = 256;

    pub(crate) fn push(&mut self, epoch: Epoch, event: NodeEvent) {
        if self.waiting.len() >= Self::LIMIT && matches!(event, NodeEvent::Fault(_)) {
            return;
        }
        self.waiting.push_back((epoch, event));
        if let Some(asker) = self.asker.take()
            && let Err(unheard) = asker.send(self.waiting.drain(..).collect())
        {
            self.waiting = unheard.into();
        }
    }

    pub(crate) fn next(&mut self) -> ReplyFuture<Vec<(Epoch, NodeEvent)>> {
        if !self.waiting.is_empty() {
            return ReplyFuture::ready(Ok(self.waiting.drain(..).collect()));
        }
        let (asker, answer) = oneshot::channel();
        self.asker = Some(asker);
        ReplyFuture::new(async move { answer.await.map_err(|_| Error::cancelled()) as Result<_> })
    }
}
