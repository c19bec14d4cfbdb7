//! Listens to the nodes of a topology and reports to the session machine.

use actix::fut::{ActorStreamExt, wrap_stream};
use actix::{AsyncContext, SpawnHandle};
use portcullis_engine::event::{CommandId, Event, EventKind};
use portcullis_engine::session::{Epoch, Report};
use portcullis_engine::source::SourceMachine;
use portcullis_engine::topology::NodeId;
use portcullis_engine::{Error, StreamId};

use super::MediaSessionActor;
use super::graph::Graph;
use crate::bridge::{Context, Handle, Has, Interface};
use crate::pipeline::events::{NextNodeEvents, NodeEvent};

/// A node that is listened to.
#[derive(Clone, Debug)]
struct Speaker {
    /// The command that set its topology.
    topology: CommandId,
    node: NodeId,
    role: Role,
}

#[derive(Clone, Debug)]
enum Role {
    Source(Vec<(NodeId, StreamId)>),
    Transform,
    Sink(Vec<(NodeId, u32)>),
}

/// Listens to every node of a graph, as long as the graph is there.
pub(super) fn listen(topology: CommandId, graph: &mut Graph, ctx: &mut Context<MediaSessionActor>) {
    let speaker = |node, role| Speaker {
        topology,
        node,
        role,
    };
    let mut listeners = Vec::new();
    for source in &graph.sources {
        let speaker = speaker(source.node, Role::Source(source.streams.clone()));
        listeners.push(listen_to(source.object.control.clone(), speaker, ctx));
    }
    for (node, transform) in &graph.transforms {
        let speaker = speaker(*node, Role::Transform);
        listeners.push(listen_to(transform.control.clone(), speaker, ctx));
    }
    for sink in &graph.sinks {
        let speaker = speaker(sink.node, Role::Sink(sink.streams.clone()));
        listeners.push(listen_to(sink.object.control.clone(), speaker, ctx));
    }
    graph.listeners = listeners;
}

fn listen_to<I>(
    node: Handle<I>,
    speaker: Speaker,
    ctx: &mut Context<MediaSessionActor>,
) -> SpawnHandle
where
    I: Interface + Has<NextNodeEvents>,
{
    let events = futures::stream::unfold(Some(node), |node| async move {
        let node = node?;
        let events = node.send(NextNodeEvents).await;
        // One that does not answer any more is asked no more.
        let next = events.is_ok().then_some(node);
        Some((events, next))
    });
    let listener = wrap_stream::<_, MediaSessionActor>(Box::pin(events)).map(
        move |events, actor: &mut MediaSessionActor, ctx: &mut Context<MediaSessionActor>| {
            match events {
                Ok(events) => {
                    for (epoch, event) in events {
                        actor.heard(&speaker, event, epoch, ctx);
                    }
                }
                Err(error) => {
                    let (node, error) = (speaker.node, actor.named(error, &speaker));
                    if actor.active == Some(speaker.topology) {
                        actor.report(Report::NodeLost { node, error }, ctx);
                    }
                }
            }
        },
    );
    ctx.spawn(listener.finish())
}

impl MediaSessionActor {
    fn heard(
        &mut self,
        speaker: &Speaker,
        event: NodeEvent,
        epoch: Epoch,
        ctx: &mut Context<Self>,
    ) {
        // The session's machine knows the nodes of the topology that is played; another one has nothing to say yet.
        if self.active != Some(speaker.topology) {
            return;
        }
        let node = speaker.node;
        let event = match (event, &speaker.role) {
            (NodeEvent::EndOfStream(stream), Role::Source(streams)) => {
                let nodes = streams.iter().filter(|(_, id)| *id == stream);
                for node in nodes.map(|(node, _)| *node) {
                    let says = |source: &mut SourceMachine| source.stream_ended(node);
                    let (topology, kind) = (Some(speaker.topology), EventKind::Error);
                    self.source_says(topology, speaker.node, kind, says, epoch, ctx);
                }
                return;
            }
            (NodeEvent::StreamRendered(stream), Role::Sink(streams)) => {
                let Some((node, _)) = streams.iter().find(|(_, id)| *id == stream) else {
                    return;
                };
                Event::of_stream(EventKind::StreamSinkMarker, *node, stream)
            }
            (NodeEvent::FormatChanged(stream, media_type), Role::Sink(streams)) => {
                let Some((node, _)) = streams.iter().find(|(_, id)| *id == stream) else {
                    return;
                };
                let kind = EventKind::StreamSinkFormatChanged { media_type };
                Event::of_stream(kind, *node, stream)
            }
            (NodeEvent::Fault(error), _) => {
                let error = self.named(error, speaker);
                Event::of_node(EventKind::NonFatalError, node).failed(error)
            }
            (NodeEvent::Failed(error), _) => {
                let error = self.named(error, speaker);
                Event::of_node(EventKind::Error, node).failed(error)
            }
            // What its kind of node does not say.
            _ => return,
        };
        self.raise(event, epoch, ctx);
    }

    /// The error with the name of the node that it comes from.
    fn named(&self, error: Error, speaker: &Speaker) -> Error {
        let id = speaker.node;
        let node = self
            .graphs
            .get(&speaker.topology)
            .and_then(|graph| graph.topology.node(id))
            .and_then(|node| node.kind.object())
            .map_or_else(|| id.to_string(), |object| format!("{id} {object}"));
        error.at_node(node)
    }
}
