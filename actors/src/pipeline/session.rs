//! The media session actor: drives the session machine and does what it says.
//!
//! It controls and reports; samples go from node to node without it.

mod effects;
mod graph;
mod reports;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use actix::{Actor, AsyncContext, Context, Handler, SpawnHandle};
use portcullis_derive::Remote;
use portcullis_engine::clock::ClockSnapshot;
use portcullis_engine::event::{CommandId, Event};
use portcullis_engine::session::{Command, Input, Report, SessionMachine, SetTopologyFlags};
use portcullis_engine::topology::{NodeId, ObjectId, Placement, Topology, TopologyId};
use portcullis_engine::{ContentLimits, Error, MediaTime, Result};
use serde::{Deserialize, Serialize};

pub use graph::NodeObject;

use self::graph::{Graph, Surroundings, all};
use super::lifetime::end_with_last_handle;
use super::opener::Opener;
use super::sink::{ReadAhead, SinkStatistics, StreamStatistics};
use crate::bridge::{Answerer, Deferred, Handle, ReplyFuture, deferred};
use crate::host::PmpHost;
use crate::registry::{Environment, Registry};
use crate::system_time;

crate::interface! {
    /// A media session, wherever it runs.
    pub SessionControl = "portcullis.SessionControl" {
        SetTopology, ClearTopologies, StartSession, PauseSession, StopSession, CloseSession, ShutdownSession,
        NextSessionEvents, GetClock, GetFullTopology, GetStatistics, GetPmpHost
    }
}

/// How a session is made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionConfig {
    /// What content may ask for.
    pub limits: ContentLimits,
    /// Who opens what the session needs opened.
    pub opener: Handle<Opener>,
    /// Whether sinks render by the presentation clock.
    pub pacing: Pacing,
    /// How far sinks read ahead; `None` leaves it to each sink.
    pub read_ahead: Option<ReadAhead>,
    /// Where the session runs. A node that asks for another placement is refused.
    pub placement: Placement,
}

/// When samples are rendered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pacing {
    /// At their time by the presentation clock; sinks that are rateless by themselves do not wait.
    #[default]
    Presentation,
    /// As fast as they come.
    Free,
}

/// Sets a topology. Completed by `SessionTopologySet`.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = CommandId)]
pub struct SetTopology {
    /// The topology, as data.
    pub topology: Topology,
    /// The live objects that it refers to.
    pub objects: Vec<(ObjectId, NodeObject)>,
    /// How it is set.
    pub flags: SetTopologyFlags,
}

/// Drops queued topologies. Completed by `SessionTopologiesCleared`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = CommandId)]
pub struct ClearTopologies;

/// Starts, resumes or seeks. Completed by `SessionStarted`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = CommandId)]
pub struct StartSession {
    /// Where; `None` continues, or starts at the beginning.
    pub position: Option<MediaTime>,
}

/// Pauses. Completed by `SessionPaused`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = CommandId)]
pub struct PauseSession;

/// Stops. Completed by `SessionStopped`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = CommandId)]
pub struct StopSession;

/// Stops and completes what sinks write. Completed by `SessionClosed`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = CommandId)]
pub struct CloseSession;

/// Ends everything at once, without an event.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
pub struct ShutdownSession;

/// Asks for the session's events; waits until there is one. One asker at a time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Vec<Event>, no_deadline)]
pub struct NextSessionEvents;

/// Asks for the presentation clock.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = ClockSnapshot)]
pub struct GetClock;

/// Asks for the topology that is played.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Topology)]
pub struct GetFullTopology;

/// Asks for the counts of the current sinks.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Vec<OutputStatistics>)]
pub struct GetStatistics;

/// Counts of one output node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputStatistics {
    /// The output node.
    pub node: NodeId,
    /// Its counts.
    pub counts: StreamStatistics,
}

/// Asks for the host in which the session runs (the original's PMP service).
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Handle<PmpHost>)]
pub struct GetPmpHost;

/// Events that wait for the application. Beyond it the oldest non-fatal errors are dropped; others are few by nature.
const MAX_EVENTS: usize = 4096;

/// Drives a session.
pub(crate) struct MediaSessionActor {
    machine: SessionMachine,
    with: Surroundings,
    pacing: Pacing,
    commands: u64,
    /// Objects of topologies that are being resolved.
    objects: HashMap<TopologyId, HashMap<ObjectId, NodeObject>>,
    graphs: HashMap<TopologyId, Graph>,
    active: Option<TopologyId>,
    /// Resolutions that are under way.
    resolving: HashMap<TopologyId, SpawnHandle>,
    events: VecDeque<Event>,
    asker: Option<Answerer<Vec<Event>>>,
}

impl MediaSessionActor {
    /// Starts a session on this arbiter.
    pub(crate) fn create(
        registry: Arc<Registry>,
        environment: Environment,
        config: SessionConfig,
        pmp: Handle<PmpHost>,
    ) -> Handle<SessionControl> {
        let actor = Self {
            machine: SessionMachine::new(),
            with: Surroundings {
                registry,
                environment,
                opener: config.opener,
                pmp,
                read_ahead: config.read_ahead,
                placement: config.placement,
            },
            pacing: config.pacing,
            commands: 0,
            objects: HashMap::new(),
            graphs: HashMap::new(),
            active: None,
            resolving: HashMap::new(),
            events: VecDeque::new(),
            asker: None,
        };
        Handle::new(&actor.start())
    }

    fn command(&mut self, command: Command, ctx: &mut Context<Self>) -> Result<CommandId> {
        self.commands += 1;
        let id = CommandId(self.commands);
        self.input(Input::Command { id, command }, ctx)?;
        Ok(id)
    }

    fn report(&mut self, report: Report, ctx: &mut Context<Self>) {
        if let Err(error) = self.input(Input::Report(report), ctx) {
            tracing::error!(%error, "the session machine refused a report");
        }
    }

    fn input(&mut self, input: Input, ctx: &mut Context<Self>) -> Result<()> {
        let effects = self.machine.handle(input, system_time::now())?;
        for effect in effects {
            self.act(effect, ctx);
        }
        Ok(())
    }

    fn emit(&mut self, mut event: Event) {
        event.time.get_or_insert_with(system_time::now);
        self.events.push_back(event.in_process(std::process::id()));
        if self.events.len() > MAX_EVENTS {
            let spare = self
                .events
                .iter()
                .position(|event| event.kind == portcullis_engine::event::EventKind::NonFatalError)
                .unwrap_or(0);
            self.events.remove(spare);
        }
        if let Some(asker) = self.asker.take()
            && let Err(unheard) = asker.answer(self.events.drain(..).collect())
        {
            self.events = unheard.into();
        }
    }

    fn graph(&self) -> Option<&Graph> {
        self.graphs.get(&self.active?)
    }
}

impl fmt::Debug for MediaSessionActor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "MediaSessionActor({:?})", self.active)
    }
}

impl Actor for MediaSessionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        end_with_last_handle(ctx);
    }
}

impl Handler<SetTopology> for MediaSessionActor {
    type Result = Result<CommandId>;

    fn handle(&mut self, message: SetTopology, ctx: &mut Self::Context) -> Self::Result {
        message.topology.check_placement(self.with.placement)?;
        let id = message.topology.id();
        self.objects
            .insert(id, message.objects.into_iter().collect());
        let topology = Box::new(message.topology);
        let flags = message.flags;
        let outcome = self.command(Command::SetTopology { topology, flags }, ctx);
        if outcome.is_err() {
            self.objects.remove(&id);
        }
        outcome
    }
}

macro_rules! commands {
    ($($message:ident($pattern:pat) => $command:expr;)*) => {
        $(impl Handler<$message> for MediaSessionActor {
            type Result = Result<CommandId>;

            fn handle(&mut self, $pattern: $message, ctx: &mut Self::Context) -> Self::Result {
                self.command($command, ctx)
            }
        })*
    };
}

commands! {
    ClearTopologies(_) => Command::ClearTopologies;
    StartSession(StartSession { position }) => Command::Start { position };
    PauseSession(_) => Command::Pause;
    StopSession(_) => Command::Stop;
    CloseSession(_) => Command::Close;
}

impl Handler<ShutdownSession> for MediaSessionActor {
    type Result = Result<()>;

    fn handle(&mut self, _: ShutdownSession, ctx: &mut Self::Context) -> Self::Result {
        self.input(Input::Shutdown, ctx)
    }
}

impl Handler<NextSessionEvents> for MediaSessionActor {
    type Result = Deferred<Vec<Event>>;

    fn handle(&mut self, _: NextSessionEvents, _: &mut Self::Context) -> Self::Result {
        if !self.events.is_empty() {
            return Deferred::ready(Ok(self.events.drain(..).collect()));
        }
        if self.machine.clock().is_err() {
            return Deferred::ready(Err(Error::cancelled()));
        }
        let (asker, answer) = deferred();
        if let Some(before) = self.asker.replace(asker) {
            before.fail(Error::cancelled());
        }
        answer
    }
}

impl Handler<GetClock> for MediaSessionActor {
    type Result = Result<ClockSnapshot>;

    fn handle(&mut self, _: GetClock, _: &mut Self::Context) -> Self::Result {
        self.machine.clock()
    }
}

impl Handler<GetFullTopology> for MediaSessionActor {
    type Result = Result<Topology>;

    fn handle(&mut self, _: GetFullTopology, _: &mut Self::Context) -> Self::Result {
        self.machine.full_topology().cloned()
    }
}

impl Handler<GetStatistics> for MediaSessionActor {
    type Result = ReplyFuture<Vec<OutputStatistics>>;

    fn handle(&mut self, _: GetStatistics, _: &mut Self::Context) -> Self::Result {
        let Some(graph) = self.graph() else {
            return ReplyFuture::ready(Ok(Vec::new()));
        };
        let sinks = graph.sinks.clone();
        ReplyFuture::new(async move {
            let counts = all(sinks
                .iter()
                .map(|sink| sink.object.control.send(SinkStatistics)))
            .await?;
            let mut statistics = Vec::new();
            for (sink, counts) in sinks.iter().zip(counts) {
                for (node, stream) in &sink.streams {
                    let counts = counts
                        .iter()
                        .find(|counts| counts.stream == *stream)
                        .copied()
                        .unwrap_or_default();
                    statistics.push(OutputStatistics {
                        node: *node,
                        counts,
                    });
                }
            }
            Ok(statistics)
        })
    }
}

impl Handler<GetPmpHost> for MediaSessionActor {
    type Result = Result<Handle<PmpHost>>;

    fn handle(&mut self, _: GetPmpHost, _: &mut Self::Context) -> Self::Result {
        Ok(self.with.pmp.clone())
    }
}

/// Keeps the context's type out of the way of those who only spawn.
pub(super) fn spawn<T: 'static>(
    ctx: &mut Context<MediaSessionActor>,
    work: impl Future<Output = T> + 'static,
    then: impl FnOnce(&mut MediaSessionActor, T, &mut Context<MediaSessionActor>) + 'static,
) -> SpawnHandle {
    use actix::{ActorFutureExt, fut::wrap_future};
    ctx.spawn(
        wrap_future::<_, MediaSessionActor>(work)
            .map(|outcome, actor, ctx| then(actor, outcome, ctx)),
    )
}
