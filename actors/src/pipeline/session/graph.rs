//! From a topology to connected actors: objects are created, the loader asks them, links are made.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use actix::SpawnHandle;
use futures::FutureExt;
use futures::future::{LocalBoxFuture, try_join_all};
use portcullis_engine::component::Role;
use portcullis_engine::loader::{self, Attempt, Negotiate};
use portcullis_engine::source::SourceMachine;
use portcullis_engine::topology::{NodeId, NodeKind, ObjectId, ObjectRef, Placement, Topology};
use portcullis_engine::{Error, ErrorKind, MediaType, PresentationDescriptor, Result, StreamId};
use serde::{Deserialize, Serialize};

use crate::bridge::Handle;
use crate::host::{CreateObject, CreatedObject, PmpHost, create_object};
use crate::pipeline::opener::{OpenUrl, Opener};
use crate::pipeline::port::Port;
use crate::pipeline::resolver;
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
}

/// One sink; the node is the first of its streams' nodes.
#[derive(Clone, Debug)]
pub(super) struct SinkNode {
    pub(super) node: NodeId,
    pub(super) object: SinkObject,
    pub(super) streams: Vec<(NodeId, u32)>,
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
            streams: group.streams,
        });
    }
    let mut sinks = Vec::new();
    for group in topology.sinks() {
        let object = find_sink(with, &group.object, &objects)
            .await
            .map_err(|error| error.at_node(group.object.to_string()))?;
        sinks.push(SinkNode {
            node: group.node,
            object,
            streams: group.streams,
        });
    }
    let parties = Parties {
        with,
        objects: &objects,
        transforms: RefCell::default(),
        sinks: &sinks,
    };
    let (full, attempts) = if resolve {
        let resolved = loader::load(topology, &descriptors, &parties).await?;
        (resolved.topology, resolved.attempts)
    } else {
        (parties.as_it_is(topology, &descriptors).await?, Vec::new())
    };
    let mut made = parties.transforms.into_inner();
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

async fn find_source(
    with: &Surroundings,
    object: &ObjectRef,
    objects: &HashMap<ObjectId, NodeObject>,
) -> Result<SourceObject> {
    match object {
        ObjectRef::Object(id) => match objects.get(id) {
            Some(NodeObject::Source(object)) => Ok(object.clone()),
            _ => Err(not_there(object)),
        },
        ObjectRef::Url(url) => {
            let stream = with.opener.send(OpenUrl { url: url.clone() }).await?;
            resolver::resolve(Arc::clone(&with.registry), stream, with.environment.limits).await
        }
        ObjectRef::Activation(_) => match activate(with, object).await? {
            CreatedObject::Source(object) => Ok(object),
            _ => Err(Error::invalid_request(format!("{object} is not a source"))),
        },
        _ => Err(not_there(object)),
    }
}

async fn find_sink(
    with: &Surroundings,
    object: &ObjectRef,
    objects: &HashMap<ObjectId, NodeObject>,
) -> Result<SinkObject> {
    match object {
        ObjectRef::Object(id) => match objects.get(id) {
            Some(NodeObject::Sink(object)) => Ok(object.clone()),
            _ => Err(not_there(object)),
        },
        ObjectRef::Activation(_) => match activate(with, object).await? {
            CreatedObject::Sink(object) => Ok(object),
            _ => Err(Error::invalid_request(format!("{object} is not a sink"))),
        },
        _ => Err(not_there(object)),
    }
}

async fn activate(with: &Surroundings, object: &ObjectRef) -> Result<CreatedObject> {
    let ObjectRef::Activation(activation) = object else {
        return Err(not_there(object));
    };
    let request = CreateObject {
        class: activation.class.clone(),
        settings: activation.settings.clone(),
        opener: Some(with.opener.clone()),
        limits: with.environment.limits,
    };
    create_object(
        Arc::clone(&with.registry),
        with.environment.clone(),
        request,
    )
    .await
}

fn not_there(object: &ObjectRef) -> Error {
    Error::invalid_request(format!(
        "{object} did not come with the topology, or is of another role"
    ))
}

/// Those that the loader asks.
struct Parties<'a> {
    with: &'a Surroundings,
    objects: &'a HashMap<ObjectId, NodeObject>,
    transforms: RefCell<HashMap<(NodeId, String), TransformObject>>,
    sinks: &'a [SinkNode],
}

impl Parties<'_> {
    /// A topology that is full already, with its objects made.
    async fn as_it_is(
        &self,
        topology: &Topology,
        descriptors: &BTreeMap<NodeId, PresentationDescriptor>,
    ) -> Result<Topology> {
        topology.validate()?;
        let mut full = topology.clone();
        for (id, known) in descriptors {
            if let Some(NodeKind::SourceStream { descriptor, .. }) =
                full.node_mut(*id).map(|node| &mut node.kind)
            {
                descriptor.get_or_insert_with(|| Box::new(known.clone()));
            }
        }
        for node in topology.nodes() {
            if let NodeKind::Transform { object } = &node.kind {
                self.transform(node.id, object).await?;
            }
        }
        Ok(full)
    }

    async fn transform(&self, node: NodeId, object: &ObjectRef) -> Result<TransformObject> {
        if let ObjectRef::Object(id) = object {
            return match self.objects.get(id) {
                Some(NodeObject::Transform(object)) => Ok(object.clone()),
                _ => Err(not_there(object)),
            };
        }
        let key = (node, object.to_string());
        if let Some(known) = self.transforms.borrow().get(&key) {
            return Ok(known.clone());
        }
        let CreatedObject::Transform(made, _) = activate(self.with, object).await? else {
            return Err(Error::invalid_request(format!(
                "{object} is not a transform"
            )));
        };
        self.transforms.borrow_mut().insert(key, made.clone());
        Ok(made)
    }
}

impl Negotiate for Parties<'_> {
    fn candidates(&self, role: Role, input: &MediaType) -> Vec<String> {
        self.with
            .registry
            .components()
            .candidates(|info| info.role == role && info.takes(input.subtype))
            .into_iter()
            .map(|entry| entry.info().class.to_owned())
            .collect()
    }

    fn try_transform<'a>(
        &'a self,
        node: NodeId,
        object: &'a ObjectRef,
        input: &'a MediaType,
    ) -> LocalBoxFuture<'a, Result<Vec<MediaType>>> {
        async move {
            let transform = self.transform(node, object).await?;
            let media_type = input.clone();
            transform.control.send(SetInputType { media_type }).await
        }
        .boxed_local()
    }

    fn try_transform_output<'a>(
        &'a self,
        node: NodeId,
        object: &'a ObjectRef,
        output: &'a MediaType,
    ) -> LocalBoxFuture<'a, Result<()>> {
        async move {
            let transform = self.transform(node, object).await?;
            let media_type = output.clone();
            transform.control.send(SetOutputType { media_type }).await
        }
        .boxed_local()
    }

    fn try_output<'a>(
        &'a self,
        node: NodeId,
        _: &'a ObjectRef,
        stream: u32,
        media_type: &'a MediaType,
    ) -> LocalBoxFuture<'a, Result<()>> {
        async move {
            let sink = self
                .sinks
                .iter()
                .find(|sink| sink.streams.iter().any(|(id, _)| *id == node))
                .ok_or_else(|| Error::invalid_request(format!("node {node} has no sink")))?;
            let media_type = media_type.clone();
            sink.object
                .control
                .send(SetSinkType { stream, media_type })
                .await
        }
        .boxed_local()
    }
}

/// Sends a request to each of several actors and waits for all answers.
pub(super) async fn all<T, F: Future<Output = Result<T>>>(
    requests: impl IntoIterator<Item = F>,
) -> Result<Vec<T>> {
    try_join_all(requests).await
}
