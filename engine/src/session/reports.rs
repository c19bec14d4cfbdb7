//! Reports of components: what they complete, what they end, and what of them the application is told.

use super::presentation::Part;
use super::{Command, Effect, Epoch, MAX_HELD, Purpose, Report, SessionMachine, State, Step};
use crate::clock::{ClockState, SystemTime100ns};
use crate::error::Error;
use crate::event::{Event, EventKind, EventSource};
use crate::topology::NodeId;

impl SessionMachine {
    pub(super) fn report(&mut self, report: Report, now: SystemTime100ns) {
        match report {
            Report::TopologyResolved { set_by, result } => {
                let asked = matches!(
                    self.in_flight,
                    Some((id, Command::SetTopology { .. })) if id == set_by
                );
                if asked {
                    self.resolved(result.map(|full| *full), now);
                }
            }
            Report::Raised { event, epoch } => self.raised(event, epoch, now),
            Report::Flushed { node, epoch } => {
                if epoch == self.epoch && self.is_at(&[Step::Flush, Step::FlushToSeek]) {
                    self.answered((node, None), now);
                }
            }
            Report::Finalized { sink, result } => {
                if self.is_at(&[Step::Finalize]) && self.waiting.contains(&(sink, None)) {
                    self.failure = self.failure.take().or(result.err());
                    self.answered((sink, None), now);
                }
            }
            Report::NodeLost { node, error } => self.node_lost(node, error, now),
        }
    }

    fn raised(&mut self, event: Event, epoch: Epoch, now: SystemTime100ns) {
        let (Some(source), Some(current)) = (event.source, &self.current) else {
            return;
        };
        let Some(part) = current.part(source.node, source.stream) else {
            return;
        };
        if !is_of_a_component(&event.kind) {
            return;
        }
        let is_stale = epoch != self.epoch;
        if is_stale && !outlives_its_flow(&event.kind) {
            return;
        }
        // The session says it once for all sources.
        if event.kind != EventKind::EndOfPresentation {
            self.pass_on(event.clone(), part);
        }
        if !is_stale {
            self.go_by(&event, part, now);
        }
    }

    /// Gives a component's event to the application. What is about samples waits for the start that is under way: whether
    /// a source has read to its end by then is a matter of chance, and the application should not see it.
    fn pass_on(&mut self, event: Event, part: Part) {
        let is_starting = matches!(
            self.state,
            State::Moving(Purpose::Start | Purpose::Resume | Purpose::Seek, _)
        );
        let waits = (is_starting && !is_an_answer(&event.kind)) || self.is_early_marker(&event);
        if waits && self.held.len() < MAX_HELD {
            self.held.push((event, part));
        } else {
            self.pass_on_now(event, part);
        }
    }

    /// Whether an output has rendered everything before all streams were read to their end. How these two fall depends on
    /// how far sources read ahead: the application hears of the outputs after the end of the presentation.
    fn is_early_marker(&self, event: &Event) -> bool {
        let is_before_end = self.current.as_ref().is_some_and(|c| !c.end_announced);
        event.kind == EventKind::StreamSinkMarker
            && is_before_end
            && !matches!(
                self.state,
                State::Stopped | State::Moving(Purpose::Stop | Purpose::Close, _)
            )
    }

    /// Gives the application what waited for a start.
    pub(super) fn pass_on_held(&mut self) {
        for (event, part) in std::mem::take(&mut self.held) {
            if self.is_early_marker(&event) {
                self.held.push((event, part));
            } else {
                self.pass_on_now(event, part);
            }
        }
        self.check_end();
    }

    /// Puts the event into the sequence of its component.
    fn pass_on_now(&mut self, mut event: Event, (node, stream): Part) {
        let next = self.sequences.entry((node, stream)).or_default();
        event.source = Some(EventSource {
            node,
            stream,
            sequence: *next,
        });
        *next += 1;
        event.command = None;
        self.emit(event);
    }

    fn go_by(&mut self, event: &Event, part: Part, now: SystemTime100ns) {
        use EventKind as K;
        match &event.kind {
            K::SourceStarted { .. } | K::SourceSeeked { .. } => {
                self.source_answered(Step::StartSources, event, part, now);
            }
            K::StreamStarted { .. } | K::StreamSeeked { .. } => {
                self.step_answered(&[Step::StartSources], event, part, now);
            }
            K::SourcePaused => self.source_answered(Step::PauseSources, event, part, now),
            K::StreamPaused => self.step_answered(&[Step::PauseSources], event, part, now),
            K::SourceStopped if self.is_at(&[Step::StopSources]) => {
                self.source_answered(Step::StopSources, event, part, now);
            }
            K::SourceStopped => self.source_answered(Step::StopSourcesToSeek, event, part, now),
            K::StreamStopped => {
                let steps = [Step::StopSources, Step::StopSourcesToSeek];
                self.step_answered(&steps, event, part, now);
            }
            K::StreamSinkPrerolled => {
                self.step_answered(&[Step::PrerollSinks], event, part, now);
            }
            K::StreamSinkStarted => self.step_answered(&[Step::StartSinks], event, part, now),
            K::StreamSinkPaused => self.step_answered(&[Step::PauseSinks], event, part, now),
            K::StreamSinkStopped => self.step_answered(&[Step::StopSinks], event, part, now),
            K::EndOfStream => self.stream_ended(part.0),
            K::StreamSinkMarker => self.output_ended(part, now),
            K::Error => self.node_failed(event, false, now),
            K::BufferingStarted => self.buffering(part.0, true, now),
            K::BufferingStopped => self.buffering(part.0, false, now),
            _ => {}
        }
    }

    fn is_at(&self, steps: &[Step]) -> bool {
        matches!(self.state, State::Moving(_, step) if steps.contains(&step))
    }

    fn answered(&mut self, part: Part, now: SystemTime100ns) {
        if self.waiting.remove(&part) {
            self.check_step(now);
        }
    }

    fn step_answered(&mut self, steps: &[Step], event: &Event, part: Part, now: SystemTime100ns) {
        if self.is_at(steps) && self.waiting.contains(&part) {
            self.note_failure(event);
            self.answered(part, now);
        }
    }

    /// A whole source has answered; where it failed, its streams have nothing to add.
    fn source_answered(&mut self, step: Step, event: &Event, part: Part, now: SystemTime100ns) {
        if event.status.is_ok() {
            return self.step_answered(&[step], event, part, now);
        }
        let Some(current) = self.current.as_ref().filter(|_| self.is_at(&[step])) else {
            return;
        };
        let parts = current.parts_of(part.0);
        let before = self.waiting.len();
        self.waiting.retain(|waited| !parts.contains(waited));
        if self.waiting.len() < before {
            self.note_failure(event);
            self.check_step(now);
        }
    }

    fn note_failure(&mut self, event: &Event) {
        // Stopping at the end of a presentation, and before a seek, what fails to stop is as good as stopped. What becomes of
        // a sink that fails while it prerolls its `Error` says, whichever of the two comes first.
        let ignored = matches!(self.state, State::Moving(Purpose::End, _))
            || self.is_at(&[Step::StopSourcesToSeek, Step::PrerollSinks]);
        if let (Err(error), false) = (&event.status, ignored) {
            self.failure.get_or_insert_with(|| error.clone());
        }
    }

    fn stream_ended(&mut self, node: NodeId) {
        let Some(current) = &mut self.current else {
            return;
        };
        if current.source_of(node).is_some() {
            current.ended.insert(node);
            self.check_end();
        }
    }

    /// Announces the end where all streams have ended, once the start is complete.
    fn check_end(&mut self) {
        let is_over = self.current.as_ref().is_some_and(|c| c.all_streams_ended());
        if is_over && matches!(self.state, State::Started | State::Paused) {
            self.announce_end();
        }
    }

    fn output_ended(&mut self, part: Part, now: SystemTime100ns) {
        let Some(current) = &mut self.current else {
            return;
        };
        if current.output_parts().contains(&part) {
            current.ended.insert(part.0);
            // Nothing comes any more that it could wait for.
            if self.is_at(&[Step::PrerollSinks]) {
                self.answered(part, now);
            }
        }
    }

    /// A node delivers nothing more: its end is now, and the failure is its answer to the present step.
    fn node_failed(&mut self, event: &Event, is_lost: bool, now: SystemTime100ns) {
        let (Some(current), Some(source)) = (&mut self.current, event.source) else {
            return;
        };
        current.has_failed = true;
        let parts = current.parts_of_failure(source.node, source.stream);
        let ended = parts.iter().filter(|(_, stream)| stream.is_some());
        current.ended.extend(ended.map(|(node, _)| *node));
        self.check_end();
        // A sink that fails in a start is one output less, and answers the start all the same.
        if self.is_at(&[Step::PrerollSinks, Step::StartSinks]) && !is_lost {
            return;
        }
        let before = self.waiting.len();
        self.waiting.retain(|waited| !parts.contains(waited));
        if self.waiting.len() < before {
            // A source that fails to start fails the start.
            self.note_failure(event);
            self.check_step(now);
        }
    }

    /// Whoever stands behind a node is gone. A source takes the presentation with it; any other node is one branch less.
    fn node_lost(&mut self, node: NodeId, error: Error, now: SystemTime100ns) {
        let Some(current) = &mut self.current else {
            return;
        };
        if current.sources.iter().any(|group| group.node == node) {
            return self.source_lost(node, error, now);
        }
        let Some(part) = current.part(node, None) else {
            return;
        };
        if current.lost.contains(&node) {
            return;
        }
        let gone = current.nodes_of_loss(node);
        current.lost.extend(gone);
        let event = Event::of_node(EventKind::Error, node).failed(error);
        self.pass_on(event.clone(), part);
        self.node_failed(&event, true, now);
    }

    /// While a source waits for data, presentation time stands still.
    fn buffering(&mut self, node: NodeId, begins: bool, now: SystemTime100ns) {
        let Some(current) = &mut self.current else {
            return;
        };
        if begins {
            current.buffering.insert(node);
        } else {
            current.buffering.remove(&node);
        }
        self.follow_buffering(now);
    }

    /// Lets the clock of a started presentation stand or run, as its sources have data.
    pub(super) fn follow_buffering(&mut self, now: SystemTime100ns) {
        let (State::Started, Some(current)) = (self.state, &self.current) else {
            return;
        };
        let moved = match (current.buffering.is_empty(), self.clock.state()) {
            (false, ClockState::Running) => self.clock.pause(now),
            (true, ClockState::Paused) => self.clock.start(None, now),
            _ => return,
        };
        if moved.is_ok() {
            let (sinks, clock) = (current.output_nodes(), self.clock.snapshot());
            self.effects.push(Effect::SetClock { sinks, clock });
        }
    }

    /// A source is gone without having been asked: what needs it fails, and the session is free for another topology.
    fn source_lost(&mut self, source: NodeId, error: Error, now: SystemTime100ns) {
        let before = self.state;
        if let State::Moving(Purpose::Close, Step::Finalize) = before {
            return;
        }
        self.abandon(now);
        let event = Event::of_node(EventKind::Error, source).failed(error.clone());
        match before {
            State::Moving(Purpose::Close, _) => {
                return self.enter(Purpose::Close, Step::Finalize, now);
            }
            // It was not needed any more.
            State::Moving(Purpose::End, _) => return self.ended_without_source(now),
            State::Moving(Purpose::Replace { and_start }, _) => {
                return self.replaced(and_start, now);
            }
            _ => {}
        }
        match &self.in_flight {
            Some((_, Command::SetTopology { .. })) | None => {
                self.pass_on(event, (source, None));
            }
            Some(_) => {
                let failure =
                    Error::invalid_request(format!("the source of node {source} is gone"));
                self.fail_command(failure.because(error.to_string()));
            }
        }
        self.pass_on_held();
        self.purge();
        self.next_presentation();
    }

    /// Commands up to the next topology were meant for the presentation that is gone.
    fn purge(&mut self) {
        let until = self
            .commands
            .iter()
            .position(|(_, command)| matches!(command, Command::SetTopology { .. }))
            .unwrap_or(self.commands.len());
        let later = self.commands.split_off(until);
        for (id, command) in std::mem::take(&mut self.commands) {
            match command {
                Command::Start { .. } | Command::Pause | Command::Stop => {
                    let error = Error::invalid_request("the source of the presentation is gone");
                    self.emit(command.failed(error).completing(id));
                }
                _ => self.commands.push_back((id, command)),
            }
        }
        self.commands.extend(later);
    }
}

/// Kinds that a component may raise; the others are the session's own.
fn is_of_a_component(kind: &EventKind) -> bool {
    !matches!(kind.id(), 100..=121)
}

/// Kinds that answer an effect, and so come at a time of the session's choosing.
fn is_an_answer(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::NewStream
            | EventKind::UpdatedStream
            | EventKind::SourceStarted { .. }
            | EventKind::SourceSeeked { .. }
            | EventKind::SourcePaused
            | EventKind::SourceStopped
            | EventKind::StreamStarted { .. }
            | EventKind::StreamSeeked { .. }
            | EventKind::StreamPaused
            | EventKind::StreamStopped
            | EventKind::StreamSinkPrerolled
            | EventKind::StreamSinkStarted
            | EventKind::StreamSinkPaused
            | EventKind::StreamSinkStopped
    )
}

/// Kinds that matter to the application even if the samples that they are about do not any more.
fn outlives_its_flow(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::Error | EventKind::NonFatalError | EventKind::SinkInvalidated
    )
}
