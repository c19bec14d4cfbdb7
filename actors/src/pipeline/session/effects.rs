//! Does what the session machine says.

use actix::AsyncContext;
use portcullis_engine::event::{CommandId, Event, EventKind};
use portcullis_engine::session::{Effect, Epoch, Report};
use portcullis_engine::source::SourceMachine;
use portcullis_engine::topology::{NodeId, Topology};
use portcullis_engine::{Error, ErrorKind, MediaTime, Result};

use tracing::Instrument;

use super::graph::{self, Graph, SinkNode, SourceNode};
use super::reports::listen;
use super::{MediaSessionActor, Pacing, spawn};
use crate::bridge::{Context, Has, Remote};
use crate::pipeline::sink::{
    FinalizeSink, PauseSink, PrerollSink, SinkControl, StartSink, StopSink,
};
use crate::pipeline::source::{PauseSource, SourceControl, StartSource, StopSource};
use crate::pipeline::transform::FlushTransform;

impl MediaSessionActor {
    pub(super) fn act(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Emit(event) => self.emit(event),
            Effect::ResolveTopology {
                set_by,
                topology,
                resolve,
            } => self.resolve(set_by, *topology, resolve, ctx),
            Effect::CancelResolution { set_by } => {
                if let Some(resolution) = self.resolving.remove(&set_by) {
                    ctx.cancel_future(resolution);
                }
            }
            Effect::ActivateTopology { set_by } => self.activate(set_by, ctx),
            Effect::ReleaseTopology { set_by } => self.release(set_by, ctx),
            Effect::StartSources {
                sources,
                position,
                resume,
                epoch,
            } => self.start_sources(&sources, (position, resume), epoch, ctx),
            Effect::PauseSources { sources, epoch } => {
                let kind = EventKind::SourcePaused;
                self.tell_sources(
                    &sources,
                    PauseSource,
                    kind,
                    SourceMachine::pause,
                    epoch,
                    ctx,
                );
            }
            Effect::StopSources { sources, epoch } => {
                let kind = EventKind::SourceStopped;
                self.note_running(&sources, false);
                let says = |source: &mut SourceMachine| Ok(source.stop());
                self.tell_sources(&sources, StopSource, kind, says, epoch, ctx);
            }
            Effect::FlushTransforms { nodes, epoch } => self.flush(&nodes, epoch, ctx),
            Effect::PrerollSinks { sinks, epoch, .. } => {
                self.tell_sinks(
                    &sinks,
                    PrerollSink { epoch },
                    EventKind::StreamSinkPrerolled,
                    epoch,
                    ctx,
                );
            }
            Effect::StartSinks {
                sinks,
                clock,
                epoch,
            } => {
                let rateless = self.pacing == Pacing::Free;
                self.tell_sinks(
                    &sinks,
                    StartSink { clock, rateless },
                    EventKind::StreamSinkStarted,
                    epoch,
                    ctx,
                );
            }
            Effect::PauseSinks { sinks, epoch, .. } => {
                self.tell_sinks(&sinks, PauseSink, EventKind::StreamSinkPaused, epoch, ctx);
            }
            Effect::StopSinks { sinks, epoch, .. } => {
                self.tell_sinks(&sinks, StopSink, EventKind::StreamSinkStopped, epoch, ctx);
            }
            Effect::SetClock { sinks, clock } => {
                let rateless = self.pacing == Pacing::Free;
                for sink in self.sinks(&sinks) {
                    // A clock that stands parks the sink; the machine awaits no answer.
                    if clock.is_running() {
                        sink.object
                            .control
                            .tell_in_time(StartSink { clock, rateless });
                    } else {
                        sink.object.control.tell_in_time(PauseSink);
                    }
                }
            }
            Effect::FinalizeSinks { sinks } => {
                for sink in self.sinks(&sinks) {
                    let node = sink.node;
                    spawn(
                        ctx,
                        sink.object.control.send(FinalizeSink),
                        move |actor, result, ctx| {
                            actor.report(Report::Finalized { sink: node, result }, ctx);
                        },
                    );
                }
            }
            Effect::ShutDown => {
                // Dropping the last handles ends the nodes; sources of the application only lose this session.
                self.stop_sources();
                for resolution in std::mem::take(&mut self.resolving).into_values() {
                    ctx.cancel_future(resolution);
                }
                for set_by in self.graphs.keys().copied().collect::<Vec<_>>() {
                    self.release(set_by, ctx);
                }
                self.objects.clear();
                self.active = None;
                if let Some(asker) = self.asker.take() {
                    asker.fail(Error::cancelled());
                }
            }
            other => tracing::error!(?other, "an effect that this session does not know"),
        }
    }

    /// Listens to the nodes of the topology that is played from now on, and only to them: a source that is read again is
    /// a node of two topologies, and it has one listener.
    fn activate(&mut self, set_by: CommandId, ctx: &mut Context<Self>) {
        self.active = Some(set_by);
        if let Some(graph) = self.graphs.get_mut(&set_by) {
            listen(set_by, graph, ctx);
        }
    }

    /// Lets the sources that run stop: another session may use them.
    pub(super) fn stop_sources(&mut self) {
        for source in self
            .graphs
            .values_mut()
            .flat_map(|graph| &mut graph.sources)
        {
            if std::mem::take(&mut source.is_running) {
                source.object.control.tell_in_time(StopSource);
            }
        }
    }

    fn note_running(&mut self, nodes: &[NodeId], is_running: bool) {
        let graph = self.active.and_then(|active| self.graphs.get_mut(&active));
        for source in graph.into_iter().flat_map(|graph| &mut graph.sources) {
            if nodes.contains(&source.node) {
                source.is_running = is_running;
            }
        }
    }

    fn release(&mut self, set_by: CommandId, ctx: &mut Context<Self>) {
        if let Some(graph) = self.graphs.remove(&set_by) {
            for listener in graph.listeners {
                ctx.cancel_future(listener);
            }
        }
    }

    fn resolve(
        &mut self,
        set_by: CommandId,
        topology: Topology,
        resolve: bool,
        ctx: &mut Context<Self>,
    ) {
        let with = self.with.clone();
        let objects = self.objects.remove(&set_by).unwrap_or_default();
        let build = async move { graph::build(&with, &topology, resolve, objects).await };
        let build = build.instrument(self.span.clone());
        let resolution = spawn(ctx, build, move |actor, built, ctx| {
            actor.resolving.remove(&set_by);
            let result = built.map(|(graph, attempts)| {
                tracing::debug!(
                    topology = graph.topology.id().0,
                    attempts = attempts.len(),
                    "topology resolved"
                );
                let full = Box::new(graph.topology.clone());
                actor.graphs.insert(set_by, graph);
                full
            });
            actor.report(Report::TopologyResolved { set_by, result }, ctx);
        });
        self.resolving.insert(set_by, resolution);
    }

    fn start_sources(
        &mut self,
        nodes: &[NodeId],
        (position, resume): (Option<MediaTime>, bool),
        epoch: Epoch,
        ctx: &mut Context<Self>,
    ) {
        self.note_running(nodes, true);
        for (node, source) in self.sources(nodes) {
            let start = StartSource {
                selected: source.machine.selected(),
                position,
                resume,
                epoch,
            };
            let call = source.object.control.send(start);
            let kind = EventKind::SourceStarted { position };
            let topology = self.active;
            spawn(ctx, call, move |actor, outcome, ctx| {
                let says = |source: &mut SourceMachine| Ok(source.started(position, outcome));
                actor.source_says(topology, node, kind, says, epoch, ctx);
            });
        }
    }

    /// Sends a request to sources, and raises what their machines say of its success.
    fn tell_sources<M>(
        &mut self,
        nodes: &[NodeId],
        message: M,
        kind: EventKind,
        says: fn(&mut SourceMachine) -> Result<Vec<Event>>,
        epoch: Epoch,
        ctx: &mut Context<Self>,
    ) where
        M: Remote<Reply = ()> + Clone,
        SourceControl: Has<M>,
    {
        for (node, source) in self.sources(nodes) {
            let call = source.object.control.send(message.clone());
            let (topology, kind) = (self.active, kind.clone());
            spawn(ctx, call, move |actor, outcome, ctx| {
                let says = |source: &mut SourceMachine| {
                    says(source).and_then(|events| outcome.map(|()| events))
                };
                actor.source_says(topology, node, kind, says, epoch, ctx);
            });
        }
    }

    /// Raises what a source has to say; where it has failed, one event of this kind says so.
    pub(super) fn source_says(
        &mut self,
        topology: Option<CommandId>,
        node: NodeId,
        kind: EventKind,
        says: impl FnOnce(&mut SourceMachine) -> Result<Vec<Event>>,
        epoch: Epoch,
        ctx: &mut Context<Self>,
    ) {
        if topology != self.active {
            return;
        }
        let graph = topology.and_then(|topology| self.graphs.get_mut(&topology));
        let Some(source) =
            graph.and_then(|graph| graph.sources.iter_mut().find(|s| s.node == node))
        else {
            return;
        };
        let events = says(&mut source.machine)
            .unwrap_or_else(|error| vec![Event::of_node(kind, node).failed(error)]);
        for event in events {
            self.raise(event, epoch, ctx);
        }
    }

    fn flush(&mut self, nodes: &[NodeId], epoch: Epoch, ctx: &mut Context<Self>) {
        let Some(graph) = self.graph() else {
            return;
        };
        let flushed: Vec<_> = nodes
            .iter()
            .map(|node| {
                let transform = graph.transforms.iter().find(|(id, _)| id == node);
                (
                    *node,
                    transform.map(|(_, t)| t.control.send(FlushTransform { epoch })),
                )
            })
            .collect();
        for (node, call) in flushed {
            let flush = async move {
                match call {
                    Some(call) => call.await,
                    None => Ok(()),
                }
            };
            spawn(ctx, flush, move |actor, outcome: Result<()>, ctx| {
                // A component that is gone, which it has said, holds nothing.
                if let Err(error) = outcome
                    && error.kind() != &ErrorKind::ActorStopped
                {
                    actor.raise(
                        Event::of_node(EventKind::Error, node).failed(error),
                        epoch,
                        ctx,
                    );
                }
                actor.report(Report::Flushed { node, epoch }, ctx);
            });
        }
    }

    /// Sends a request to every sink that has one of these output nodes and raises the answer for each of them.
    fn tell_sinks<M>(
        &mut self,
        nodes: &[NodeId],
        message: M,
        kind: EventKind,
        epoch: Epoch,
        ctx: &mut Context<Self>,
    ) where
        M: Remote<Reply = ()> + Clone,
        SinkControl: Has<M>,
    {
        for sink in self.sinks(nodes) {
            let kind = kind.clone();
            spawn(
                ctx,
                sink.object.control.send(message.clone()),
                move |actor, outcome, ctx| {
                    for (node, stream) in &sink.streams {
                        let event = Event::of_stream(kind.clone(), *node, *stream)
                            .with_status(outcome.clone());
                        actor.raise(event, epoch, ctx);
                    }
                },
            );
        }
    }

    pub(super) fn raise(&mut self, event: Event, epoch: Epoch, ctx: &mut Context<Self>) {
        self.report(Report::Raised { event, epoch }, ctx);
    }

    fn sources(&self, nodes: &[NodeId]) -> Vec<(NodeId, &SourceNode)> {
        let sources = self.graph().map(|graph| graph.sources.as_slice());
        let sources = sources.unwrap_or_default().iter();
        sources
            .filter(|source| nodes.contains(&source.node))
            .map(|source| (source.node, source))
            .collect()
    }

    fn sinks(&self, nodes: &[NodeId]) -> Vec<SinkNode> {
        let sinks = self
            .graph()
            .map(|graph: &Graph| graph.sinks.as_slice())
            .unwrap_or_default();
        let has_one = |sink: &&SinkNode| sink.streams.iter().any(|(node, _)| nodes.contains(node));
        sinks.iter().filter(has_one).cloned().collect()
    }
}
