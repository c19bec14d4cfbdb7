//! Demand: a request that waits is a credit, and a producer makes only what was asked for.
//!
//! An [`OutputPort`] stands between a node and the consumer behind one of its outputs. Requests of the consumer wait in it
//! for items, or items for requests; both are bounded by what was asked. Every request is a [`Credit`] and carries the epoch
//! of the flow that it belongs to: a flush answers those of an earlier flow with nothing. A consumer that does not trust
//! its producer holds each answer against the credit ([`Credit::check`]).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::media::{MediaTime, MediaType, Sample};
use crate::session::Epoch;

/// Requests of one consumer that may wait at one port.
const MAX_REQUESTS: usize = 64;
/// Most samples of one answer.
pub const MAX_BATCH: u32 = 4096;
/// Most items of one answer that are not samples.
const MAX_OTHERS: usize = 64;

/// One thing that flows over a link, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FlowItem {
    /// A sample.
    Sample(Sample),
    /// What follows is of this type.
    Format(MediaType),
    /// There is nothing for a while.
    Gap {
        /// From when.
        time: MediaTime,
        /// For how long.
        duration: MediaTime,
    },
    /// Something upstream failed; what follows, if anything, is good.
    Error(Error),
    /// Nothing follows.
    End,
}

impl FlowItem {
    /// Payload bytes of the item.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Sample(sample) => sample.len() as u64,
            _ => 0,
        }
    }
}

/// What an answer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Payload bytes.
    pub bytes: u64,
    /// Whether nothing follows.
    pub ends: bool,
}

/// What one request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// Samples at most; at least 1.
    pub max_samples: u32,
    /// Payload bytes at most; one sample of any size is always allowed.
    pub max_bytes: u64,
    /// The flow that the asker is in.
    pub epoch: Epoch,
}

impl Credit {
    /// Holds an answer against the credit, for consumers that do not trust their producer; says what it holds.
    ///
    /// # Errors
    /// `Protocol` where it has more than was asked for, or nothing without a newer flow being the reason.
    pub fn check(&self, items: &[FlowItem], epoch: Epoch) -> Result<Held> {
        let mut held = Held::default();
        let mut samples = 0;
        for item in items {
            match item {
                FlowItem::Sample(sample) => {
                    samples += 1;
                    held.bytes = held.bytes.saturating_add(sample.len() as u64);
                }
                other => held.ends |= matches!(other, FlowItem::End),
            }
        }
        let bytes = held.bytes;
        let what = if items.is_empty() && epoch <= self.epoch {
            "nothing".to_owned()
        } else if samples > self.max_samples.clamp(1, MAX_BATCH) as usize {
            format!("{samples} samples")
        } else if items.len() - samples > MAX_OTHERS {
            format!("{} items that are not samples", items.len() - samples)
        } else if samples > 1 && bytes > self.max_bytes {
            format!("{bytes} bytes")
        } else {
            return Ok(held);
        };
        let (asked, most) = (self.max_samples, self.max_bytes);
        let what =
            format!("a node answered a request for {asked} samples, {most} bytes with {what}");
        Err(ErrorKind::Protocol(what.into()).into())
    }
}

/// The answer to one request.
#[derive(Debug, PartialEq)]
pub struct Answer<R> {
    /// Whom to answer.
    pub reply: R,
    /// The items; none for a request of an earlier flow.
    pub items: Vec<FlowItem>,
    /// The flow of the items.
    pub epoch: Epoch,
}

#[derive(Debug)]
struct Request<R> {
    reply: R,
    credit: Credit,
}

/// One output of a node. `R` is whatever answers a request.
#[derive(Debug)]
pub struct OutputPort<R> {
    epoch: Epoch,
    items: VecDeque<FlowItem>,
    samples: usize,
    bytes: u64,
    requests: VecDeque<Request<R>>,
    has_ended: bool,
    /// The flow in which the consumer wants nothing more.
    gone_in: Option<Epoch>,
}

impl<R> Default for OutputPort<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> OutputPort<R> {
    /// A port at the beginning of the first flow.
    pub fn new() -> Self {
        Self {
            epoch: Epoch::default(),
            items: VecDeque::new(),
            samples: 0,
            bytes: 0,
            requests: VecDeque::new(),
            has_ended: false,
            gone_in: None,
        }
    }

    /// The present flow.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Takes a request; what can be answered now is answered. A request of a later flow than the port's waits for the flush
    /// that begins it; one of an earlier flow is answered with nothing.
    ///
    /// # Errors
    /// Gives the reply back, with `InvalidRequest`, where too many requests wait already.
    pub fn request(&mut self, credit: Credit, reply: R) -> Result<Option<Answer<R>>, (R, Error)> {
        match self.request_later(credit, reply)? {
            None => Ok(self.answer()),
            stale => Ok(stale),
        }
    }

    /// Takes a request while nothing is delivered; only one of an earlier flow is answered.
    ///
    /// # Errors
    /// As [`OutputPort::request`].
    pub fn request_later(
        &mut self,
        credit: Credit,
        reply: R,
    ) -> Result<Option<Answer<R>>, (R, Error)> {
        if credit.epoch < self.epoch {
            return Ok(Some(self.nothing(reply)));
        }
        if self.requests.len() >= MAX_REQUESTS {
            return Err((reply, Error::invalid_request("too many requests wait")));
        }
        let max_samples = credit.max_samples.clamp(1, MAX_BATCH);
        self.requests.push_back(Request {
            reply,
            credit: Credit {
                max_samples,
                ..credit
            },
        });
        Ok(None)
    }

    /// Forgets the requests of those who do not wait any more.
    pub fn forget(&mut self, has_gone: impl Fn(&R) -> bool) {
        self.requests.retain(|request| !has_gone(&request.reply));
    }

    /// Samples that are asked for and not there yet: how many the node should make.
    pub fn wanted(&self) -> usize {
        if self.has_ended || self.is_disconnected() {
            return 0;
        }
        let credits = self.requests.iter().map(|request| request.credit);
        let present = credits.filter(|credit| credit.epoch == self.epoch);
        let asked: usize = present.map(|credit| credit.max_samples as usize).sum();
        asked.saturating_sub(self.samples)
    }

    /// The consumer takes nothing more in this flow: what waits for it, and what would, is left out.
    pub fn disconnect(&mut self, epoch: Epoch) {
        self.gone_in = self.gone_in.max(Some(epoch));
        if self.is_disconnected() {
            let has_ended = self.has_ended;
            self.clear();
            self.has_ended = has_ended;
        }
    }

    /// Whether the consumer takes nothing more in the present flow.
    pub fn is_disconnected(&self) -> bool {
        self.gone_in == Some(self.epoch)
    }

    /// So many items will be put out next.
    pub fn reserve(&mut self, items: usize) {
        self.items.reserve(items);
    }

    /// Puts out an item of the present flow.
    pub fn push(&mut self, item: FlowItem) {
        if self.is_disconnected() {
            self.has_ended |= matches!(item, FlowItem::End);
            return;
        }
        self.count(&item);
        self.items.push_back(item);
    }

    /// The answer to the oldest request, as soon as there is anything to answer. Call it until there is none.
    pub fn answer(&mut self) -> Option<Answer<R>> {
        if self.items.is_empty() {
            return None;
        }
        // A request of a later flow waits for the flush: what is here is not meant for it.
        if self.requests.front()?.credit.epoch != self.epoch {
            return None;
        }
        let Request { reply, credit } = self.requests.pop_front()?;
        let (mut samples, mut bytes, mut count) = (0, 0_u64, 0);
        for item in &self.items {
            let fits = match item {
                FlowItem::Sample(sample) => {
                    let with = bytes.saturating_add(sample.len() as u64);
                    let fits =
                        samples < credit.max_samples && (samples == 0 || with <= credit.max_bytes);
                    if fits {
                        samples += 1;
                        bytes = with;
                    }
                    fits
                }
                _ => count < samples as usize + MAX_OTHERS,
            };
            if !fits {
                break;
            }
            count += 1;
        }
        self.samples = self.samples.saturating_sub(samples as usize);
        self.bytes = self.bytes.saturating_sub(bytes);
        let items = if count == self.items.len() {
            // Moves nothing unless the items go around the end of their memory.
            Vec::from(std::mem::take(&mut self.items))
        } else {
            self.items.drain(..count).collect()
        };
        Some(Answer {
            reply,
            items,
            epoch: self.epoch,
        })
    }

    /// Takes the items of an answer back that nobody heard; they are the next ones again.
    pub fn unheard(&mut self, items: Vec<FlowItem>, epoch: Epoch) {
        if epoch == self.epoch && !self.is_disconnected() {
            for item in items.into_iter().rev() {
                self.count(&item);
                self.items.push_front(item);
            }
        }
    }

    /// Forgets what waits for requests; requests go on waiting.
    pub fn clear(&mut self) {
        self.items.clear();
        self.samples = 0;
        self.bytes = 0;
        self.has_ended = false;
    }

    /// Begins another flow: what waits is forgotten, and requests are answered with nothing. A flow that has begun already
    /// goes on.
    #[must_use]
    pub fn flush(&mut self, epoch: Epoch) -> Vec<Answer<R>> {
        if epoch <= self.epoch {
            return Vec::new();
        }
        self.epoch = epoch;
        self.clear();
        let mut stale = Vec::new();
        for request in std::mem::take(&mut self.requests) {
            if request.credit.epoch < epoch {
                stale.push(self.nothing(request.reply));
            } else {
                self.requests.push_back(request);
            }
        }
        stale
    }

    /// Whether the end of the present flow was put out.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Payload bytes of the items that wait for a request.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Items that wait for a request.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits for a request.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn count(&mut self, item: &FlowItem) {
        match item {
            FlowItem::Sample(_) => {
                self.samples += 1;
                self.bytes += item.bytes();
            }
            FlowItem::End => self.has_ended = true,
            _ => {}
        }
    }

    fn nothing(&self, reply: R) -> Answer<R> {
        Answer {
            reply,
            items: Vec::new(),
            epoch: self.epoch,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(time: i64) -> FlowItem {
        FlowItem::Sample(Sample::new(
            MediaTime::from_ticks(time),
            MediaTime::ZERO,
            vec![0],
        ))
    }

    fn credit(max_samples: u32, epoch: u64) -> Credit {
        Credit {
            max_samples,
            max_bytes: u64::MAX,
            epoch: Epoch(epoch),
        }
    }

    fn asked(port: &mut OutputPort<u32>, max: u32, epoch: u64, reply: u32) -> Option<Answer<u32>> {
        port.request(credit(max, epoch), reply).expect("few wait")
    }

    #[test]
    fn only_what_was_asked_for_is_wanted() {
        let mut port = OutputPort::new();
        assert_eq!(port.wanted(), 0);
        assert_eq!(asked(&mut port, 3, 0, 1), None);
        assert_eq!(asked(&mut port, 2, 0, 2), None);
        assert_eq!(port.wanted(), 5);
        for time in 0..4 {
            port.push(sample(time));
        }
        assert_eq!(port.wanted(), 1);
        let first = port.answer().expect("is there");
        assert_eq!((first.reply, first.items.len()), (1, 3));
        let second = port.answer().expect("is there");
        assert_eq!((second.reply, second.items.len()), (2, 1));
        assert_eq!((port.answer(), port.wanted()), (None, 0));
    }

    #[test]
    fn formats_and_the_end_ride_with_the_samples() {
        let mut port = OutputPort::new();
        let sound = MediaType::audio(crate::media::Subtype::PCM_S16, 48_000, 2);
        for item in [FlowItem::Format(sound), sample(0), FlowItem::End] {
            port.push(item);
        }
        let answer = asked(&mut port, 1, 0, 1).expect("at once");
        assert_eq!(answer.items.len(), 3);
        assert!(port.has_ended());
        assert_eq!(asked(&mut port, 1, 0, 2), None);
        assert_eq!(port.wanted(), 0);
    }

    #[test]
    fn a_flush_answers_what_is_stale_and_keeps_what_is_early() {
        let mut port = OutputPort::new();
        assert_eq!(asked(&mut port, 1, 0, 1), None);
        assert_eq!(asked(&mut port, 1, 2, 2), None);
        assert_eq!(port.wanted(), 1);
        let stale = port.flush(Epoch(2));
        assert_eq!(stale.len(), 1);
        assert_eq!((stale[0].reply, stale[0].items.len()), (1, 0));
        assert_eq!(port.wanted(), 1);
        port.push(sample(7));
        assert_eq!(port.answer().map(|answer| answer.reply), Some(2));
        let late = asked(&mut port, 1, 1, 3).expect("at once");
        assert!(late.items.is_empty());
        assert!(port.flush(Epoch(2)).is_empty());
    }

    #[test]
    fn requests_are_bounded() {
        let mut port = OutputPort::new();
        for reply in 0..MAX_REQUESTS as u32 {
            assert_eq!(asked(&mut port, u32::MAX, 0, reply), None);
        }
        let (reply, _) = port.request(credit(1, 0), 99).expect_err("too many");
        assert_eq!(reply, 99);
        assert_eq!(port.wanted(), MAX_REQUESTS * MAX_BATCH as usize);
    }

    #[test]
    fn an_answer_keeps_to_its_bytes_and_is_checked_against_its_credit() {
        let large = |time| {
            let time = MediaTime::from_ticks(time);
            FlowItem::Sample(Sample::new(time, MediaTime::ZERO, vec![0; 100]))
        };
        let mut port = OutputPort::new();
        for time in 0..5 {
            port.push(large(time));
        }
        let ask = Credit {
            max_bytes: 250,
            ..credit(8, 0)
        };
        let answer = port.request(ask, 1).expect("few wait").expect("at once");
        assert_eq!((answer.items.len(), port.bytes()), (2, 300));
        let held = ask.check(&answer.items, Epoch(0)).expect("keeps to it");
        assert_eq!((held.bytes, held.ends), (200, false));
        port.unheard(answer.items, answer.epoch);
        assert_eq!((port.len(), port.bytes()), (5, 500));
        let tiny = Credit {
            max_bytes: 1,
            ..credit(8, 0)
        };
        let answer = port.request(tiny, 2).expect("few wait").expect("at once");
        assert_eq!(answer.items, [large(0)]);
        assert!(tiny.check(&answer.items, Epoch(0)).is_ok());

        assert!(tiny.check(&[large(0), large(1)], Epoch(0)).is_err());
        assert!(credit(1, 0).check(&[large(0), large(1)], Epoch(0)).is_err());
        let ends = vec![FlowItem::End; MAX_OTHERS + 1];
        assert!(credit(1, 0).check(&ends, Epoch(0)).is_err());
        assert!(credit(1, 1).check(&[], Epoch(1)).is_err());
        assert!(credit(1, 1).check(&[], Epoch(2)).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_request_is_answered_once_and_every_sample_delivered_once(
            steps in prop::collection::vec((0..4u8, 1..5u32), 1..200),
        ) {
            let mut port = OutputPort::new();
            let (mut epoch, mut replies, mut time) = (0, 0, 0);
            let mut answers = Vec::new();
            for (step, count) in steps {
                match step {
                    0 => {
                        replies += 1;
                        match port.request(credit(count, epoch), replies) {
                            Ok(answer) => answers.extend(answer),
                            Err(_) => replies -= 1,
                        }
                    }
                    1 | 2 => for _ in 0..count {
                        if port.wanted() > 0 {
                            port.push(sample(time));
                            time += 1;
                        }
                    },
                    _ if count == 1 => {
                        epoch += 1;
                        answers.extend(port.flush(Epoch(epoch)));
                    }
                    _ => answers.extend(port.answer()),
                }
            }
            while let Some(answer) = port.answer() {
                answers.push(answer);
            }
            answers.extend(port.flush(Epoch(epoch + 1)));
            let mut answered: Vec<_> = answers.iter().map(|answer| answer.reply).collect();
            answered.sort_unstable();
            prop_assert!(answered.into_iter().eq(1..=replies));
            let times: Vec<_> = answers
                .iter()
                .flat_map(|answer| &answer.items)
                .filter_map(|item| match item {
                    FlowItem::Sample(sample) => Some(sample.time),
                    _ => None,
                })
                .collect();
            prop_assert!(times.is_sorted_by(|a, b| a < b));
        }
    }
}
