//! Those whom the loader asks: the objects of a topology, found or made.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use portcullis_engine::component::Role;
use portcullis_engine::loader::{self, Negotiate};
use portcullis_engine::topology::{NodeId, NodeKind, ObjectId, ObjectRef, Topology};
use portcullis_engine::{Error, MediaType, PresentationDescriptor, Result};

use tracing::Instrument;

use super::{NodeObject, SinkNode, Surroundings, node_span};
use crate::host::{CreateObject, CreatedObject, create_object};
use crate::pipeline::opener::OpenUrl;
use crate::pipeline::resolver;
use crate::pipeline::sink::{SetSinkType, SinkObject};
use crate::pipeline::source::SourceObject;
use crate::pipeline::transform::{SetInputType, SetOutputType, TransformObject};

pub(super) async fn find_source(
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

pub(super) async fn find_sink(
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

pub(super) fn not_there(object: &ObjectRef) -> Error {
    Error::invalid_request(format!(
        "{object} did not come with the topology, or is of another role"
    ))
}

/// Those that the loader asks.
pub(super) struct Parties<'a> {
    with: &'a Surroundings,
    objects: &'a HashMap<ObjectId, NodeObject>,
    transforms: RefCell<HashMap<(NodeId, String), TransformObject>>,
    sinks: &'a [SinkNode],
}

impl<'a> Parties<'a> {
    pub(super) fn new(
        with: &'a Surroundings,
        objects: &'a HashMap<ObjectId, NodeObject>,
        sinks: &'a [SinkNode],
    ) -> Self {
        Self {
            with,
            objects,
            transforms: RefCell::default(),
            sinks,
        }
    }

    /// The transforms that were made, also those that were only tried.
    pub(super) fn into_transforms(self) -> HashMap<(NodeId, String), TransformObject> {
        self.transforms.into_inner()
    }

    /// A topology that is full already, with its objects made.
    pub(super) async fn as_it_is(
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
        let CreatedObject::Transform(made, _) = activate(self.with, object)
            .instrument(node_span(node))
            .await?
        else {
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
        loader::candidates(self.with.registry.components(), role, input)
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
