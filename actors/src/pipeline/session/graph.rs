//! From a topology to connected actors: objects are created, the loader asks them, links are made.

mod parties;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use actix::SpawnHandle;
use futures::future::try_join_all;
use portcullis_engine::loader::{self, Attempt};
use portcullis_engine::source::SourceMachine;
use portcullis_engine::topology::{NodeId, NodeKind, ObjectId, ObjectRef, Placement, Topology};
use portcullis_engine::{Error, ErrorKind, PresentationDescriptor, Result, StreamId};
use serde::{Deserialize, Serialize};
use tracing::{Instrument, Span};

use self::parties::{Parties, find_sink, find_source, not_there};
use crate::bridge::Handle;
use crate::host::PmpHost;
use crate::pipeline::opener::Opener;
use crate::pipeline::port::Port;
use crate::pipeline::sink::{ConnectSink, ReadAhead, SetSinkType, SinkObject, Upstream};
use crate::pipeline::source::{SetPmpHost, SourceObject};
use crate::pipeline::transform::{ConnectInput, SetInputType, SetOutputType, TransformObject};
use crate::registry::{Environment, Registry};

/// A live object that a topology refers to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NodeObject {
    /// A source.
    Source(SourceObject),
    /// A transform.
    Transform(TransformObject),
    /// A sink.
    Sink(SinkObject),
}

/// What a graph is built with.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) registry: Arc<Registry>,
    pub(super) environment: Environment,
    pub(super) opener: Handle<Opener>,
    pub(super) pmp: Handle<PmpHost>,
    pub(super) read_ahead: Option<ReadAhead>,
    pub(super) placement: Placement,
}

/// A full topology with the actors behind its nodes.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) topology: Topology,
    pub(super) sources: Vec<SourceNode>,
    pub(super) transforms: Vec<(NodeId, TransformObject)>,
    pub(super) sinks: Vec<SinkNode>,
    /// What listens to the nodes; ended with the graph.
    pub(super) listeners: Vec<SpawnHandle>,
}

/// One source; the node is the first of its streams' nodes.
#[derive(Debug)]
pub(super) struct SourceNode {
    pub(super) node: NodeId,
    pub(super) object: SourceObject,
    pub(super) streams: Vec<(NodeId, StreamId)>,
    pub(super) machine: SourceMachine,
    /// Whether it was asked to run, and not to stop since.
    pub(super) is_running: bool,
}

/// One sink; the node is the first of its streams' nodes.
#[derive(Clone, Debug)]
pub(super) struct SinkNode {
    pub(super) node: NodeId,
    pub(super) object: SinkObject,
    pub(super) streams: Vec<(NodeId, u32)>,
}

/// What the components of a node log belongs to it.
pub(super) fn node_span(node: NodeId) -> Span {
    tracing::info_span!("node", %node)
}

/// Resolves a topology and connects its actors.
pub(super) async fn build(
    with: &Surroundings,
    topology: &Topology,
    resolve: bool,
    objects: HashMap<ObjectId, NodeObject>,
) -> Result<(Graph, Vec<Attempt>)> {
    if let Some(tee) = topology
        .nodes()
        .iter()
        .find(|node| matches!(node.kind, NodeKind::Tee))
    {
        return Err(Error::new(ErrorKind::Unsupported {
            what: "a tee".into(),
        })
        .at_node(tee.id.to_string()));
    }
    let mut sources = Vec::new();
    let mut descriptors = BTreeMap::new();
    for group in topology.sources() {
        let object = find_source(with, &group.object, &objects)
            .instrument(node_span(group.node))
            .await
            .map_err(|error| error.at_node(group.object.to_string()))?;
        object
            .control
            .send(SetPmpHost {
                host: with.pmp.clone(),
            })
            .await?;
        let selected: Vec<_> = group.streams.iter().map(|(_, stream)| *stream).collect();
        for (node, stream) in &group.streams {
            descriptors.insert(*node, selection(&object.presentation, &selected, *stream)?);
        }
        sources.push(SourceNode {
            node: group.node,
            object,
            machine: SourceMachine::new(&group),
            is_running: false,
            streams: group.streams,
        });
    }
    let mut sinks = Vec::new();
    for group in topology.sinks() {
        let object = find_sink(with, &group.object, &objects)
            .instrument(node_span(group.node))
            .await
            .map_err(|error| error.at_node(group.object.to_string()))?;
        sinks.push(SinkNode {
            node: group.node,
            object,
            streams: group.streams,
        });
    }
    let parties = Parties::new(with, &objects, &sinks);
    let (full, attempts) = if resolve {
        let resolved = loader::load(topology, &descriptors, &parties).await?;
        (resolved.topology, resolved.attempts)
    } else {
        (parties.as_it_is(topology, &descriptors).await?, Vec::new())
    };
    let mut made = parties.into_transforms();
    let mut transforms = Vec::new();
    for node in full.nodes() {
        if let NodeKind::Transform { object } = &node.kind {
            let found = match object {
                ObjectRef::Object(id) => match objects.get(id) {
                    Some(NodeObject::Transform(object)) => Some(object.clone()),
                    _ => None,
                },
                _ => made.remove(&(node.id, object.to_string())),
            };
            let found = found.ok_or_else(|| not_there(object).at_node(node.id.to_string()))?;
            transforms.push((node.id, found));
        }
    }
    let graph = Graph {
        topology: full,
        sources,
        transforms,
        sinks,
        listeners: Vec::new(),
    };
    graph.connect(with.read_ahead).await?;
    Ok((graph, attempts))
}

impl Graph {
    async fn connect(&self, read_ahead: Option<ReadAhead>) -> Result<()> {
        for (node, transform) in &self.transforms {
            let link = self
                .topology
                .link_to(*node, 0)
                .ok_or_else(|| Error::invalid_request("a transform without an input"))?;
            if let Some(media_type) = link.media_type.clone() {
                transform.control.send(SetInputType { media_type }).await?;
            }
            if let Some(media_type) = self.topology.link_type(*node, 0).cloned() {
                transform.control.send(SetOutputType { media_type }).await?;
            }
            let upstream = self.upstream(link.from)?;
            transform.control.send(ConnectInput { upstream }).await?;
        }
        for sink in &self.sinks {
            for (node, stream) in &sink.streams {
                let link = self
                    .topology
                    .link_to(*node, 0)
                    .ok_or_else(|| Error::invalid_request("an output without an input"))?;
                if let Some(media_type) = link.media_type.clone() {
                    let stream = *stream;
                    sink.object
                        .control
                        .send(SetSinkType { stream, media_type })
                        .await?;
                }
                let connect = ConnectSink {
                    stream: *stream,
                    upstream: self.upstream(link.from)?,
                    ahead: read_ahead,
                };
                sink.object.control.send(connect).await?;
            }
        }
        Ok(())
    }

    /// Where the samples of a node come out.
    fn upstream(&self, node: NodeId) -> Result<Upstream> {
        if let Some((_, transform)) = self.transforms.iter().find(|(id, _)| *id == node) {
            return Ok(Upstream {
                port: transform.port.clone(),
                output: 0,
            });
        }
        let find = |source: &SourceNode| -> Option<(Handle<Port>, u32)> {
            let (_, stream) = source.streams.iter().find(|(id, _)| *id == node)?;
            Some((source.object.port.clone(), stream.0))
        };
        self.sources
            .iter()
            .find_map(find)
            .map(|(port, output)| Upstream { port, output })
            .ok_or_else(|| Error::invalid_request(format!("node {node} puts nothing out")))
    }
}

/// The descriptor with exactly these streams selected.
fn selection(
    presentation: &PresentationDescriptor,
    selected: &[StreamId],
    stream: StreamId,
) -> Result<PresentationDescriptor> {
    let mut descriptor = presentation.clone();
    descriptor.select_only(selected);
    if descriptor.stream(stream).is_none() {
        return Err(Error::invalid_argument(format!(
            "the source has no stream {stream}"
        )));
    }
    Ok(descriptor)
}

/// Sends a request to each of several actors and waits for all answers.
pub(super) async fn all<T, F: Future<Output = Result<T>>>(
    requests: impl IntoIterator<Item = F>,
) -> Result<Vec<T>> {
    try_join_all(requests).await
}
