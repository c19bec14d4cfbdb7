//! The media session as a state machine: commands and reports in, effects out, time as an argument.
//!
//! The machine moves no samples. It has topologies resolved, starts, pauses, stops and flushes their nodes in the order of
//! the reference, and says what happened. One command is in flight; the others wait in a queue, and each is completed by
//! exactly one event. What it is told can be recorded; replayed into another machine it gives the same effects.
//!
//! ```
//! use portcullis_engine::SystemTime100ns;
//! use portcullis_engine::event::{CommandId, EventKind};
//! use portcullis_engine::session::{Command, Effect, Input, SessionMachine};
//!
//! let mut session = SessionMachine::new();
//! let start = Input::Command { id: CommandId(1), command: Command::Start { position: None } };
//! let effects = session.handle(start, SystemTime100ns::default())?;
//! let [Effect::Emit(event)] = &effects[..] else { panic!("one event") };
//! assert_eq!(event.kind, EventKind::SessionStarted { position: None });
//! assert!(event.status.is_err(), "there is nothing to start");
//! # Ok::<(), portcullis_engine::Error>(())
//! ```

mod commands;
mod effect;
mod input;
mod moves;
mod presentation;
mod recording;
mod reports;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use effect::Effect;
pub use input::{Command, Epoch, Input, Report, SetTopologyFlags};
pub use recording::{RecordedInput, Recording};

use crate::clock::{ClockSnapshot, PresentationClock, SystemTime100ns};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Capabilities, CommandId, Event, EventKind, TopologyStatus};
use crate::media::MediaTime;
use crate::topology::Topology;
use presentation::{Part, Presentation};

/// Commands that wait; more are refused at once.
const MAX_COMMANDS: usize = 1024;
/// Component events that wait for a start to complete.
const MAX_HELD: usize = 4096;
/// Resolved topologies that wait.
const MAX_TOPOLOGIES: usize = 64;

/// A session's decisions.
#[derive(Debug)]
pub struct SessionMachine {
    life: Life,
    state: State,
    /// Components that the present step waits for.
    waiting: BTreeSet<Part>,
    /// What went wrong in the present move.
    failure: Option<Error>,
    /// Where the present move starts the presentation.
    target: Option<MediaTime>,
    /// The media time at which the clock was stopped.
    stopped_at: Option<MediaTime>,
    epoch: Epoch,
    clock: PresentationClock,
    capabilities: Capabilities,
    current: Option<Presentation>,
    /// Topologies that wait, each with the command that set it.
    queue: VecDeque<(CommandId, Topology)>,
    in_flight: Option<(CommandId, Command)>,
    commands: VecDeque<(CommandId, Command)>,
    sequences: BTreeMap<Part, u64>,
    /// Events that wait for the start that is under way.
    held: Vec<(Event, Part)>,
    effects: Vec<Effect>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    Closed,
    ShutDown,
}

/// Where the presentation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stopped,
    Started,
    Paused,
    Moving(Purpose, Step),
}

/// Why the presentation is on its way to another state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To start from stopped.
    Start,
    /// To go on from paused.
    Resume,
    /// To go on at another position.
    Seek,
    Pause,
    Stop,
    Close,
    /// Its presentation has ended.
    End,
    /// Another topology takes its place.
    Replace {
        and_start: bool,
    },
}

/// What is being waited for on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    StopSourcesToSeek,
    FlushToSeek,
    StartSources,
    PrerollSinks,
    StartSinks,
    PauseSinks,
    PauseSources,
    StopSinks,
    StopSources,
    Flush,
    Finalize,
}

impl Default for SessionMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl SessionMachine {
    /// A session without a topology.
    pub fn new() -> Self {
        let mut clock = PresentationClock::new();
        // System time is there in every process; a sink with a clock of its own comes later.
        clock.set_time_source();
        Self {
            life: Life::Open,
            state: State::Stopped,
            waiting: BTreeSet::new(),
            failure: None,
            target: None,
            stopped_at: None,
            epoch: Epoch::default(),
            clock,
            capabilities: Capabilities::NONE,
            current: None,
            queue: VecDeque::new(),
            in_flight: None,
            commands: VecDeque::new(),
            sequences: BTreeMap::new(),
            held: Vec::new(),
            effects: Vec::new(),
        }
    }

    /// Takes one input and says what is to be done, in order.
    ///
    /// # Errors
    /// `Shutdown` for commands, and for another shutdown, after a shutdown; the fault of a topology that cannot even be tried;
    /// `InvalidRequest` after a close, and where too many commands wait. Reports never fail: those that make no sense are
    /// left out.
    pub fn handle(&mut self, input: Input, now: SystemTime100ns) -> Result<Vec<Effect>> {
        match input {
            Input::Command { id, command } => {
                self.need_open()?;
                if self.life == Life::Closed {
                    return Err(is_closed());
                }
                if let Command::SetTopology { topology, .. } = &command {
                    topology.validate()?;
                }
                if self.commands.len() >= MAX_COMMANDS {
                    return Err(Error::invalid_request("too many commands wait"));
                }
                let preempts = command.preempts();
                self.commands.push_back((id, command));
                if preempts {
                    self.preempt(now);
                }
            }
            Input::Shutdown => {
                self.need_open()?;
                self.shut_down(now);
            }
            Input::Report(report) => {
                // The event of a close is the last one.
                if self.life == Life::Open {
                    self.report(report, now);
                }
            }
        }
        self.go_on(now);
        Ok(std::mem::take(&mut self.effects))
    }

    /// The presentation clock.
    ///
    /// # Errors
    /// `Shutdown`.
    pub fn clock(&self) -> Result<ClockSnapshot> {
        self.need_open()?;
        Ok(self.clock.snapshot())
    }

    /// What the session can do now.
    ///
    /// # Errors
    /// `Shutdown`.
    pub fn capabilities(&self) -> Result<Capabilities> {
        self.need_open()?;
        Ok(self.capabilities)
    }

    /// The full topology that is played.
    ///
    /// # Errors
    /// `Shutdown`; `InvalidRequest` where there is none.
    pub fn full_topology(&self) -> Result<&Topology> {
        self.need_open()?;
        self.current
            .as_ref()
            .map(|current| &current.topology)
            .ok_or_else(|| Error::invalid_request("the session has no topology"))
    }

    /// The present flow of samples.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn need_open(&self) -> Result<()> {
        if self.life == Life::ShutDown {
            return Err(Error::new(ErrorKind::Shutdown {
                what: "the session".into(),
            }));
        }
        Ok(())
    }

    fn is_stable(&self) -> bool {
        !matches!(self.state, State::Moving(..))
    }

    fn emit(&mut self, event: Event) {
        self.effects.push(Effect::Emit(event));
    }

    /// Emits the event that completes the command in flight.
    fn complete(&mut self, event: Event) {
        if let Some((id, _)) = self.in_flight.take() {
            self.emit(event.completing(id));
        }
    }

    /// Fails the command in flight, whatever it is.
    fn fail_command(&mut self, error: Error) {
        if let Some((id, command)) = self.in_flight.take() {
            self.emit(command.failed(error).completing(id));
        }
    }

    fn set_status(&mut self, topology_status: TopologyStatus) {
        let Some(current) = &mut self.current else {
            return;
        };
        if current.status >= Some(topology_status) {
            return;
        }
        current.status = Some(topology_status);
        let topology = current.topology.id();
        self.emit(Event::new(EventKind::SessionTopologyStatus {
            topology,
            topology_status,
        }));
    }

    /// Announces what the session can do, where that has changed.
    fn set_capabilities(&mut self, is_running: bool) {
        let mut capabilities = Capabilities::NONE;
        if let (Life::Open, Some(current)) = (self.life, &self.current) {
            capabilities = capabilities.with(Capabilities::START);
            if current.can_seek() {
                capabilities = capabilities.with(Capabilities::SEEK);
            }
            if is_running && current.can_pause() {
                capabilities = capabilities.with(Capabilities::PAUSE);
            }
        }
        let delta = capabilities.delta(self.capabilities);
        if delta != Capabilities::NONE {
            self.capabilities = capabilities;
            self.emit(Event::new(EventKind::SessionCapabilitiesChanged {
                capabilities,
                delta,
            }));
        }
    }

    fn shut_down(&mut self, now: SystemTime100ns) {
        let error = || {
            Error::new(ErrorKind::Shutdown {
                what: "the session".into(),
            })
        };
        self.fail_command(error());
        while let Some((id, command)) = self.commands.pop_front() {
            self.emit(command.failed(error()).completing(id));
        }
        self.stop_clock(now);
        self.life = Life::ShutDown;
        self.state = State::Stopped;
        self.waiting.clear();
        self.held.clear();
        self.current = None;
        self.queue.clear();
        self.effects.push(Effect::ShutDown);
    }

    fn stop_clock(&mut self, now: SystemTime100ns) {
        self.stopped_at = self.clock.time(now).ok();
        // It may stand already: then there is nothing to stop.
        let _ = self.clock.stop(now);
    }
}

fn is_closed() -> Error {
    Error::invalid_request("the session is closed")
}

#[cfg(test)]
mod tests;
