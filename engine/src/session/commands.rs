//! Commands: the matrix of command and state (reference 2.1), and where the queue goes on.

use super::{Command, Effect, Life, Purpose, SessionMachine, SetTopologyFlags, State, Step};
use super::{MAX_TOPOLOGIES, Presentation};
use crate::clock::SystemTime100ns;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventKind, TopologyStatus};
use crate::media::MediaTime;
use crate::topology::Topology;

impl SessionMachine {
    /// Lets the presentation end and the next commands begin, as far as nothing has to be waited for.
    pub(super) fn go_on(&mut self, now: SystemTime100ns) {
        loop {
            if self.state == State::Started
                && self.current.as_ref().is_some_and(Presentation::is_over)
            {
                self.begin_end(now);
            }
            if self.in_flight.is_some() || !self.is_stable() || self.life == Life::ShutDown {
                return;
            }
            let Some((id, command)) = self.commands.pop_front() else {
                return;
            };
            self.in_flight = Some((id, command.clone()));
            if self.life == Life::Closed {
                self.fail_command(Error::invalid_request("the session is closed"));
                continue;
            }
            self.begin(command, now);
        }
    }

    fn begin(&mut self, command: Command, now: SystemTime100ns) {
        match command {
            Command::SetTopology { topology, flags } => {
                self.effects.push(Effect::ResolveTopology {
                    topology,
                    resolve: !flags.no_resolution,
                });
            }
            Command::ClearTopologies => {
                self.drop_queue();
                self.complete(Event::new(EventKind::SessionTopologiesCleared));
            }
            Command::Start { position } => self.start(position, now),
            Command::Pause => self.pause(now),
            Command::Stop => self.stop(now),
            Command::Close => match (&self.current, self.state) {
                (None, _) => self.closed(Ok(())),
                (_, State::Stopped) => self.enter(Purpose::Close, Step::Finalize, now),
                _ => self.begin_stop(Purpose::Close, now),
            },
        }
    }

    fn start(&mut self, position: Option<MediaTime>, now: SystemTime100ns) {
        let Some(current) = &self.current else {
            return self.fail_command(Error::invalid_request("the session has no topology"));
        };
        if let (Some(position), Some(duration)) = (position, current.duration())
            && position > duration
        {
            return self.fail_command(Error::new(ErrorKind::InvalidPosition {
                position,
                duration,
            }));
        }
        self.target = position;
        match (self.state, position) {
            (State::Started, None) => {
                self.complete(Event::new(EventKind::SessionStarted { position: None }));
            }
            (State::Started | State::Paused, Some(_)) => {
                self.enter(Purpose::Seek, Step::StopSourcesToSeek, now);
            }
            (State::Paused, None) => self.enter(Purpose::Resume, Step::StartSources, now),
            _ => self.begin_start(now),
        }
    }

    /// Starts the current presentation from stopped, at the target.
    pub(super) fn begin_start(&mut self, now: SystemTime100ns) {
        self.epoch.0 += 1;
        if let Some(current) = &mut self.current {
            if current.was_started {
                self.target.get_or_insert(MediaTime::ZERO);
            }
            current.begin_flow();
        }
        self.enter(Purpose::Start, Step::StartSources, now);
    }

    fn pause(&mut self, now: SystemTime100ns) {
        match (&self.current, self.state) {
            (None, _) => self.fail_command(Error::invalid_request("the session has no topology")),
            (_, State::Stopped) => self.fail_command(ErrorKind::PauseWhileStopped.into()),
            (_, State::Started) => {
                // A buffering source has paused it before.
                let _ = self.clock.pause(now);
                self.enter(Purpose::Pause, Step::PauseSinks, now);
            }
            _ => self.fail_command(Error::invalid_request("the session is paused")),
        }
    }

    fn stop(&mut self, now: SystemTime100ns) {
        match (&self.current, self.state) {
            (None, _) => self.fail_command(Error::invalid_request("the session has no topology")),
            (_, State::Stopped) => {
                self.complete(Event::new(EventKind::SessionStopped { at: None }));
            }
            _ => self.begin_stop(Purpose::Stop, now),
        }
    }

    /// Stops the clock, then sinks, sources and transforms.
    pub(super) fn begin_stop(&mut self, purpose: Purpose, now: SystemTime100ns) {
        self.stop_clock(now);
        self.enter(purpose, Step::StopSinks, now);
        // What waited for the end of the presentation waits no more.
        self.pass_on_held();
    }

    fn begin_end(&mut self, now: SystemTime100ns) {
        self.announce_end();
        self.set_status(TopologyStatus::Ended);
        self.set_capabilities(false);
        self.begin_stop(Purpose::End, now);
    }

    /// Says once that all streams have ended.
    pub(super) fn announce_end(&mut self) {
        if let Some(current) = &mut self.current
            && !std::mem::replace(&mut current.end_announced, true)
        {
            self.emit(Event::new(EventKind::EndOfPresentation));
            self.pass_on_held();
        }
    }

    /// The answer to `ResolveTopology`.
    pub(super) fn resolved(&mut self, result: Result<Topology>, now: SystemTime100ns) {
        let Some((_, Command::SetTopology { flags, .. })) = &self.in_flight else {
            return;
        };
        let flags = *flags;
        let result = result.and_then(|full| match &self.in_flight {
            Some((_, Command::SetTopology { topology, .. })) if topology.id() != full.id() => {
                Err(ErrorKind::Protocol("the resolved topology has another id".into()).into())
            }
            _ => Ok(full),
        });
        let full = match result {
            Ok(full) if self.queue.len() < MAX_TOPOLOGIES => full,
            Ok(full) => {
                self.effects.push(Effect::ReleaseTopology {
                    topology: full.id(),
                });
                return self.fail_command(Error::invalid_request("too many topologies wait"));
            }
            Err(error) => return self.fail_command(error),
        };
        self.complete(Event::new(EventKind::SessionTopologySet {
            topology: full.id(),
            full: Some(Box::new(full.clone())),
        }));
        self.take_in(full, flags, now);
    }

    fn take_in(&mut self, full: Topology, flags: SetTopologyFlags, now: SystemTime100ns) {
        if flags.immediate {
            self.drop_queue();
        }
        self.queue.push_back(full);
        let is_over = self
            .current
            .as_ref()
            .is_none_or(|current| current.has_ended);
        match self.state {
            State::Stopped if flags.immediate || is_over => self.next_presentation(),
            State::Started | State::Paused if flags.immediate => {
                let and_start = self.state == State::Started;
                self.set_status(TopologyStatus::Ended);
                self.set_capabilities(false);
                self.begin_stop(Purpose::Replace { and_start }, now);
            }
            // It waits for the end of the current one, which may be on its way already.
            _ => {}
        }
    }

    /// Makes the next queued topology the current one.
    pub(super) fn next_presentation(&mut self) {
        if let Some(before) = self.current.take() {
            self.effects.push(Effect::ReleaseTopology {
                topology: before.topology.id(),
            });
        }
        self.sequences.clear();
        let Some(full) = self.queue.pop_front() else {
            return self.set_capabilities(false);
        };
        let topology = full.id();
        self.current = Some(Presentation::new(full));
        self.effects.push(Effect::ActivateTopology { topology });
        self.emit(Event::new(EventKind::SessionNotifyPresentationTime {
            topology,
            start: MediaTime::ZERO,
            offset: MediaTime::ZERO,
            start_at_output: MediaTime::ZERO,
        }));
        self.set_capabilities(false);
        self.set_status(TopologyStatus::Ready);
    }

    pub(super) fn drop_queue(&mut self) {
        while let Some(waiting) = self.queue.pop_front() {
            self.effects.push(Effect::ReleaseTopology {
                topology: waiting.id(),
            });
        }
    }

    /// The session is closed: its last event.
    pub(super) fn closed(&mut self, status: Result<()>) {
        self.life = Life::Closed;
        self.state = State::Stopped;
        self.set_capabilities(false);
        self.drop_queue();
        self.complete(Event::new(EventKind::SessionClosed).with_status(status));
    }
}
