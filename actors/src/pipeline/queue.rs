//! One output of a node: items that wait for pulls, or pulls that wait for items.

use std::collections::VecDeque;

use portcullis_engine::{Error, Result};
use tokio::sync::oneshot;

use super::port::{Epoch, Item, Pull, Pulled};
use crate::bridge::ReplyFuture;

/// Pulls that may wait at one output: an asker needs one, or two to hide a round trip.
const MAX_ASKS: usize = 8;

/// One output of a node.
#[derive(Debug, Default)]
pub(crate) struct OutputQueue {
    items: VecDeque<Item>,
    bytes: u64,
    asks: VecDeque<(Pull, oneshot::Sender<Pulled>)>,
    epoch: Epoch,
}

impl OutputQueue {
    /// Takes a pull. Its answer is dropped unheard if the asker goes.
    pub(crate) fn ask(&mut self, pull: Pull) -> ReplyFuture<Pulled> {
        if pull.epoch < self.epoch {
            return ReplyFuture::ready(Ok(Pulled {
                items: vec![Item::Stale],
            }));
        }
        self.asks.retain(|(_, asker)| !asker.is_closed());
        if self.asks.len() >= MAX_ASKS {
            return ReplyFuture::ready(Err(Error::invalid_request(
                "too many pulls wait at one output",
            )));
        }
        let (asker, answer) = oneshot::channel();
        self.asks.push_back((pull, asker));
        self.serve();
        ReplyFuture::new(async move { answer.await.map_err(|_| Error::cancelled()) as Result<_> })
    }

    /// Puts an item behind the others.
    pub(crate) fn push(&mut self, item: Item) {
        self.bytes += item.bytes();
        self.items.push_back(item);
    }

    /// Answers pulls from what is there.
    pub(crate) fn serve(&mut self) {
        while !self.items.is_empty() {
            let Some((pull, asker)) = self.asks.pop_front() else {
                return;
            };
            if asker.is_closed() {
                continue;
            }
            if pull.epoch > self.epoch {
                // The asker is ahead: what is here belongs to an epoch that it has left.
                self.asks.push_front((pull, asker));
                return;
            }
            let mut items =
                Vec::with_capacity(self.items.len().min(pull.max_samples.max(1) as usize));
            let mut bytes = 0;
            while items.len() < pull.max_samples.max(1) as usize
                && (items.is_empty() || bytes < pull.max_bytes)
                && let Some(item) = self.items.pop_front()
            {
                bytes += item.bytes();
                items.push(item);
            }
            self.bytes -= bytes;
            if let Err(Pulled { items }) = asker.send(Pulled { items }) {
                // The asker went in this moment: the next one gets them, in order.
                self.bytes += bytes;
                for item in items.into_iter().rev() {
                    self.items.push_front(item);
                }
            }
        }
    }

    /// Forgets what waits and enters a new epoch; pulls of older ones are answered `Stale`.
    pub(crate) fn flush(&mut self, epoch: Epoch) {
        self.items.clear();
        self.bytes = 0;
        self.epoch = epoch;
        for (pull, asker) in std::mem::take(&mut self.asks) {
            if pull.epoch < epoch {
                // The asker may have gone.
                let _ = asker.send(Pulled {
                    items: vec![Item::Stale],
                });
            } else {
                self.asks.push_back((pull, asker));
            }
        }
    }

    /// Ends every waiting pull with this error's fault.
    pub(crate) fn fail(&mut self, error: &Error) {
        self.push(Item::Fault(error.clone()));
        self.push(Item::End);
        self.serve();
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Samples that waiting pulls still want.
    pub(crate) fn wanted(&self) -> usize {
        self.asks
            .iter()
            .map(|(pull, _)| pull.max_samples.max(1) as usize)
            .sum()
    }
}
