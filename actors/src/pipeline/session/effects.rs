//! Does what the session machine says.

use actix::Context;
use portcullis_engine::event::{Event, EventKind};
use portcullis_engine::session::{Effect, Epoch, Report};
use portcullis_engine::topology::{NodeId, Topology};
use portcullis_engine::{MediaTime, Result};

use super::graph::{self, Graph, SinkNode, SourceNode};
use super::{MediaSessionActor, Pacing, spawn};
use crate::bridge::{Call, Has, Remote};
use crate::pipeline::sink::{
    FinalizeSink, PauseSink, PrerollSink, SinkControl, StartSink, StopSink,
};
use crate::pipeline::source::{PauseSource, StartSource, StopSource};
use crate::pipeline::transform::FlushTransform;

impl MediaSessionActor {
    pub(super) fn act(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Emit(event) => self.emit(event),
            Effect::ResolveTopology { topology, .. } => self.resolve(*topology, ctx),
            Effect::ActivateTopology { topology } => self.active = Some(topology),
            Effect::ReleaseTopology { topology } => {
                self.graphs.remove(&topology);
            }
            Effect::StartSources {
                sources,
                position,
                epoch,
            } => self.start_sources(&sources, position, epoch, ctx),
            Effect::PauseSources { sources, epoch } => {
                for source in self.sources(&sources) {
                    let call = source.object.control.send(PauseSource);
                    self.source_answers(
                        source,
                        call,
                        EventKind::SourcePaused,
                        EventKind::StreamPaused,
                        epoch,
                        ctx,
                    );
                }
            }
            Effect::StopSources { sources, epoch } => {
                for source in self.sources(&sources) {
                    let call = source.object.control.send(StopSource);
                    self.source_answers(
                        source,
                        call,
                        EventKind::SourceStopped,
                        EventKind::StreamStopped,
                        epoch,
                        ctx,
                    );
                }
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
                        sink.object.control.tell(StartSink { clock, rateless });
                    } else {
                        sink.object.control.tell(PauseSink);
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
                self.graphs.clear();
                self.objects.clear();
                self.active = None;
                self.asker = None;
            }
            other => tracing::error!(?other, "an effect that this session does not know"),
        }
    }

    fn resolve(&mut self, topology: Topology, ctx: &mut Context<Self>) {
        let id = topology.id();
        let with = self.with.clone();
        let objects = self.objects.remove(&id).unwrap_or_default();
        let build = async move { graph::build(&with, &topology, objects).await };
        spawn(ctx, build, move |actor, built, ctx| {
            let result = built.map(|(graph, attempts)| {
                tracing::debug!(
                    topology = id.0,
                    attempts = attempts.len(),
                    "topology resolved"
                );
                let full = Box::new(graph.topology.clone());
                actor.listen(&graph, ctx);
                actor.graphs.insert(id, graph);
                full
            });
            actor.report(
                Report::TopologyResolved {
                    topology: id,
                    result,
                },
                ctx,
            );
        });
    }

    fn start_sources(
        &mut self,
        sources: &[NodeId],
        position: Option<MediaTime>,
        epoch: Epoch,
        ctx: &mut Context<Self>,
    ) {
        for source in self.sources(sources) {
            let start = StartSource {
                selected: source.streams.iter().map(|(_, stream)| *stream).collect(),
                position,
                epoch,
            };
            spawn(
                ctx,
                source.object.control.send(start),
                move |actor, outcome, ctx| {
                    if let Err(error) = outcome {
                        let failed =
                            Event::of_node(EventKind::SourceStarted { position }, source.node)
                                .failed(error);
                        return actor.raise(failed, epoch, ctx);
                    }
                    for (node, stream) in &source.streams {
                        let kind = if actor.known_streams.insert(*node) {
                            EventKind::NewStream
                        } else {
                            EventKind::UpdatedStream
                        };
                        actor.raise(Event::of_stream(kind, *node, stream.0), epoch, ctx);
                    }
                    actor.raise(
                        Event::of_node(EventKind::SourceStarted { position }, source.node),
                        epoch,
                        ctx,
                    );
                    for (node, stream) in &source.streams {
                        actor.raise(
                            Event::of_stream(
                                EventKind::StreamStarted { position },
                                *node,
                                stream.0,
                            ),
                            epoch,
                            ctx,
                        );
                    }
                },
            );
        }
    }

    /// Raises what a source and its streams have to say about the answer of a request.
    fn source_answers<M: Remote<Reply = ()>>(
        &mut self,
        source: SourceNode,
        call: Call<M>,
        whole: EventKind,
        stream_kind: EventKind,
        epoch: Epoch,
        ctx: &mut Context<Self>,
    ) {
        spawn(ctx, call, move |actor, outcome, ctx| {
            let failed = outcome.is_err();
            actor.raise(
                Event::of_node(whole, source.node).with_status(outcome),
                epoch,
                ctx,
            );
            if failed {
                return;
            }
            for (node, stream) in &source.streams {
                actor.raise(
                    Event::of_stream(stream_kind.clone(), *node, stream.0),
                    epoch,
                    ctx,
                );
            }
        });
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
                if let Err(error) = outcome {
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

    fn sources(&self, nodes: &[NodeId]) -> Vec<SourceNode> {
        let sources = self
            .graph()
            .map(|graph: &Graph| graph.sources.as_slice())
            .unwrap_or_default();
        sources
            .iter()
            .filter(|source| nodes.contains(&source.node))
            .cloned()
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
