//! Moves from one state to another: each is a row of steps, and each step waits for its components (reference 2.2 B to G).

use std::collections::BTreeSet;

use super::{Command, Effect, Purpose, SessionMachine, State, Step};
use crate::clock::SystemTime100ns;
use crate::error::Error;
use crate::event::{Event, EventKind, TopologyStatus};
use crate::media::MediaTime;

impl SessionMachine {
    /// Begins a step: says what is to be done and whom to wait for. Where that is nobody, goes on at once.
    pub(super) fn enter(&mut self, purpose: Purpose, step: Step, now: SystemTime100ns) {
        self.state = State::Moving(purpose, step);
        let Some(current) = &self.current else {
            self.waiting.clear();
            return self.step_done(now);
        };
        let (epoch, clock) = (self.epoch, self.clock.snapshot());
        let sources = current.source_nodes();
        let sinks = current.output_nodes();
        let nodes = current.inner_nodes();
        let flush_parts = || nodes.iter().map(|node| (*node, None)).collect();
        let (waiting, effect): (BTreeSet<_>, _) = match step {
            Step::StopSourcesToSeek | Step::StopSources => (
                current.source_parts(),
                Effect::StopSources { sources, epoch },
            ),
            Step::FlushToSeek | Step::Flush => {
                (flush_parts(), Effect::FlushTransforms { nodes, epoch })
            }
            Step::StartSources => (
                current.source_parts(),
                Effect::StartSources {
                    sources,
                    position: self.target,
                    resume: purpose == Purpose::Resume,
                    epoch,
                },
            ),
            Step::PrerollSinks => (
                current.output_parts(),
                Effect::PrerollSinks {
                    sinks,
                    position: self.target.unwrap_or(MediaTime::ZERO),
                    epoch,
                },
            ),
            Step::StartSinks => (
                current.output_parts(),
                Effect::StartSinks {
                    sinks,
                    clock,
                    epoch,
                },
            ),
            Step::PauseSinks => (
                current.output_parts(),
                Effect::PauseSinks {
                    sinks,
                    clock,
                    epoch,
                },
            ),
            Step::PauseSources => (
                current.source_parts(),
                Effect::PauseSources { sources, epoch },
            ),
            Step::StopSinks => (
                current.output_parts(),
                Effect::StopSinks {
                    sinks,
                    clock,
                    epoch,
                },
            ),
            Step::Finalize => {
                let sinks: Vec<_> = current.sinks.iter().map(|sink| sink.node).collect();
                let waiting: BTreeSet<_> = sinks.iter().map(|sink| (*sink, None)).collect();
                (waiting, Effect::FinalizeSinks { sinks })
            }
        };
        let lost = &current.lost;
        let asks_nobody = waiting.is_empty();
        self.waiting = waiting;
        self.waiting.retain(|(node, _)| !lost.contains(node));
        if !asks_nobody {
            self.effects.push(effect);
        }
        self.check_step(now);
    }

    /// Goes on behind a step if nobody is waited for any more.
    pub(super) fn check_step(&mut self, now: SystemTime100ns) {
        if self.waiting.is_empty() && !self.is_stable() {
            self.step_done(now);
        }
    }

    fn step_done(&mut self, now: SystemTime100ns) {
        let State::Moving(purpose, step) = self.state else {
            return;
        };
        match step {
            Step::StopSourcesToSeek => {
                self.epoch.0 += 1;
                // What was seen of the flow that ends here is of no interest any more, but for errors.
                self.held.retain(|(event, _)| event.status.is_err());
                if let Some(current) = &mut self.current {
                    current.begin_flow();
                }
                self.enter(purpose, Step::FlushToSeek, now);
            }
            Step::FlushToSeek => self.enter(purpose, Step::StartSources, now),
            Step::StartSources => match self.failure.take() {
                Some(error) => self.start_failed(error, now),
                None if purpose == Purpose::Resume => self.start_sinks(purpose, now),
                None => {
                    self.set_status(TopologyStatus::StartedSource);
                    self.enter(purpose, Step::PrerollSinks, now);
                }
            },
            Step::PrerollSinks => self.start_sinks(purpose, now),
            Step::StartSinks => match self.failure.take() {
                Some(error) => self.start_failed(error, now),
                None => self.started(now),
            },
            Step::PauseSinks => self.enter(purpose, Step::PauseSources, now),
            Step::PauseSources => {
                let status = self.failure.take().map_or(Ok(()), Err);
                self.state = State::Paused;
                self.set_capabilities(false);
                self.complete(Event::new(EventKind::SessionPaused).with_status(status));
            }
            Step::StopSinks => self.enter(purpose, Step::StopSources, now),
            Step::StopSources => {
                // What is still on its way belongs to a flow that has ended: a decoder that forgets everything must not get
                // it, nor the application hear what the decoder says to it.
                self.epoch.0 += 1;
                self.enter(purpose, Step::Flush, now);
            }
            Step::Flush => self.stopped(purpose, now),
            Step::Finalize => {
                let status = self.failure.take().map_or(Ok(()), Err);
                self.closed(status);
            }
        }
    }

    fn start_sinks(&mut self, purpose: Purpose, now: SystemTime100ns) {
        let position = match purpose {
            Purpose::Resume => None,
            _ => Some(self.target.unwrap_or(MediaTime::ZERO)),
        };
        // A clock with a time source starts from every state.
        let _ = self.clock.start(position, now);
        if self
            .current
            .as_ref()
            .is_some_and(|c| !c.buffering.is_empty())
        {
            let _ = self.clock.pause(now);
        }
        self.enter(purpose, Step::StartSinks, now);
    }

    fn started(&mut self, now: SystemTime100ns) {
        self.state = State::Started;
        self.set_capabilities(true);
        if let Some((_, Command::Start { position })) = &self.in_flight {
            let position = *position;
            self.complete(Event::new(EventKind::SessionStarted { position }));
        }
        self.pass_on_held();
        self.follow_buffering(now);
    }

    /// A start that cannot be completed ends in the stopped state, whatever it began from.
    pub(super) fn start_failed(&mut self, error: Error, now: SystemTime100ns) {
        self.abandon(now);
        self.set_capabilities(false);
        if matches!(self.in_flight, Some((_, Command::Start { .. }))) {
            self.fail_command(error);
            self.pass_on_held();
        } else {
            // A queued presentation that was to follow the one before it.
            self.pass_on_held();
            self.emit(Event::new(EventKind::Error).failed(error));
            self.emit(Event::new(EventKind::SessionEnded {
                at: self.stopped_at,
            }));
        }
    }

    /// Stops everything without waiting; answers that still come are stale.
    pub(super) fn abandon(&mut self, now: SystemTime100ns) {
        let begun = match self.state {
            State::Moving(Purpose::Start, Step::StartSources) => false,
            State::Stopped => return,
            _ => true,
        };
        self.stop_clock(now);
        self.epoch.0 += 1;
        let (epoch, clock) = (self.epoch, self.clock.snapshot());
        if let Some(current) = &self.current {
            if begun {
                self.effects.push(Effect::StopSinks {
                    sinks: current.output_nodes(),
                    clock,
                    epoch,
                });
            }
            self.effects.push(Effect::StopSources {
                sources: current.source_nodes(),
                epoch,
            });
            let nodes = current.inner_nodes();
            if !nodes.is_empty() {
                self.effects.push(Effect::FlushTransforms { nodes, epoch });
            }
        }
        self.state = State::Stopped;
        self.waiting.clear();
        self.failure = None;
    }

    /// Sinks, sources and transforms have stopped.
    fn stopped(&mut self, purpose: Purpose, now: SystemTime100ns) {
        // Whatever failed on the way, it has stopped.
        let failure = self.failure.take();
        self.state = State::Stopped;
        self.set_capabilities(false);
        match purpose {
            Purpose::Close => self.enter(Purpose::Close, Step::Finalize, now),
            Purpose::End => self.ended(now),
            Purpose::Replace { and_start } => self.replaced(and_start, now),
            _ => {
                let at = self.stopped_at;
                let status = failure.map_or(Ok(()), Err);
                self.complete(Event::new(EventKind::SessionStopped { at }).with_status(status));
            }
        }
    }

    fn ended(&mut self, now: SystemTime100ns) {
        if !self.queue.is_empty() {
            return self.replaced(true, now);
        }
        if let Some(current) = &mut self.current {
            // Ready again, without saying so: another start gives the same statuses.
            current.status = Some(TopologyStatus::Ready);
            current.has_ended = true;
            current.ended.clear();
        }
        self.emit(Event::new(EventKind::SessionEnded {
            at: self.stopped_at,
        }));
    }

    /// The presentation has ended, and its source is gone meanwhile.
    pub(super) fn ended_without_source(&mut self, now: SystemTime100ns) {
        if !self.queue.is_empty() {
            return self.replaced(true, now);
        }
        self.emit(Event::new(EventKind::SessionEnded {
            at: self.stopped_at,
        }));
        self.next_presentation();
    }

    pub(super) fn replaced(&mut self, and_start: bool, now: SystemTime100ns) {
        self.next_presentation();
        if and_start {
            self.start_next(now);
        }
    }

    /// Starts a presentation that follows another, without a command.
    fn start_next(&mut self, now: SystemTime100ns) {
        if self.current.is_some() {
            self.target = None;
            self.begin_start(now);
        }
    }
}
