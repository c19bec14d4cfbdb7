//! One input of a node: pulls samples from the upstream neighbour, ahead of need but bounded.
//!
//! Two pulls or more are under way at a time: while the answer of one crosses, the neighbour works for the others. How many samples
//! a pull asks for grows while the node waits for them and falls when they come in small numbers: a fast stream of small
//! samples costs few messages, a slow one is not read far ahead.

use std::collections::VecDeque;
use std::future::Future;

use futures::future::{AbortHandle, Abortable};
use portcullis_engine::Result;
use serde::{Deserialize, Serialize};

use super::port::{
    AllocationRequirements, Credit, Disconnect, Epoch, FlowItem, Port, Pull, Pulled, Require,
};
use crate::bridge::Handle;

/// How far a node reads ahead of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadAhead {
    /// Samples that one pull asks for at most; 1 to 4096.
    pub batch: u32,
    /// Payload bytes that wait at one input at most; at most 64 MiB. Every pull that is under way may be answered with one
    /// sample of any size, and that many come beyond it: two, or up to 16 where `batch` is below 8 and the first large sample
    /// of a flow comes after small ones.
    pub bytes: u64,
}

impl Default for ReadAhead {
    fn default() -> Self {
        Self {
            batch: 512,
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

/// Samples that a pull asks for at first.
const FIRST_BATCH: u32 = 16;
/// Pulls that are under way at a time, and
const PULLS: usize = 2;
/// so many samples in all, if that is more, where a pull may ask for few only and they come fast.
const FEW: u32 = 16;
/// Payload bytes of an answer up to which that is so.
const LIGHT: u64 = 64 << 10;

/// Where an input's samples come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Upstream {
    /// The neighbour's port.
    pub port: Handle<Port>,
    /// Which output of it.
    pub output: u32,
}

impl Upstream {
    /// Tells the neighbour what is asked of its memory; that it is nothing, too: another may have asked for something before.
    pub(crate) async fn require(
        self,
        asked: impl Future<Output = Result<AllocationRequirements>>,
    ) -> Result<()> {
        let Self { port, output } = self;
        let memory = asked.await?;
        port.send(Require { output, memory }).await
    }
}

/// A pull that is under way.
#[derive(Debug)]
struct UnderWay {
    abort: AbortHandle,
    credit: Credit,
    /// An answer that has overtaken that of an older pull.
    early: Option<Result<Pulled>>,
}

/// Which pull an answer is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PullNumber {
    number: u64,
    epoch: Epoch,
}

/// One input of a node.
#[derive(Debug)]
pub(crate) struct Input {
    upstream: Option<Upstream>,
    ahead: ReadAhead,
    items: VecDeque<FlowItem>,
    bytes: u64,
    epoch: Epoch,
    /// Samples that the next pull asks for.
    batch: u32,
    /// Pulls that may be under way.
    depth: usize,
    /// Payload bytes of the largest answer in this flow.
    heaviest: u64,
    /// Pulls that are under way, oldest first.
    pulls: VecDeque<UnderWay>,
    /// Number of the oldest of them.
    oldest: u64,
    /// Nothing more is asked for in this flow.
    is_over: bool,
}

impl Input {
    /// An input that is not connected.
    pub(crate) fn new(ahead: ReadAhead) -> Self {
        let ahead = ahead.bounded();
        Self {
            upstream: None,
            ahead,
            batch: ahead.batch.min(FIRST_BATCH),
            depth: PULLS,
            heaviest: 0,
            items: VecDeque::new(),
            bytes: 0,
            epoch: Epoch::default(),
            pulls: VecDeque::new(),
            oldest: 0,
            is_over: false,
        }
    }

    pub(crate) fn connect(&mut self, upstream: Upstream) {
        self.upstream = Some(upstream);
    }

    pub(crate) fn set_ahead(&mut self, ahead: ReadAhead) {
        self.ahead = ahead.bounded();
        self.batch = self.ahead.batch.min(FIRST_BATCH);
        self.depth = PULLS;
    }

    /// Forgets what waits and enters a new flow.
    pub(crate) fn flush(&mut self, epoch: Epoch) {
        self.stop();
        self.epoch = epoch;
        self.is_over = false;
        self.heaviest = 0;
    }

    /// Forgets what waits and asks for nothing more until the next flow.
    pub(crate) fn stop(&mut self) {
        self.items.clear();
        self.bytes = 0;
        self.is_over = true;
        // Dropping a call cancels it.
        for pull in self.pulls.drain(..) {
            self.oldest += 1;
            pull.abort.abort();
        }
    }

    /// Asks for nothing more until the next flow, and tells the neighbour so: it may have others to go on for.
    pub(crate) fn disconnect(&mut self) {
        self.stop();
        if let Some(Upstream { port, output }) = &self.upstream {
            let (output, epoch) = (*output, self.epoch);
            port.tell_in_time(Disconnect { output, epoch });
        }
    }

    /// Lets go of what is only needed for decoding, of gaps, and of types that another follows, up to the first thing that is
    /// to be rendered; says whether that is here.
    pub(crate) fn skip_to_first(&mut self) -> bool {
        let mut passed = VecDeque::new();
        let mut is_here = false;
        while let Some(item) = self.pop() {
            match &item {
                FlowItem::Format(_) => passed = VecDeque::from([item]),
                FlowItem::Gap { .. } => {}
                FlowItem::Sample(sample) if sample.flags.preroll => {}
                _ => {
                    passed.push_back(item);
                    is_here = true;
                    break;
                }
            }
        }
        self.put_back(passed.into_iter());
        is_here
    }

    /// The next pull to make, if there is room for its answer; call it until there is none. It resolves to nothing where a
    /// flush came before the answer.
    pub(crate) fn next_pull(
        &mut self,
    ) -> Option<impl Future<Output = Option<(PullNumber, Result<Pulled>)>> + use<>> {
        let promised: u64 = self.pulls.iter().map(|pull| pull.credit.max_bytes).sum();
        let bytes = self
            .ahead
            .bytes
            .saturating_sub(self.bytes.saturating_add(promised));
        let has_room = self.items.len() <= self.batch as usize / 2 && bytes > 0;
        if self.is_over || !has_room || self.pulls.len() >= self.depth {
            return None;
        }
        let upstream = self.upstream.as_ref()?;
        let credit = Credit {
            max_samples: self.batch,
            // What is left is for the pull behind it.
            max_bytes: bytes.min(self.ahead.bytes.div_ceil(self.depth as u64)),
            epoch: self.epoch,
        };
        let call = upstream.port.send(Pull {
            output: upstream.output,
            credit,
        });
        let (abort, registration) = AbortHandle::new_pair();
        let number = PullNumber {
            number: self.oldest + self.pulls.len() as u64,
            epoch: self.epoch,
        };
        self.pulls.push_back(UnderWay {
            abort,
            credit,
            early: None,
        });
        let pull = Abortable::new(call, registration);
        Some(async move { Some((number, pull.await.ok()?)) })
    }

    /// Takes the answer of a pull.
    ///
    /// # Errors
    /// What ended the neighbour, or `Protocol` for more than was asked for. The input is over then.
    pub(crate) fn take(&mut self, number: PullNumber, answer: Result<Pulled>) -> Result<()> {
        let index = number.number.checked_sub(self.oldest);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let Some(pull) = index.and_then(|index| self.pulls.get_mut(index)) else {
            return Ok(());
        };
        if number.epoch != self.epoch {
            return Ok(());
        }
        pull.early = Some(answer);
        while let Some(answer) = self.pulls.front_mut().and_then(|pull| pull.early.take()) {
            let Some(pull) = self.pulls.pop_front() else {
                break;
            };
            self.oldest += 1;
            self.take_in_order(pull.credit, answer)?;
        }
        Ok(())
    }

    fn take_in_order(&mut self, credit: Credit, answer: Result<Pulled>) -> Result<()> {
        let outcome = answer.and_then(|pulled| {
            let held = credit.check(&pulled.items, pulled.epoch)?;
            Ok((pulled, held))
        });
        let (pulled, held) = outcome.inspect_err(|_| self.is_over = true)?;
        if pulled.epoch != self.epoch {
            // The neighbour is in a later flow already; this node will be told of it.
            self.is_over = true;
            return Ok(());
        }
        let (came, asked) = (pulled.items.len(), credit.max_samples as usize);
        self.heaviest = self.heaviest.max(held.bytes);
        if came >= asked && self.items.is_empty() {
            let most = match held.bytes <= LIGHT {
                // Each of them may be answered with as much as the heaviest.
                true => {
                    u64::from(FEW / self.ahead.batch).min(self.ahead.bytes / self.heaviest.max(1))
                }
                false => 0,
            };
            self.depth = (most as usize).max(PULLS);
            self.batch = credit.max_samples.saturating_mul(2).min(self.ahead.batch);
        } else if came < asked / 4 {
            self.batch = (credit.max_samples / 2).max(FIRST_BATCH.min(self.ahead.batch));
        }
        self.is_over |= held.ends;
        self.bytes = self.bytes.saturating_add(held.bytes);
        if self.items.is_empty() {
            // As they are: this moves none of them.
            self.items = VecDeque::from(pulled.items);
        } else {
            self.items.extend(pulled.items);
        }
        Ok(())
    }

    /// Puts items back in front of the others.
    pub(crate) fn put_back(&mut self, items: impl DoubleEndedIterator<Item = FlowItem>) {
        for item in items.rev() {
            self.bytes = self.bytes.saturating_add(item.bytes());
            self.items.push_front(item);
        }
    }

    /// The oldest item.
    pub(crate) fn pop(&mut self) -> Option<FlowItem> {
        let item = self.items.pop_front()?;
        self.bytes = self.bytes.saturating_sub(item.bytes());
        Some(item)
    }

    /// How many items are here.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
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

#[cfg(test)]
mod tests {
    use portcullis_engine::Sample;

    use super::*;

    fn samples(times: std::ops::Range<i64>) -> Result<Pulled> {
        let sample = |time| {
            let time = portcullis_engine::MediaTime::from_ticks(time);
            FlowItem::Sample(Sample::new(time, time, vec![0; 8]))
        };
        Ok(Pulled {
            items: times.map(sample).collect(),
            epoch: Epoch::default(),
        })
    }

    /// As if the input had a neighbour.
    fn ask(input: &mut Input) -> PullNumber {
        let credit = Credit {
            max_samples: input.batch,
            max_bytes: 1 << 20,
            epoch: input.epoch,
        };
        let number = input.oldest + input.pulls.len() as u64;
        input.pulls.push_back(UnderWay {
            abort: AbortHandle::new_pair().0,
            credit,
            early: None,
        });
        PullNumber {
            number,
            epoch: input.epoch,
        }
    }

    fn times(input: &mut Input) -> Vec<i64> {
        let items = std::iter::from_fn(|| input.pop());
        let time = |item| match item {
            FlowItem::Sample(sample) => Some(sample.time.ticks()),
            _ => None,
        };
        items.filter_map(time).collect()
    }

    #[test]
    fn an_answer_that_overtakes_another_waits_for_it() {
        let mut input = Input::new(ReadAhead::default());
        let (first, second) = (ask(&mut input), ask(&mut input));
        input.take(second, samples(2..4)).expect("is asked for");
        assert!(input.front().is_none());
        input.take(first, samples(0..2)).expect("is asked for");
        assert_eq!(times(&mut input), [0, 1, 2, 3]);
        let stale = ask(&mut input);
        input.flush(Epoch(1));
        input.take(stale, samples(4..5)).expect("is left out");
        assert!(input.front().is_none());
    }

    #[test]
    fn the_first_thing_to_render_is_looked_for_behind_types_and_gaps() {
        use portcullis_engine::{Error, MediaType, Subtype};
        let format =
            |channels| FlowItem::Format(MediaType::audio(Subtype::PCM_S16, 48_000, channels));
        let gap = || FlowItem::Gap {
            time: portcullis_engine::MediaTime::ZERO,
            duration: portcullis_engine::MediaTime::ZERO,
        };
        let preroll = || {
            let time = portcullis_engine::MediaTime::ZERO;
            let mut sample = Sample::new(time, time, vec![0; 8]);
            sample.flags.preroll = true;
            FlowItem::Sample(sample)
        };
        let mut input = Input::new(ReadAhead::default());
        input.put_back([format(1), gap(), preroll(), format(2), preroll()].into_iter());
        assert!(!input.skip_to_first());
        assert_eq!((input.items.len(), input.bytes), (1, 0));
        let rest = [FlowItem::Error(Error::cancelled()), FlowItem::End];
        input.items.extend(rest.clone());
        assert!(input.skip_to_first());
        let items: Vec<_> = std::iter::from_fn(|| input.pop()).collect();
        assert_eq!(items[..1], [format(2)]);
        assert_eq!(items[1..], rest);
    }

    #[test]
    fn what_comes_fast_is_asked_for_in_larger_batches() {
        let mut input = Input::new(ReadAhead {
            batch: 100,
            ..ReadAhead::default()
        });
        for asked in [16, 32, 64, 100, 100] {
            assert_eq!(input.batch, asked);
            let number = ask(&mut input);
            let full = samples(0..i64::from(asked));
            input.take(number, full).expect("is asked for");
            assert_eq!(times(&mut input).len(), asked as usize);
        }
        for asked in [100, 50, 25, 16, 16] {
            assert_eq!(input.batch, asked);
            let number = ask(&mut input);
            input.take(number, samples(0..1)).expect("is asked for");
            input.pop();
        }
        // Nobody waits for more while something waits already.
        let number = ask(&mut input);
        input.put_back(samples(0..3).expect("is some").items.into_iter());
        input.take(number, samples(3..19)).expect("is asked for");
        assert_eq!(input.batch, 16);
        assert_eq!(times(&mut input), (0..19).collect::<Vec<_>>());
        assert_eq!(input.bytes, 0);
    }
}
