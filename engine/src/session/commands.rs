//! Commands: the matrix of command and state (reference 2.1), and where the queue goes on.

use super::{Command, Effect, Life, Purpose, SessionMachine, SetTopologyFlags, State, Step};
use super::{MAX_TOPOLOGIES, Presentation, is_closed};
use crate::clock::SystemTime100ns;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{CommandId, Event, EventKind, TopologyStatus};
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
            if command.waits_for_data() && self.commands.iter().any(|(_, c)| c.preempts()) {
                self.fail_command(Error::cancelled());
                continue;
            }
            self.begin(id, command, now);
        }
    }

    /// A stop or close was given: what waits for data is not waited for.
    pub(super) fn preempt(&mut self, now: SystemTime100ns) {
        if let Some((set_by, Command::SetTopology { .. })) = self.in_flight {
            self.effects.push(Effect::CancelResolution { set_by });
            self.fail_command(Error::cancelled());
        }
        let is_starting = matches!(
            self.state,
            State::Moving(Purpose::Start | Purpose::Resume | Purpose::Seek, _)
        );
        if is_starting {
            self.abandon(now);
            self.set_capabilities(false);
            if matches!(self.in_flight, Some((_, Command::Start { .. }))) {
                self.fail_command(Error::cancelled());
            }
            self.pass_on_held();
        }
    }

    fn begin(&mut self, id: CommandId, command: Command, now: SystemTime100ns) {
        match command {
            Command::SetTopology { topology, flags } => {
                self.effects.push(Effect::ResolveTopology {
                    set_by: id,
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
        let Some((set_by, Command::SetTopology { flags, .. })) = &self.in_flight else {
            return;
        };
        let (set_by, flags) = (*set_by, *flags);
        let result = result.and_then(|full| match &self.in_flight {
            Some((_, Command::SetTopology { topology, .. })) if topology.id() != full.id() => {
                Err(ErrorKind::Protocol("the resolved topology has another id".into()).into())
            }
            _ => Ok(full),
        });
        let full = match result {
            Ok(full) if self.queue.len() < MAX_TOPOLOGIES => full,
            Ok(_) => {
                self.effects.push(Effect::ReleaseTopology { set_by });
                return self.fail_command(Error::invalid_request("too many topologies wait"));
            }
            Err(error) => return self.fail_command(error),
        };
        self.complete(Event::new(EventKind::SessionTopologySet {
            topology: full.id(),
            full: Some(Box::new(full.clone())),
        }));
        if flags.immediate {
            self.drop_queue();
        }
        self.queue.push_back((set_by, full));
        self.go_to_next(flags, now);
    }

    /// Goes on to the topology that was set last, if it is its turn.
    fn go_to_next(&mut self, flags: SetTopologyFlags, now: SystemTime100ns) {
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
            let set_by = before.set_by;
            self.effects.push(Effect::ReleaseTopology { set_by });
        }
        self.sequences.clear();
        let Some((set_by, full)) = self.queue.pop_front() else {
            return self.set_capabilities(false);
        };
        let topology = full.id();
        self.current = Some(Presentation::new(set_by, full));
        self.effects.push(Effect::ActivateTopology { set_by });
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
        while let Some((set_by, _)) = self.queue.pop_front() {
            self.effects.push(Effect::ReleaseTopology { set_by });
        }
    }

    /// The session is closed: its last event.
    pub(super) fn closed(&mut self, status: Result<()>) {
        self.life = Life::Closed;
        self.state = State::Stopped;
        self.set_capabilities(false);
        self.drop_queue();
        self.held.clear();
        while let Some((id, command)) = self.commands.pop_front() {
            self.emit(command.failed(is_closed()).completing(id));
        }
        self.complete(Event::new(EventKind::SessionClosed).with_status(status));
    }
}
