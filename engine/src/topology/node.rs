//! Nodes: what they stand for and how the loader may treat them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{NodeId, serial};
use crate::component::{Role, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::media::{Attributes, MediaType};
use crate::presentation::{PresentationDescriptor, StreamDescriptor, StreamId};

/// A live object, as a key into the table of handles that the actors keep beside a topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectId(pub u64);

/// What is needed to create a component.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activation {
    /// The class id.
    pub class: String,
    /// Its settings; in a file also written as a table.
    #[serde(default, with = "serial::settings")]
    pub settings: Settings,
    /// Tells apart two objects of the same class and settings: output nodes with equal activations are streams of one sink.
    #[serde(default)]
    pub instance: u32,
}

/// The object behind a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ObjectRef {
    /// Created where the session runs.
    Activation(Activation),
    /// Alive already, somewhere.
    Object(ObjectId),
    /// A source that is to be opened; nodes with the same URL share one source.
    Url(String),
}

impl ObjectRef {
    /// A class with default settings.
    pub fn activation(class: impl Into<String>) -> Self {
        Self::with_settings(class, Settings::default())
    }

    /// A class with settings.
    pub fn with_settings(class: impl Into<String>, settings: Settings) -> Self {
        Self::Activation(Activation {
            class: class.into(),
            settings,
            instance: 0,
        })
    }

    /// A source by URL or path.
    pub fn url(url: impl Into<String>) -> Self {
        Self::Url(url.into())
    }

    /// The class, where the object is an activation.
    pub fn class(&self) -> Option<&str> {
        match self {
            Self::Activation(activation) => Some(&activation.class),
            _ => None,
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Activation(activation) => out.write_str(&activation.class),
            Self::Object(id) => write!(out, "object {}", id.0),
            Self::Url(url) => out.write_str(url),
        }
    }
}

/// What a node does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum NodeKind {
    /// One stream of a source.
    SourceStream {
        /// The source; a topology without it is refused.
        #[serde(default)]
        source: Option<ObjectRef>,
        /// Which of its streams.
        stream: StreamId,
        /// What the source offers; needed for a live source, learned by opening for others.
        #[serde(default)]
        descriptor: Option<Box<PresentationDescriptor>>,
    },
    /// A transform.
    Transform {
        /// The transform.
        object: ObjectRef,
    },
    /// One stream of a sink.
    Output {
        /// The sink.
        object: ObjectRef,
        /// Which of its streams.
        #[serde(default)]
        stream: u32,
    },
    /// Gives each sample of its input to every output.
    Tee,
}

impl NodeKind {
    /// A source's stream, whose descriptor is learned by opening.
    pub fn source(source: ObjectRef, stream: StreamId) -> Self {
        Self::SourceStream {
            source: Some(source),
            stream,
            descriptor: None,
        }
    }

    /// A live source's stream.
    pub fn described(
        source: ObjectRef,
        stream: StreamId,
        descriptor: PresentationDescriptor,
    ) -> Self {
        Self::SourceStream {
            source: Some(source),
            stream,
            descriptor: Some(Box::new(descriptor)),
        }
    }

    /// A transform.
    pub fn transform(object: ObjectRef) -> Self {
        Self::Transform { object }
    }

    /// A sink's stream.
    pub fn output(object: ObjectRef, stream: u32) -> Self {
        Self::Output { object, stream }
    }

    /// The object behind the node; a tee has none.
    pub fn object(&self) -> Option<&ObjectRef> {
        match self {
            Self::SourceStream { source, .. } => source.as_ref(),
            Self::Transform { object } | Self::Output { object, .. } => Some(object),
            Self::Tee => None,
        }
    }

    /// Whether a node of this kind can have this input.
    pub fn has_input(&self, input: u32) -> bool {
        match self {
            Self::SourceStream { .. } => false,
            Self::Transform { .. } => true,
            Self::Output { .. } | Self::Tee => input == 0,
        }
    }

    /// Whether a node of this kind can have this output.
    pub fn has_output(&self, output: u32) -> bool {
        match self {
            Self::SourceStream { .. } => output == 0,
            Self::Transform { .. } | Self::Tee => true,
            Self::Output { .. } => false,
        }
    }
}

/// What the loader may put in front of a node to make a connection.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectMethod {
    /// Nothing.
    Direct,
    /// Converters.
    AllowConverter,
    /// A decoder and converters.
    #[default]
    AllowDecoder,
}

/// Where a session, or one day a single node, runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Placement {
    /// In the application's process.
    InProcess,
    /// In a host process that takes clear content only.
    Isolated,
    /// In a verified, sandboxed host process.
    Protected,
}

impl fmt::Display for Placement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::InProcess => "in-process",
            Self::Isolated => "isolated",
            Self::Protected => "protected",
        })
    }
}

/// A type that the flow through one input or output should have. It may be partial: what it names must be met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreferredType {
    /// Which input or output.
    #[serde(default)]
    pub index: u32,
    /// The type.
    pub media_type: MediaType,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopologyNode {
    /// The node's id in its topology.
    pub id: NodeId,
    /// What it does.
    pub kind: NodeKind,
    /// What the loader may put in front of it.
    #[serde(default)]
    pub connect: ConnectMethod,
    /// Whether it may be dropped where it does not fit.
    #[serde(default)]
    pub optional: bool,
    /// Where it runs, if not with its session.
    #[serde(default)]
    pub placement: Option<Placement>,
    /// The role in which the loader put it in; `None` for the application's own nodes.
    #[serde(default)]
    pub inserted: Option<Role>,
    /// Preferred types of inputs, by index; [`TopologyNode::prefer_input`] sets them.
    #[serde(default)]
    pub input_types: Vec<PreferredType>,
    /// Preferred types of outputs, by index; [`TopologyNode::prefer_output`] sets them.
    #[serde(default)]
    pub output_types: Vec<PreferredType>,
    /// Whatever else an application attached; the loader keeps it.
    #[serde(default)]
    pub attributes: Attributes,
}

impl TopologyNode {
    /// A node with defaults for all but its kind.
    pub fn new(id: NodeId, kind: NodeKind) -> Self {
        Self {
            id,
            kind,
            connect: ConnectMethod::default(),
            optional: false,
            placement: None,
            inserted: None,
            input_types: Vec::new(),
            output_types: Vec::new(),
            attributes: Attributes::new(),
        }
    }

    /// The descriptor of a source node's stream, where the node has a descriptor.
    pub fn stream_descriptor(&self) -> Option<&StreamDescriptor> {
        match &self.kind {
            NodeKind::SourceStream {
                stream, descriptor, ..
            } => descriptor.as_ref()?.stream(*stream),
            _ => None,
        }
    }

    /// The preferred type of an input.
    pub fn preferred_input(&self, index: u32) -> Option<&MediaType> {
        preferred(&self.input_types, index)
    }

    /// The preferred type of an output.
    pub fn preferred_output(&self, index: u32) -> Option<&MediaType> {
        preferred(&self.output_types, index)
    }

    /// Prefers a type for an input.
    ///
    /// # Errors
    /// `Unsupported` for a source node; `InvalidArgument` for an input that the kind cannot have.
    pub fn prefer_input(&mut self, index: u32, media_type: MediaType) -> Result<()> {
        if matches!(self.kind, NodeKind::SourceStream { .. }) {
            return Err(unsupported("an input type of a source node"));
        }
        if !self.kind.has_input(index) {
            return Err(no_slot(self.id, "input", index));
        }
        set_preferred(&mut self.input_types, index, media_type);
        Ok(())
    }

    /// Prefers a type for an output.
    ///
    /// # Errors
    /// `Unsupported` for an output node; `InvalidArgument` for an output that the kind cannot have, and for a tee, whose
    /// outputs all carry the type of its input.
    pub fn prefer_output(&mut self, index: u32, media_type: MediaType) -> Result<()> {
        if matches!(self.kind, NodeKind::Output { .. }) {
            return Err(unsupported("an output type of an output node"));
        }
        if matches!(self.kind, NodeKind::Tee) || !self.kind.has_output(index) {
            return Err(no_slot(self.id, "output", index));
        }
        set_preferred(&mut self.output_types, index, media_type);
        Ok(())
    }

    /// Takes over everything of a node of the same kind, the id too; preferred types that `other` lacks stay.
    ///
    /// # Errors
    /// `InvalidRequest` where the kinds differ.
    pub fn copy_from(&mut self, other: &Self) -> Result<()> {
        if std::mem::discriminant(&self.kind) != std::mem::discriminant(&other.kind) {
            return Err(Error::invalid_request(
                "a node can only be copied from a node of its kind",
            ));
        }
        let mut copy = other.clone();
        for (own, new) in [
            (&self.input_types, &mut copy.input_types),
            (&self.output_types, &mut copy.output_types),
        ] {
            for kept in own {
                if preferred(new, kept.index).is_none() {
                    set_preferred(new, kept.index, kept.media_type.clone());
                }
            }
        }
        *self = copy;
        Ok(())
    }

    /// The node for messages: its id and what is behind it.
    pub fn label(&self) -> String {
        match self.kind.object() {
            Some(object) => format!("{} {object}", self.id),
            None => format!("{} tee", self.id),
        }
    }
}

fn preferred(types: &[PreferredType], index: u32) -> Option<&MediaType> {
    types
        .iter()
        .find(|t| t.index == index)
        .map(|t| &t.media_type)
}

fn set_preferred(types: &mut Vec<PreferredType>, index: u32, media_type: MediaType) {
    match types.iter_mut().find(|t| t.index == index) {
        Some(slot) => slot.media_type = media_type,
        None => types.push(PreferredType { index, media_type }),
    }
}

fn unsupported(what: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported { what: what.into() })
}

fn no_slot(node: NodeId, side: &str, index: u32) -> Error {
    Error::invalid_argument(format!(
        "node {node} has no {side} {index} with a type of its own"
    ))
}
