//! What a source delivers: a port for each of its streams, all filled by one reader.
//!
//! Whoever runs the source tells this what is asked, started and read; it says how much is to be read next and what is to
//! be answered. A stream that nobody takes from is held back, up to a limit, while another goes on; one whose consumer has
//! said that it wants nothing more is left out.

use std::collections::BTreeMap;

use super::SourceState;
use crate::credit::{Answer, Credit, FlowItem, OutputPort};
use crate::error::{Error, ErrorKind, Result};
use crate::media::{ContentLimits, MediaTime, Sample, Usage};
use crate::presentation::StreamId;
use crate::session::Epoch;

/// What holding one item costs beyond its payload.
const ITEM_COST: u64 = 256;

/// What one turn of the reader brought.
#[derive(Debug, Default)]
pub struct Reading {
    /// Samples, in order.
    pub samples: Vec<(StreamId, Sample)>,
    /// What ended the turn, if the reader could not go on.
    pub error: Option<Error>,
    /// Whether there is nothing more to read.
    pub is_last: bool,
}

/// What a start means for the source itself.
#[derive(Debug, PartialEq)]
pub enum Start<R> {
    /// Nothing: it goes on.
    GoOn,
    /// It is to be started, and these requests are answered.
    Restart(Vec<Answer<R>>),
}

/// The outputs of one source. `R` is whatever answers a request.
#[derive(Debug)]
pub struct SourceOutputs<R> {
    state: SourceState,
    epoch: Epoch,
    ports: BTreeMap<StreamId, OutputPort<R>>,
    is_read: bool,
    limits: ContentLimits,
    /// What it has delivered since it was made.
    usage: Usage,
}

impl<R> SourceOutputs<R> {
    /// The outputs of a stopped source that delivers and holds back what the limits allow.
    pub fn new(limits: ContentLimits) -> Self {
        Self {
            state: SourceState::Stopped,
            epoch: Epoch::default(),
            ports: BTreeMap::new(),
            is_read: false,
            limits,
            usage: Usage::default(),
        }
    }

    /// What the source does.
    pub fn state(&self) -> SourceState {
        self.state
    }

    /// The present flow.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Refuses everything after a shutdown.
    ///
    /// # Errors
    /// `Shutdown`.
    pub fn need_open(&self) -> Result<()> {
        match self.state {
            SourceState::ShutDown => Err(shutdown()),
            _ => Ok(()),
        }
    }

    /// Starts at a position, or where it is. With `resume` a source that was paused in this very flow goes on, and keeps what
    /// it holds. A flow that comes before the present one is of another session: those who asked in the present one are gone.
    ///
    /// # Errors
    /// `Shutdown`.
    pub fn start(
        &mut self,
        selected: &[StreamId],
        position: Option<MediaTime>,
        resume: bool,
        epoch: Epoch,
    ) -> Result<Start<R>> {
        self.need_open()?;
        let goes_on = resume
            && position.is_none()
            && epoch == self.epoch
            && matches!(self.state, SourceState::Paused | SourceState::Started);
        self.state = SourceState::Started;
        if goes_on {
            return Ok(Start::GoOn);
        }
        // A session counts its flows upwards: one that is not beyond the present one is another session's.
        if epoch < self.epoch || (epoch == self.epoch && !resume) {
            self.ports.clear();
        }
        self.epoch = epoch;
        self.is_read = false;
        self.ports.retain(|stream, _| selected.contains(stream));
        let mut stale = Vec::new();
        for stream in selected {
            let port = self.ports.entry(*stream).or_default();
            stale.extend(port.flush(epoch));
            port.clear();
        }
        Ok(Start::Restart(stale))
    }

    /// The source could not start.
    pub fn start_failed(&mut self, epoch: Epoch) {
        if epoch == self.epoch && self.state != SourceState::ShutDown {
            self.state = SourceState::Stopped;
        }
    }

    /// Pauses: requests wait.
    ///
    /// # Errors
    /// `Shutdown`; `InvalidStateTransition` unless it is started.
    pub fn pause(&mut self) -> Result<()> {
        self.need_open()?;
        if self.state != SourceState::Started {
            let what = "only a started source can pause";
            return Err(ErrorKind::InvalidStateTransition(what.into()).into());
        }
        self.state = SourceState::Paused;
        Ok(())
    }

    /// Stops: requests wait, what was read is forgotten.
    ///
    /// # Errors
    /// `Shutdown`.
    pub fn stop(&mut self) -> Result<()> {
        self.need_open()?;
        self.state = SourceState::Stopped;
        self.ports.values_mut().for_each(OutputPort::clear);
        Ok(())
    }

    /// Ends for good: what waits is answered with the reason.
    ///
    /// # Errors
    /// `Shutdown`.
    pub fn shut_down(&mut self) -> Result<()> {
        self.need_open()?;
        self.state = SourceState::ShutDown;
        self.end(Some(&shutdown()));
        Ok(())
    }

    /// Takes a request for samples of a stream. Call [`SourceOutputs::answers`] after it.
    ///
    /// # Errors
    /// Gives the reply back: `Shutdown`, or `InvalidRequest` for a stream that is not selected or has too many requests.
    pub fn request(
        &mut self,
        stream: StreamId,
        credit: Credit,
        reply: R,
    ) -> Result<Option<Answer<R>>, (R, Error)> {
        if let Err(error) = self.need_open() {
            return Err((reply, error));
        }
        let is_started = self.state == SourceState::Started;
        let Some(port) = self.ports.get_mut(&stream) else {
            let error = Error::invalid_request(format!("stream {stream} is not selected"));
            return Err((reply, error));
        };
        match is_started {
            true => port.request(credit, reply),
            false => port.request_later(credit, reply),
        }
    }

    /// Nobody takes from this stream any more in this flow; says whether that ends it now.
    pub fn disconnect(&mut self, stream: StreamId, epoch: Epoch) -> bool {
        let Some(port) = self.ports.get_mut(&stream) else {
            return false;
        };
        let was_taken = !port.is_disconnected();
        // An end that was not delivered is none yet.
        let has_ended = port.has_ended() && port.is_empty();
        port.disconnect(epoch);
        was_taken && port.is_disconnected() && !has_ended
    }

    /// Forgets the requests of those who do not wait any more.
    pub fn forget(&mut self, has_gone: impl Fn(&R) -> bool) {
        for port in self.ports.values_mut() {
            port.forget(&has_gone);
        }
    }

    /// How many samples to read next, if any.
    pub fn wanted(&self) -> Option<usize> {
        if self.is_read || self.state != SourceState::Started {
            return None;
        }
        let wanted = self.ports.values().map(OutputPort::wanted).max()?;
        (wanted > 0).then_some(wanted)
    }

    /// How many samples may be read before they are asked for, so that no more than so many samples and bytes wait at any
    /// output.
    pub fn room(&self, samples: usize, bytes: u64) -> usize {
        if self.is_read || self.state != SourceState::Started {
            return 0;
        }
        let ports = || self.ports.values();
        let (held, weight) = (
            ports().map(OutputPort::len).max(),
            ports().map(OutputPort::bytes).max(),
        );
        match weight {
            Some(weight) if weight < bytes => samples.saturating_sub(held.unwrap_or(0)),
            _ => 0,
        }
    }

    /// Takes what was read in a flow. Samples of streams that are not selected are left out, and so is everything that
    /// comes after a stop.
    ///
    /// # Errors
    /// `LimitExceeded` where a stream that nobody takes from has more than may be held back, or more was delivered than the
    /// content may make; all streams end then.
    pub fn take(&mut self, reading: Reading, epoch: Epoch) -> Result<()> {
        let is_wanted = matches!(self.state, SourceState::Started | SourceState::Paused);
        if epoch != self.epoch || !is_wanted || self.is_read {
            return Ok(());
        }
        if let Some((stream, _)) = reading.samples.first()
            && self.ports.len() == 1
            && let Some(port) = self.ports.get_mut(stream)
        {
            port.reserve(reading.samples.len());
        }
        for (stream, sample) in reading.samples {
            if let Some(port) = self.ports.get_mut(&stream) {
                if let Err(error) = self.usage.add(&sample, &self.limits) {
                    self.end(Some(&error));
                    return Err(error);
                }
                port.push(FlowItem::Sample(sample));
            }
        }
        if let Some(error) = &reading.error {
            for port in self.ports.values_mut() {
                port.push(FlowItem::Error(error.clone()));
            }
        }
        if reading.is_last {
            self.end(None);
            return Ok(());
        }
        let held = self.ports.values().map(|port| {
            let items = ITEM_COST.saturating_mul(port.len() as u64);
            port.bytes().saturating_add(items)
        });
        let held = held.max().unwrap_or(0);
        let most = self.limits.max_interleave_bytes;
        if held > most {
            let error = Error::limit("interleave bytes", most, held);
            self.end(Some(&error));
            return Err(error);
        }
        Ok(())
    }

    /// What can be answered now.
    pub fn answers(&mut self) -> Vec<(StreamId, Answer<R>)> {
        let mut answers = Vec::new();
        if matches!(self.state, SourceState::Started | SourceState::ShutDown) {
            for (stream, port) in &mut self.ports {
                while let Some(answer) = port.answer() {
                    answers.push((*stream, answer));
                }
            }
        }
        answers
    }

    /// Takes the items of an answer back that nobody heard.
    pub fn unheard(&mut self, stream: StreamId, items: Vec<FlowItem>, epoch: Epoch) {
        if let Some(port) = self.ports.get_mut(&stream) {
            port.unheard(items, epoch);
        }
    }

    fn end(&mut self, error: Option<&Error>) {
        self.is_read = true;
        for port in self.ports.values_mut().filter(|port| !port.has_ended()) {
            if let Some(error) = error {
                port.push(FlowItem::Error(error.clone()));
            }
            port.push(FlowItem::End);
        }
    }
}

fn shutdown() -> Error {
    Error::new(ErrorKind::Shutdown {
        what: "the source".into(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: StreamId = StreamId(0);
    const B: StreamId = StreamId(1);

    fn credit(epoch: u64) -> Credit {
        Credit {
            max_samples: 2,
            max_bytes: u64::MAX,
            epoch: Epoch(epoch),
        }
    }

    fn reading(samples: &[(StreamId, usize)], is_last: bool) -> Reading {
        let sample = |len| Sample::new(MediaTime::ZERO, MediaTime::ZERO, vec![0; len]);
        Reading {
            samples: samples
                .iter()
                .map(|(id, len)| (*id, sample(*len)))
                .collect(),
            error: None,
            is_last,
        }
    }

    fn started() -> SourceOutputs<u32> {
        outputs(ContentLimits {
            max_interleave_bytes: 10_000,
            ..ContentLimits::default()
        })
    }

    fn outputs(limits: ContentLimits) -> SourceOutputs<u32> {
        let mut outputs = SourceOutputs::new(limits);
        let start = outputs
            .start(&[A, B], None, false, Epoch(1))
            .expect("is open");
        assert_eq!(start, Start::Restart(Vec::new()));
        outputs
    }

    fn ask(outputs: &mut SourceOutputs<u32>, stream: StreamId, epoch: u64, reply: u32) {
        let answer = outputs.request(stream, credit(epoch), reply);
        assert_eq!(answer.expect("few wait"), None);
    }

    #[test]
    fn reads_what_is_asked_and_holds_back_what_is_not() {
        let mut outputs = started();
        assert_eq!(outputs.wanted(), None);
        ask(&mut outputs, A, 1, 7);
        assert_eq!(outputs.wanted(), Some(2));
        let read = reading(&[(B, 10), (A, 10), (B, 10)], false);
        outputs.take(read, Epoch(1)).expect("little is held");
        let answers = outputs.answers();
        assert_eq!((answers.len(), answers[0].0, answers[0].1.reply), (1, A, 7));
        let answer = outputs.request(B, credit(1), 8).expect("few wait");
        assert_eq!(answer.expect("is held").items.len(), 2);
        let error = outputs.take(reading(&[(B, 20_000)], false), Epoch(1));
        let kind = error.expect_err("too much").kind().clone();
        assert!(matches!(kind, ErrorKind::LimitExceeded { .. }));
        let answer = outputs.request(A, credit(1), 9).expect("few wait");
        let items = answer.expect("the end").items;
        assert!(matches!(items[..], [FlowItem::Error(_), FlowItem::End]));
        assert_eq!(outputs.wanted(), None);
    }

    #[test]
    fn paused_it_holds_requests_and_stopped_it_forgets() {
        let mut outputs = started();
        outputs.pause().expect("is started");
        assert!(outputs.pause().is_err());
        ask(&mut outputs, A, 1, 1);
        assert_eq!(outputs.wanted(), None);
        // A job of the reader that was under way.
        outputs
            .take(reading(&[(A, 1)], false), Epoch(1))
            .expect("little");
        assert!(outputs.answers().is_empty());
        ask(&mut outputs, A, 1, 2);
        let start = outputs
            .start(&[A, B], None, true, Epoch(1))
            .expect("is open");
        assert_eq!(start, Start::GoOn);
        assert_eq!(outputs.answers()[0].1.reply, 1);
        outputs.stop().expect("is open");
        outputs
            .take(reading(&[(A, 1)], true), Epoch(1))
            .expect("is left out");
        let Start::Restart(stale) = outputs.start(&[A], None, false, Epoch(2)).expect("is open")
        else {
            panic!("another flow");
        };
        assert_eq!((stale[0].reply, stale[0].items.len()), (2, 0));
        assert!(outputs.answers().is_empty());
        assert!(outputs.request(B, credit(2), 3).is_err(), "not selected");
        // Other sessions; in the first one it was not even stopped.
        for epoch in [1, 1] {
            let start = outputs
                .start(&[A], None, false, Epoch(epoch))
                .expect("is open");
            assert_eq!(start, Start::Restart(Vec::new()));
            ask(&mut outputs, A, 1, 4);
            assert_eq!(outputs.wanted(), Some(2));
        }
    }

    #[test]
    fn a_stream_that_nobody_takes_any_more_costs_its_siblings_nothing() {
        let mut outputs = started();
        assert!(outputs.disconnect(B, Epoch(1)));
        assert!(!outputs.disconnect(B, Epoch(1)), "said before");
        for reply in 0..100 {
            ask(&mut outputs, A, 1, reply);
            let read = reading(&[(B, 9000), (A, 1), (B, 9000)], false);
            outputs.take(read, Epoch(1)).expect("nothing is held back");
            assert_eq!(outputs.answers().len(), 1);
        }
        // Until the next flow.
        outputs
            .start(&[A, B], None, false, Epoch(2))
            .expect("is open");
        outputs
            .take(reading(&[(B, 9)], false), Epoch(2))
            .expect("little");
        let answer = outputs.request(B, credit(2), 7).expect("few wait");
        assert_eq!(answer.expect("is held").items.len(), 1);
        // Its consumer may know of a flow before the source does.
        outputs.disconnect(B, Epoch(3));
        outputs
            .start(&[A, B], None, false, Epoch(3))
            .expect("is open");
        let read = reading(&[(B, 20_000)], false);
        outputs.take(read, Epoch(3)).expect("nothing is held back");
    }

    #[test]
    fn what_is_delivered_is_counted_whoever_takes_it() {
        let limits = ContentLimits {
            max_samples: 3,
            ..ContentLimits::default()
        };
        let mut limited = outputs(limits);
        let read = reading(&[(A, 1), (StreamId(9), 1), (B, 1), (A, 1)], false);
        limited.take(read, Epoch(1)).expect("as many as allowed");
        let error = limited.take(reading(&[(A, 1)], false), Epoch(1));
        let kind = error.expect_err("one too many").kind().clone();
        assert!(matches!(kind, ErrorKind::LimitExceeded { .. }));
        let answer = limited.request(B, credit(1), 1).expect("few wait");
        let items = answer.expect("is held").items;
        assert!(matches!(
            items[..],
            [FlowItem::Sample(_), FlowItem::Error(_), FlowItem::End]
        ));
        // A seek gives it nothing back.
        limited
            .start(&[A], Some(MediaTime::ZERO), false, Epoch(2))
            .expect("is open");
        assert!(limited.take(reading(&[(A, 1)], false), Epoch(2)).is_err());

        let mut limited = outputs(ContentLimits {
            max_output_bytes: 10,
            ..ContentLimits::default()
        });
        assert!(
            limited
                .take(reading(&[(A, 6), (B, 6)], false), Epoch(1))
                .is_err()
        );
        let mut limited = outputs(ContentLimits {
            max_duration: MediaTime::from_secs(1),
            ..ContentLimits::default()
        });
        let mut late = reading(&[(A, 1)], false);
        late.samples[0].1.time = MediaTime::from_millis(1001);
        assert!(limited.take(late, Epoch(1)).is_err());
    }

    #[derive(Clone, Debug)]
    enum Move {
        Ask(bool),
        Read(u8),
        Gone(bool),
        Pause,
        Start { resume: bool, epoch: u64 },
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let one = prop_oneof![
            6 => any::<bool>().prop_map(Move::Ask),
            6 => (1..6u8).prop_map(Move::Read),
            1 => any::<bool>().prop_map(Move::Gone),
            1 => Just(Move::Pause),
            2 => (any::<bool>(), 1..4u64).prop_map(|(resume, epoch)| Move::Start { resume, epoch }),
        ];
        prop::collection::vec(one, 1..80)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Consumers come and go, sessions follow each other on one source: every flow delivers what was read in it and
        /// nothing else, each request is answered once, and nobody's leaving ends a sibling.
        #[test]
        fn every_flow_delivers_what_was_read_in_it(moves in moves()) {
            let mut outputs = started();
            let (mut flow, mut epoch, mut next) = (1_i64, 1, 0);
            let mut open = std::collections::BTreeSet::new();
            let stream = |first| if first { A } else { B };
            for one in moves {
                let mut answers = Vec::new();
                match one {
                    Move::Ask(first) => {
                        next += 1;
                        match outputs.request(stream(first), credit(epoch), next) {
                            Ok(answer) => {
                                open.insert(next);
                                answers.extend(answer);
                            }
                            Err((_, error)) => prop_assert!(matches!(error.kind(), ErrorKind::InvalidRequest(_))),
                        }
                    }
                    Move::Read(count) => {
                        // Each payload says which flow it is of; what is held back stays below the limit.
                        let mut read = reading(&vec![(A, 1); usize::from(count)], false);
                        read.samples.iter_mut().for_each(|(_, s)| s.time = MediaTime::from_ticks(flow));
                        if outputs.disconnect(B, Epoch(epoch)) || next % 2 == 0 {
                            read.samples.iter_mut().for_each(|(id, _)| *id = B);
                        }
                        let held = outputs.ports.values().any(|port| port.len() > 30);
                        let taken = outputs.take(read, Epoch(epoch));
                        prop_assert!(taken.is_ok() || held);
                    }
                    Move::Gone(first) => drop(outputs.disconnect(stream(first), Epoch(epoch))),
                    Move::Pause => drop(outputs.pause()),
                    Move::Start { resume, epoch: to } => {
                        let was = (outputs.state(), epoch);
                        match outputs.start(&[A, B], None, resume, Epoch(to)).expect("is open") {
                            Start::GoOn => prop_assert!(resume && was.1 == to),
                            Start::Restart(stale) => {
                                flow += 1;
                                if to <= epoch {
                                    open.clear();
                                }
                                answers.extend(stale);
                            }
                        }
                        epoch = to;
                    }
                }
                answers.extend(outputs.answers().into_iter().map(|(_, answer)| answer));
                for answer in answers {
                    prop_assert!(open.remove(&answer.reply), "answered twice");
                    for item in &answer.items {
                        if let FlowItem::Sample(sample) = item {
                            prop_assert_eq!(sample.time.ticks(), flow);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_shutdown_answers_what_waits_and_refuses_the_rest() {
        let mut outputs = started();
        ask(&mut outputs, A, 1, 1);
        outputs.shut_down().expect("the first");
        let answers = outputs.answers();
        let items = &answers[0].1.items;
        assert!(matches!(items[..], [FlowItem::Error(_), FlowItem::End]));
        assert!(outputs.request(A, credit(1), 2).is_err());
        assert!(outputs.shut_down().is_err() && outputs.stop().is_err());
    }
}
