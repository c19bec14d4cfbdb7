//! One input of a node: pulls samples from the upstream neighbour, ahead of need but bounded.

use std::collections::VecDeque;
use std::future::Future;

use futures::future::{AbortHandle, Abortable};
use portcullis_engine::Result;
use serde::{Deserialize, Serialize};

use super::port::{Credit, Epoch, FlowItem, Port, Pull, Pulled};
use crate::bridge::Handle;

/// How far a node reads ahead of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadAhead {
    /// Samples that one pull asks for; at most 4096.
    pub batch: u32,
    /// Payload bytes that wait at one input at most, beyond one sample; at most 64 MiB.
    pub bytes: u64,
}

impl Default for ReadAhead {
    fn default() -> Self {
        Self {
            batch: 16,
            bytes: 8 << 20,
        }
    }
}

impl ReadAhead {
    /// The settings within their bounds: they may come from a peer.
    fn bounded(self) -> Self {
        Self {
            batch: self.batch.clamp(1, 4096),
            bytes: self.bytes.clamp(1, 64 << 20),
        }
    }
}

/// Where an input's samples come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Upstream {
    /// The neighbour's port.
    pub port: Handle<Port>,
    /// Which output of it.
    pub output: u32,
}

/// One input of a node.
#[derive(Debug)]
pub(crate) struct Input {
    upstream: Option<Upstream>,
    ahead: ReadAhead,
    items: VecDeque<FlowItem>,
    bytes: u64,
    epoch: Epoch,
    pull: Option<AbortHandle>,
    /// Nothing more is asked for in this flow.
    is_over: bool,
}

impl Input {
    /// An input that is not connected.
    pub(crate) fn new(ahead: ReadAhead) -> Self {
        Self {
            upstream: None,
            ahead: ahead.bounded(),
            items: VecDeque::new(),
            bytes: 0,
            epoch: Epoch::default(),
            pull: None,
            is_over: false,
        }
    }

    pub(crate) fn connect(&mut self, upstream: Upstream) {
        self.upstream = Some(upstream);
    }

    pub(crate) fn set_ahead(&mut self, ahead: ReadAhead) {
        self.ahead = ahead.bounded();
    }

    /// Forgets what waits and enters a new flow.
    pub(crate) fn flush(&mut self, epoch: Epoch) {
        self.stop();
        self.epoch = epoch;
        self.is_over = false;
    }

    /// Forgets what waits and asks for nothing more until the next flow.
    pub(crate) fn stop(&mut self) {
        self.items.clear();
        self.bytes = 0;
        self.is_over = true;
        // Dropping the call cancels it.
        if let Some(pull) = self.pull.take() {
            pull.abort();
        }
    }

    /// The next pull to make, if there is room for its answer. It resolves to nothing where a flush came before the answer.
    pub(crate) fn next_pull(
        &mut self,
    ) -> Option<impl Future<Output = Option<(Credit, Result<Pulled>)>> + use<>> {
        let room =
            self.items.len() <= self.ahead.batch as usize / 2 && self.bytes < self.ahead.bytes;
        if self.pull.is_some() || self.is_over || !room {
            return None;
        }
        let upstream = self.upstream.as_ref()?;
        let credit = Credit {
            max_samples: self.ahead.batch,
            max_bytes: self.ahead.bytes.saturating_sub(self.bytes).max(1),
            epoch: self.epoch,
        };
        let call = upstream.port.send(Pull {
            output: upstream.output,
            credit,
        });
        let (abort, registration) = AbortHandle::new_pair();
        self.pull = Some(abort);
        let pull = Abortable::new(call, registration);
        Some(async move { Some((credit, pull.await.ok()?)) })
    }

    /// Takes the answer of a pull.
    ///
    /// # Errors
    /// What ended the neighbour, or `Protocol` for more than was asked for. The input is over then.
    pub(crate) fn take(&mut self, credit: Credit, answer: Result<Pulled>) -> Result<()> {
        if credit.epoch != self.epoch {
            return Ok(());
        }
        self.pull = None;
        let outcome = answer.and_then(|pulled| {
            credit.check(&pulled.items, pulled.epoch)?;
            Ok(pulled)
        });
        let pulled = outcome.inspect_err(|_| self.is_over = true)?;
        if pulled.epoch != self.epoch {
            // The neighbour is in a later flow already; this node will be told of it.
            self.is_over = true;
            return Ok(());
        }
        for item in pulled.items {
            self.is_over |= item == FlowItem::End;
            self.bytes = self.bytes.saturating_add(item.bytes());
            self.items.push_back(item);
        }
        Ok(())
    }

    /// The oldest item.
    pub(crate) fn pop(&mut self) -> Option<FlowItem> {
        let item = self.items.pop_front()?;
        self.bytes = self.bytes.saturating_sub(item.bytes());
        Some(item)
    }

    pub(crate) fn front(&self) -> Option<&FlowItem> {
        self.items.front()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.stop();
    }
}
