//! Demand: a request that waits is a credit, and a producer makes only what was asked for.
//!
//! An [`OutputPort`] stands between a node and the consumer behind one of its outputs. Requests of the consumer wait in it
//! for items, or items for requests; both are bounded by what was asked. Every request carries the epoch of the flow
//! that it belongs to: a flush answers those of an earlier flow with nothing.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::media::{MediaTime, MediaType, Sample};
use crate::session::Epoch;

/// Requests of one consumer that may wait at one port.
const MAX_REQUESTS: usize = 64;
/// Most samples of one answer.
const MAX_BATCH: u32 = 4096;

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
    max_samples: u32,
    epoch: Epoch,
}

/// One output of a node. `R` is whatever answers a request.
#[derive(Debug)]
pub struct OutputPort<R> {
    epoch: Epoch,
    items: VecDeque<FlowItem>,
    samples: usize,
    requests: VecDeque<Request<R>>,
    has_ended: bool,
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
            requests: VecDeque::new(),
            has_ended: false,
        }
    }

    /// The present flow.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Takes a request for up to `max_samples` samples, at least one; what can be answered now is answered. A request of a
    /// later flow than the port's waits for the flush that begins it; one of an earlier flow is answered with nothing.
    ///
    /// # Errors
    /// Gives the reply back, with `InvalidRequest`, where too many requests wait already.
    pub fn request(
        &mut self,
        max_samples: u32,
        epoch: Epoch,
        reply: R,
    ) -> Result<Option<Answer<R>>, (R, Error)> {
        if epoch < self.epoch {
            return Ok(Some(self.nothing(reply)));
        }
        if self.requests.len() >= MAX_REQUESTS {
            return Err((reply, Error::invalid_request("too many requests wait")));
        }
        self.requests.push_back(Request {
            reply,
            max_samples: max_samples.clamp(1, MAX_BATCH),
            epoch,
        });
        Ok(self.answer())
    }

    /// Samples that are asked for and not there yet: how many the node should make.
    pub fn wanted(&self) -> usize {
        if self.has_ended {
            return 0;
        }
        let present = self.requests.iter().filter(|r| r.epoch == self.epoch);
        let asked: usize = present.map(|request| request.max_samples as usize).sum();
        asked.saturating_sub(self.samples)
    }

    /// Puts out an item of the present flow.
    pub fn push(&mut self, item: FlowItem) {
        match &item {
            FlowItem::Sample(_) => self.samples += 1,
            FlowItem::End => self.has_ended = true,
            _ => {}
        }
        self.items.push_back(item);
    }

    /// The answer to the oldest request, as soon as there is anything to answer. Call it until there is none.
    pub fn answer(&mut self) -> Option<Answer<R>> {
        if self.items.is_empty() {
            return None;
        }
        // A request of a later flow waits for the flush: what is here is not meant for it.
        if self.requests.front()?.epoch != self.epoch {
            return None;
        }
        let request = self.requests.pop_front()?;
        let mut items = Vec::new();
        let mut samples = 0;
        while let Some(item) = self.items.front() {
            if matches!(item, FlowItem::Sample(_)) {
                if samples == request.max_samples {
                    break;
                }
                samples += 1;
                self.samples -= 1;
            }
            items.extend(self.items.pop_front());
        }
        Some(Answer {
            reply: request.reply,
            items,
            epoch: self.epoch,
        })
    }

    /// Begins another flow: what waits is forgotten, and requests are answered with nothing. A flow that has begun already
    /// goes on.
    #[must_use]
    pub fn flush(&mut self, epoch: Epoch) -> Vec<Answer<R>> {
        if epoch <= self.epoch {
            return Vec::new();
        }
        self.epoch = epoch;
        self.items.clear();
        self.samples = 0;
        self.has_ended = false;
        let mut stale = Vec::new();
        for request in std::mem::take(&mut self.requests) {
            if request.epoch < epoch {
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

    /// Items that wait for a request.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits for a request.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
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

    fn asked(port: &mut OutputPort<u32>, max: u32, epoch: u64, reply: u32) -> Option<Answer<u32>> {
        port.request(max, Epoch(epoch), reply).expect("few wait")
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
        let (reply, _) = port.request(1, Epoch(0), 99).expect_err("too many");
        assert_eq!(reply, 99);
        assert_eq!(port.wanted(), MAX_REQUESTS * MAX_BATCH as usize);
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
                        match port.request(count, Epoch(epoch), replies) {
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
