//! Listens to the nodes of a topology and reports to the session machine.

use actix::Context;
use portcullis_engine::event::{Event, EventKind};
use portcullis_engine::session::{Epoch, Report};
use portcullis_engine::topology::NodeId;
use portcullis_engine::{Error, Result};

use super::graph::{Graph, SinkNode, SourceNode};
use super::{MediaSessionActor, spawn};
use crate::bridge::{Call, Handle, Has, Interface};
use crate::pipeline::events::{NextNodeEvents, NodeEvent};

/// Which node an event comes from.
#[derive(Clone, Debug)]
enum Speaker {
    Source(SourceNode),
    Transform(NodeId),
    Sink(SinkNode),
}

impl MediaSessionActor {
    /// Listens to every node of a graph, as long as the graph is there.
    pub(super) fn listen(&mut self, graph: &Graph, ctx: &mut Context<Self>) {
        for source in &graph.sources {
            self.listen_to(
                source.object.control.clone(),
                Speaker::Source(source.clone()),
                ctx,
            );
        }
        for (node, transform) in &graph.transforms {
            self.listen_to(transform.control.clone(), Speaker::Transform(*node), ctx);
        }
        for sink in &graph.sinks {
            self.listen_to(
                sink.object.control.clone(),
                Speaker::Sink(sink.clone()),
                ctx,
            );
        }
    }

    fn listen_to<I: Interface + Has<NextNodeEvents>>(
        &mut self,
        node: Handle<I>,
        speaker: Speaker,
        ctx: &mut Context<Self>,
    ) {
        let next: Call<NextNodeEvents> = node.send(NextNodeEvents);
        spawn(
            ctx,
            next,
            move |actor, events: Result<Vec<(Epoch, NodeEvent)>>, ctx| {
                if !actor.is_listened_to(&speaker) {
                    return;
                }
                match events {
                    Ok(events) => {
                        for (epoch, event) in events {
                            actor.heard(&speaker, event, epoch, ctx);
                        }
                        actor.listen_to(node, speaker, ctx);
                    }
                    Err(error) => actor.silent(&speaker, error, ctx),
                }
            },
        );
    }

    /// Whether the speaker's topology has not been released.
    fn is_listened_to(&self, speaker: &Speaker) -> bool {
        self.graphs.values().any(|graph| match speaker {
            Speaker::Source(source) => graph
                .sources
                .iter()
                .any(|s| s.object.control == source.object.control),
            Speaker::Transform(node) => graph.transforms.iter().any(|(id, _)| id == node),
            Speaker::Sink(sink) => graph
                .sinks
                .iter()
                .any(|s| s.object.control == sink.object.control),
        })
    }

    fn heard(
        &mut self,
        speaker: &Speaker,
        event: NodeEvent,
        epoch: Epoch,
        ctx: &mut Context<Self>,
    ) {
        let event = match (event, speaker) {
            (NodeEvent::EndOfStream(stream), Speaker::Source(source)) => {
                let Some((node, _)) = source.streams.iter().find(|(_, id)| *id == stream) else {
                    return;
                };
                Event::of_stream(EventKind::EndOfStream, *node, stream.0)
            }
            (NodeEvent::EndOfPresentation, Speaker::Source(source)) => {
                Event::of_node(EventKind::EndOfPresentation, source.node)
            }
            (NodeEvent::StreamRendered(stream), Speaker::Sink(sink)) => {
                let Some((node, _)) = sink.streams.iter().find(|(_, id)| *id == stream) else {
                    return;
                };
                Event::of_stream(EventKind::StreamSinkMarker, *node, stream)
            }
            (NodeEvent::FormatChanged(stream, media_type), Speaker::Sink(sink)) => {
                let Some((node, _)) = sink.streams.iter().find(|(_, id)| *id == stream) else {
                    return;
                };
                Event::of_stream(
                    EventKind::StreamSinkFormatChanged { media_type },
                    *node,
                    stream,
                )
            }
            (NodeEvent::Fault(error), _) => {
                let error = self.named(error, speaker);
                Event::of_node(EventKind::NonFatalError, speaker.node()).failed(error)
            }
            (NodeEvent::Failed(error), _) => {
                let error = self.named(error, speaker);
                Event::of_node(EventKind::Error, speaker.node()).failed(error)
            }
            // What its kind of node does not say.
            _ => return,
        };
        self.raise(event, epoch, ctx);
    }

    /// A node answers no more.
    fn silent(&mut self, speaker: &Speaker, error: Error, ctx: &mut Context<Self>) {
        let error = self.named(error, speaker);
        let node = speaker.node();
        self.report(Report::NodeLost { node, error }, ctx);
    }

    /// The error with the name of the node that it comes from.
    fn named(&self, error: Error, speaker: &Speaker) -> Error {
        let id = speaker.node();
        let node = self
            .graphs
            .values()
            .find_map(|graph| graph.topology.node(id))
            .and_then(|node| node.kind.object())
            .map_or_else(|| id.to_string(), |object| format!("{id} {object}"));
        error.at_node(node)
    }
}

impl Speaker {
    fn node(&self) -> NodeId {
        match self {
            Self::Source(source) => source.node,
            Self::Transform(node) => *node,
            Self::Sink(sink) => sink.node,
        }
    }
}
