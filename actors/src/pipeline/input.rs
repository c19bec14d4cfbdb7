//! One input of a node: pulls samples from the upstream neighbour, ahead of need but bounded.

use std::collections::VecDeque;

use portcullis_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::port::{Epoch, Item, Port, Pull, Pulled};
use crate::bridge::{Call, Handle};

/// How far a node reads ahead of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadAhead {
    /// Samples that one pull asks for.
    pub batch: u32,
    /// Payload bytes that wait at one input at most, beyond one batch.
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
    items: VecDeque<Item>,
    bytes: u64,
    epoch: Epoch,
    pulling: bool,
    ended: bool,
}

impl Input {
    pub(crate) fn new(ahead: ReadAhead) -> Self {
        Self {
            upstream: None,
            ahead,
            items: VecDeque::new(),
            bytes: 0,
            epoch: Epoch::default(),
            pulling: false,
            ended: false,
        }
    }

    pub(crate) fn connect(&mut self, upstream: Upstream) {
        self.upstream = Some(upstream);
    }

    pub(crate) fn set_ahead(&mut self, ahead: ReadAhead) {
        self.ahead = ahead;
    }

    /// Forgets what waits and enters a new epoch.
    pub(crate) fn flush(&mut self, epoch: Epoch) {
        self.items.clear();
        self.bytes = 0;
        self.epoch = epoch;
        // The answer of a pull of the old epoch is recognised by its epoch.
        self.pulling = false;
        self.ended = false;
    }

    /// The next pull to make, if there is room for its answer.
    pub(crate) fn next_pull(&mut self) -> Option<(Epoch, Call<Pull>)> {
        let room =
            self.items.len() <= self.ahead.batch as usize / 2 && self.bytes < self.ahead.bytes;
        if self.pulling || self.ended || !room {
            return None;
        }
        let upstream = self.upstream.as_ref()?;
        self.pulling = true;
        let pull = Pull {
            output: upstream.output,
            max_samples: self.ahead.batch,
            max_bytes: self.ahead.bytes.saturating_sub(self.bytes).max(1),
            epoch: self.epoch,
        };
        Some((self.epoch, upstream.port.send(pull)))
    }

    /// Takes the answer of a pull.
    ///
    /// # Errors
    /// What ended the neighbour; the input has ended then.
    pub(crate) fn take(&mut self, epoch: Epoch, answer: Result<Pulled>) -> Result<()> {
        if epoch != self.epoch {
            return Ok(());
        }
        self.pulling = false;
        let pulled = answer.inspect_err(|_| self.ended = true)?;
        if pulled.items.is_empty() {
            self.ended = true;
            return Err(Error::invalid_request(
                "a node answered a pull with nothing",
            ));
        }
        for item in pulled.items {
            match item {
                Item::Stale => continue,
                Item::End => self.ended = true,
                _ => {}
            }
            self.bytes += item.bytes();
            self.items.push_back(item);
        }
        Ok(())
    }

    /// The oldest item.
    pub(crate) fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes();
        Some(item)
    }

    pub(crate) fn front(&self) -> Option<&Item> {
        self.items.front()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }
}
