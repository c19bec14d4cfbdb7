//! The media session actor: drives the session machine and does what it says.
//!
//! It controls and reports; samples go from node to node without it.

mod effects;
mod graph;
mod messages;
mod reports;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::{Actor, AsyncContext, Handler, SpawnHandle};
use portcullis_engine::clock::ClockSnapshot;
use portcullis_engine::event::{CommandId, Event};
use portcullis_engine::session::{Command, Input, Report, SessionMachine};
use portcullis_engine::topology::{ObjectId, Topology};
use portcullis_engine::{Error, Result};
use tracing::Span;

pub use graph::NodeObject;
pub use messages::{
    ClearTopologies, CloseSession, GetClock, GetFullTopology, GetPmpHost, GetStatistics,
    NextSessionEvents, OutputStatistics, Pacing, PauseSession, SessionConfig, SessionControl,
    SetTopology, ShutdownSession, StartSession, StopSession,
};

use self::graph::{Graph, Surroundings, all};
use super::lifetime::end_with_last_handle;
use super::sink::SinkStatistics;
use crate::bridge::{Answerer, Context, Deferred, Handle, ReplyFuture, deferred};
use crate::client::matters;
use crate::host::{PmpHost, SessionPlace};
use crate::registry::{Environment, Registry};
use crate::system_time;

/// Events that wait for the application. Beyond it those that it can do without are left out, oldest first.
const MAX_EVENTS: usize = 4096;
/// Events that wait while commands are still taken: each is completed by an event that is never left out.
const MAX_EVENTS_OF_COMMANDS: usize = 2 * MAX_EVENTS;

/// Drives a session.
pub(crate) struct MediaSessionActor {
    machine: SessionMachine,
    with: Surroundings,
    pacing: Pacing,
    commands: u64,
    /// Objects of topologies whose turn to be resolved has not come.
    objects: HashMap<CommandId, HashMap<ObjectId, NodeObject>>,
    /// Resolved topologies by the command that set them: one can be set several times.
    graphs: HashMap<CommandId, Graph>,
    active: Option<CommandId>,
    /// Resolutions that are under way.
    resolving: HashMap<CommandId, SpawnHandle>,
    events: VecDeque<Event>,
    asker: Option<Answerer<Vec<Event>>>,
    /// Its place among the sessions of its process.
    _place: SessionPlace,
    span: Span,
}

/// Sessions of this process, counted for their spans.
static SESSIONS: AtomicU64 = AtomicU64::new(1);

impl MediaSessionActor {
    /// Starts a session on this arbiter.
    pub(crate) fn create(
        registry: Arc<Registry>,
        environment: Environment,
        config: SessionConfig,
        pmp: Handle<PmpHost>,
        place: SessionPlace,
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
            _place: place,
            span: tracing::info_span!(
                "session",
                session = SESSIONS.fetch_add(1, Ordering::Relaxed),
                host = portcullis_transport::host::pid()
            ),
        };
        Handle::start(actor)
    }

    fn command(&mut self, command: Command, ctx: &mut Context<Self>) -> Result<CommandId> {
        if self.events.len() >= MAX_EVENTS_OF_COMMANDS {
            let what = "too many events wait for the application";
            return Err(Error::invalid_request(what));
        }
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
        let span = self.span.clone();
        let _span = span.enter();
        let effects = self.machine.handle(input, system_time::now())?;
        for effect in effects {
            self.act(effect, ctx);
        }
        Ok(())
    }

    fn emit(&mut self, mut event: Event) {
        tracing::debug!(%event);
        if let Some(command) = event.command {
            // Of a topology that was refused before its turn came.
            self.objects.remove(&command);
        }
        event.time.get_or_insert_with(system_time::now);
        self.events
            .push_back(event.in_process(portcullis_transport::host::pid()));
        if self.events.len() > MAX_EVENTS {
            let spare = self.events.iter().position(|event| !matters(event));
            spare.map(|spare| self.events.remove(spare));
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

    fn stopped(&mut self, _: &mut Self::Context) {
        self.stop_sources();
    }
}

impl Handler<SetTopology> for MediaSessionActor {
    type Result = Result<CommandId>;

    fn handle(&mut self, message: SetTopology, ctx: &mut Self::Context) -> Self::Result {
        message.topology.check_placement(self.with.placement)?;
        let id = CommandId(self.commands + 1);
        let objects = message.objects.into_iter().collect();
        self.objects.insert(id, objects);
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
