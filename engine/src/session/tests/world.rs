//! A scripted world around a session: it answers every effect as components would, one report at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::clock::SystemTime100ns;
use crate::error::{Error, Result};
use crate::event::{CommandId, Event, EventKind, TopologyStatus};
use crate::media::{MediaTime, MediaType, Subtype, TimeBase};
use crate::presentation::{Characteristics, PresentationDescriptor, StreamDescriptor, StreamId};
use crate::session::{
    Command, Effect, Epoch, Input, Recording, Report, SessionMachine, SetTopologyFlags,
};
use crate::topology::{
    NodeId, NodeKind, ObjectId, ObjectRef, ResolutionStatus, SourceGroup, Topology,
};

pub(super) struct World {
    pub(super) session: SessionMachine,
    pub(super) now: SystemTime100ns,
    pub(super) events: Vec<Event>,
    /// What components were told, in short.
    pub(super) calls: Vec<String>,
    pub(super) answers: VecDeque<Report>,
    pub(super) recording: Recording,
    pub(super) effects: Vec<Vec<Effect>>,
    /// The next start of sources fails with this.
    pub(super) start_fails: Option<Error>,
    /// Resolutions fail with this.
    pub(super) resolve_fails: Option<Error>,
    pub(super) finalize_fails: Option<Error>,
    pub(super) is_shut_down: bool,
    /// Output nodes whose sinks have failed in this flow: they say nothing of an end.
    failed: BTreeSet<NodeId>,
    topologies: BTreeMap<CommandId, Topology>,
    active: Option<Topology>,
    epoch: Epoch,
    started: BTreeSet<NodeId>,
    last_command: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            session: SessionMachine::new(),
            now: SystemTime100ns::from_ticks(1_000_000),
            events: Vec::new(),
            calls: Vec::new(),
            answers: VecDeque::new(),
            recording: Recording::new(),
            effects: Vec::new(),
            start_fails: None,
            resolve_fails: None,
            finalize_fails: None,
            is_shut_down: false,
            failed: BTreeSet::new(),
            topologies: BTreeMap::new(),
            active: None,
            epoch: Epoch::default(),
            started: BTreeSet::new(),
            last_command: 0,
        }
    }

    /// With a topology of two streams set.
    pub(super) fn ready() -> Self {
        let mut world = Self::new();
        world.set(clip());
        world.events.clear();
        world
    }

    /// Playing it.
    pub(super) fn playing() -> Self {
        let mut world = Self::ready();
        world.run(start(None));
        world.events.clear();
        world.calls.clear();
        world
    }

    pub(super) fn tell(&mut self, input: Input) -> Result<()> {
        self.recording.push(input.clone(), self.now);
        let effects = self.session.handle(input, self.now)?;
        for effect in effects.clone() {
            self.perform(effect);
        }
        self.effects.push(effects);
        Ok(())
    }

    /// Gives a command without letting anything answer.
    pub(super) fn command(&mut self, command: Command) -> Result<CommandId> {
        self.last_command += 1;
        let id = CommandId(self.last_command);
        self.tell(Input::Command { id, command })?;
        Ok(id)
    }

    /// Gives a command and lets everything answer.
    pub(super) fn run(&mut self, command: Command) {
        self.command(command).expect("is taken");
        self.settle();
    }

    pub(super) fn set(&mut self, topology: Topology) {
        self.run(set(topology));
    }

    pub(super) fn step(&mut self) -> bool {
        let Some(report) = self.answers.pop_front() else {
            return false;
        };
        self.tell(Input::Report(report))
            .expect("reports never fail");
        true
    }

    pub(super) fn settle(&mut self) {
        while self.step() {}
    }

    pub(super) fn pass(&mut self, time: MediaTime) {
        self.now = self.now + time;
    }

    pub(super) fn raise(&mut self, event: Event) {
        let epoch = self.epoch;
        self.answers.push_back(Report::Raised { event, epoch });
    }

    /// Lets all streams and outputs of the active topology end.
    pub(super) fn end(&mut self) {
        let Some(active) = self.active.clone() else {
            return;
        };
        for source in active.sources() {
            for (node, stream) in source.streams {
                self.raise(Event::of_stream(EventKind::EndOfStream, node, stream.0));
            }
            self.raise(Event::of_node(EventKind::EndOfPresentation, source.node));
        }
        let mut outputs = outputs(&active);
        outputs.retain(|(node, _)| !self.failed.contains(node));
        for (node, stream) in outputs {
            self.raise(Event::of_stream(EventKind::StreamSinkMarker, node, stream));
        }
        self.settle();
    }

    /// Lets a sink of the active topology fail, with all of its streams.
    pub(super) fn sink_fails(&mut self, which: usize) {
        let sinks = self.active.as_ref().map(Topology::sinks);
        if let Some(sink) = sinks.iter().flatten().nth(which) {
            self.failed
                .extend(sink.streams.iter().map(|(node, _)| node));
            let event = Event::of_node(EventKind::Error, sink.node);
            self.raise(event.failed(Error::cancelled()));
        }
    }

    /// The session's own events since the last call, in short.
    pub(super) fn said(&mut self) -> Vec<String> {
        let said = self.events.iter().filter(|event| event.is_session());
        let said = said.map(short).collect();
        self.events.clear();
        said
    }

    fn perform(&mut self, effect: Effect) {
        use EventKind as K;
        match effect {
            Effect::Emit(event) => self.events.push(event),
            Effect::ResolveTopology {
                set_by,
                topology,
                resolve,
            } => {
                self.calls.push(format!("resolve {resolve}"));
                let mut full = topology;
                if resolve {
                    full.resolution = Some(ResolutionStatus::default());
                }
                let result = match &self.resolve_fails {
                    Some(error) => Err(error.clone()),
                    None => {
                        let before = self.topologies.insert(set_by, (*full).clone());
                        assert!(before.is_none(), "each is set by a command of its own");
                        Ok(full)
                    }
                };
                let report = Report::TopologyResolved { set_by, result };
                self.answers.push_back(report);
            }
            Effect::CancelResolution { set_by } => {
                self.calls.push("cancel".to_owned());
                self.topologies.remove(&set_by);
                self.answers.retain(
                    |r| !matches!(r, Report::TopologyResolved { set_by: id, .. } if *id == set_by),
                );
            }
            Effect::ActivateTopology { set_by } => {
                self.started.clear();
                self.active = self.topologies.get(&set_by).cloned();
                assert!(self.active.is_some(), "what is activated is there");
            }
            Effect::ReleaseTopology { set_by } => {
                let released = self.topologies.remove(&set_by);
                assert!(released.is_some(), "released twice");
            }
            Effect::StartSources {
                sources,
                position,
                resume,
                epoch,
            } => {
                assert!(!resume || (position.is_none() && epoch == self.epoch));
                self.calls.push(format!("sources start {}", at(position)));
                self.epoch = epoch;
                for source in self.groups(&sources) {
                    self.start_source(&source, position);
                }
            }
            Effect::PauseSources { sources, epoch } => {
                self.calls.push("sources pause".to_owned());
                self.on_sources(&sources, epoch, K::SourcePaused, K::StreamPaused);
            }
            Effect::StopSources { sources, epoch } => {
                self.calls.push("sources stop".to_owned());
                self.started.clear();
                self.on_sources(&sources, epoch, K::SourceStopped, K::StreamStopped);
            }
            Effect::FlushTransforms { nodes, epoch } => {
                self.calls.push("transforms flush".to_owned());
                self.epoch = epoch;
                for node in nodes {
                    self.answers.push_back(Report::Flushed { node, epoch });
                }
            }
            Effect::PrerollSinks {
                sinks,
                position,
                epoch,
            } => {
                self.failed.clear();
                self.calls
                    .push(format!("sinks preroll {}", at(Some(position))));
                self.on_sinks(&sinks, epoch, &K::StreamSinkPrerolled);
            }
            Effect::StartSinks {
                sinks,
                clock,
                epoch,
            } => {
                self.calls
                    .push(format!("sinks start {}", at(Some(clock.media))));
                self.on_sinks(&sinks, epoch, &K::StreamSinkStarted);
            }
            Effect::PauseSinks { sinks, epoch, .. } => {
                self.calls.push("sinks pause".to_owned());
                self.on_sinks(&sinks, epoch, &K::StreamSinkPaused);
            }
            Effect::StopSinks { sinks, epoch, .. } => {
                self.calls.push("sinks stop".to_owned());
                self.on_sinks(&sinks, epoch, &K::StreamSinkStopped);
            }
            Effect::SetClock { clock, .. } => self.calls.push(format!("clock {:?}", clock.state)),
            Effect::FinalizeSinks { sinks } => {
                for sink in sinks {
                    self.calls.push(format!("finalize {sink}"));
                    let result = self.finalize_fails.clone().map_or(Ok(()), Err);
                    self.answers.push_back(Report::Finalized { sink, result });
                }
            }
            Effect::ShutDown => {
                self.is_shut_down = true;
                self.answers.clear();
            }
        }
    }

    fn start_source(&mut self, source: &SourceGroup, position: Option<MediaTime>) {
        let node = source.node;
        if let Some(error) = self.start_fails.take() {
            let event = Event::of_node(EventKind::SourceStarted { position }, node);
            return self.raise(event.failed(error));
        }
        let is_new = self.started.insert(node);
        for (node, stream) in &source.streams {
            let kind = if is_new {
                EventKind::NewStream
            } else {
                EventKind::UpdatedStream
            };
            self.raise(Event::of_stream(kind, *node, stream.0));
        }
        self.raise(Event::of_node(EventKind::SourceStarted { position }, node));
        for (node, stream) in &source.streams {
            let kind = EventKind::StreamStarted { position };
            self.raise(Event::of_stream(kind, *node, stream.0));
        }
    }

    fn on_sources(&mut self, sources: &[NodeId], epoch: Epoch, whole: EventKind, part: EventKind) {
        for source in self.groups(sources) {
            let event = Event::of_node(whole.clone(), source.node);
            self.answers.push_back(Report::Raised { event, epoch });
            for (node, stream) in source.streams {
                let event = Event::of_stream(part.clone(), node, stream.0);
                self.answers.push_back(Report::Raised { event, epoch });
            }
        }
    }

    fn on_sinks(&mut self, sinks: &[NodeId], epoch: Epoch, kind: &EventKind) {
        for node in sinks {
            let event = Event::of_node(kind.clone(), *node);
            self.answers.push_back(Report::Raised { event, epoch });
        }
    }

    fn groups(&self, sources: &[NodeId]) -> Vec<SourceGroup> {
        let active = self
            .active
            .as_ref()
            .expect("effects are about the active topology");
        let mut groups = active.sources();
        groups.retain(|group| sources.contains(&group.node));
        groups
    }
}

pub(super) fn start(position: Option<MediaTime>) -> Command {
    Command::Start { position }
}

pub(super) fn seek(secs: i64) -> Command {
    start(Some(MediaTime::from_secs(secs)))
}

pub(super) fn set(topology: Topology) -> Command {
    Command::SetTopology {
        topology: Box::new(topology),
        flags: SetTopologyFlags::default(),
    }
}

/// Ten seconds of two streams of one source, a transform in the first branch, two sinks: nodes 1 and 2 are the source's,
/// 3 is the transform, 4 and 5 are the outputs.
pub(super) fn clip() -> Topology {
    let sinks = [("left", 0), ("right", 0)];
    into(sinks)
}

/// The same into two streams of one sink.
pub(super) fn shared_sink() -> Topology {
    let streams = [("both", 0), ("both", 1)];
    into(streams)
}

/// Two nodes for one stream.
pub(super) fn split_stream() -> Topology {
    let mut topology = clip();
    let second = topology.node(NodeId(1)).expect("is there").kind.clone();
    let second = topology.add_node(second);
    let third = topology.add_node(NodeKind::output(ObjectRef::activation("third"), 0));
    topology.connect(second, 0, third, 0).expect("connects");
    topology
}

fn into([left, right]: [(&str, u32); 2]) -> Topology {
    let sound = || MediaType::audio(Subtype::PCM_S16, 48_000, 2);
    let descriptor = PresentationDescriptor {
        streams: (0..2)
            .map(|id| StreamDescriptor::new(StreamId(id), sound(), TimeBase::TICKS))
            .collect(),
        duration: Some(MediaTime::from_secs(10)),
        characteristics: Characteristics {
            live: false,
            can_seek: true,
            can_pause: true,
        },
        ..PresentationDescriptor::default()
    };
    let mut topology = Topology::new();
    let mut source = |stream| {
        let object = ObjectRef::Object(ObjectId(1));
        topology.add_node(NodeKind::described(
            object,
            StreamId(stream),
            descriptor.clone(),
        ))
    };
    let (first, second) = (source(0), source(1));
    let effect = topology.add_node(NodeKind::transform(ObjectRef::activation("effect")));
    let mut output =
        |(class, stream)| topology.add_node(NodeKind::output(ObjectRef::activation(class), stream));
    let (left, right) = (output(left), output(right));
    for (from, to) in [(first, effect), (effect, left), (second, right)] {
        topology.connect(from, 0, to, 0).expect("connects");
    }
    topology
}

pub(super) fn outputs(topology: &Topology) -> Vec<(NodeId, u32)> {
    let sinks = topology.sinks();
    sinks.into_iter().flat_map(|sink| sink.streams).collect()
}

fn at(position: Option<MediaTime>) -> String {
    position.map_or("on".to_owned(), |time| format!("{}", time.as_secs_f64()))
}

fn short(event: &Event) -> String {
    let name = event.name();
    let name = name.strip_prefix("Session").unwrap_or(name);
    let what = match &event.kind {
        EventKind::SessionTopologyStatus {
            topology_status, ..
        } => match topology_status {
            TopologyStatus::Ready => " ready".to_owned(),
            TopologyStatus::StartedSource => " started".to_owned(),
            TopologyStatus::Ended => " ended".to_owned(),
            other => format!(" {other:?}"),
        },
        EventKind::SessionCapabilitiesChanged { capabilities, .. } => {
            format!(" {:#x}", capabilities.bits())
        }
        EventKind::SessionStarted { position } => format!(" {}", at(*position)),
        _ => String::new(),
    };
    match &event.status {
        Ok(()) => format!("{name}{what}"),
        Err(error) => format!("{name}{what}: {error}"),
    }
}
