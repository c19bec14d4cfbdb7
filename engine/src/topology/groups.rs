//! Which nodes share an object: the streams of one source, the streams of one sink.

use super::{NodeId, NodeKind, ObjectRef, Topology};
use crate::presentation::{Characteristics, PresentationDescriptor, StreamId};

/// The nodes of one source.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceGroup {
    /// The first of its nodes, which stands for the source in events and reports.
    pub node: NodeId,
    /// The source.
    pub object: ObjectRef,
    /// What it offers, where a node has a descriptor.
    pub descriptor: Option<Box<PresentationDescriptor>>,
    /// Its nodes and the stream that each delivers.
    pub streams: Vec<(NodeId, StreamId)>,
}

impl SourceGroup {
    /// What the source can do; nothing where it is not described.
    pub fn characteristics(&self) -> Characteristics {
        self.descriptor
            .as_ref()
            .map(|descriptor| descriptor.characteristics)
            .unwrap_or_default()
    }
}

/// The nodes of one sink.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkGroup {
    /// The first of its nodes, which stands for the sink in events and reports.
    pub node: NodeId,
    /// The sink.
    pub object: ObjectRef,
    /// Its nodes and the stream of the sink that each feeds.
    pub streams: Vec<(NodeId, u32)>,
}

impl Topology {
    /// The sources: source nodes with equal references share one. Nodes without a source are left out.
    pub fn sources(&self) -> Vec<SourceGroup> {
        let mut groups: Vec<SourceGroup> = Vec::new();
        for node in self.nodes() {
            let NodeKind::SourceStream {
                source: Some(object),
                stream,
                descriptor,
            } = &node.kind
            else {
                continue;
            };
            match groups.iter_mut().find(|group| group.object == *object) {
                Some(group) => {
                    group.streams.push((node.id, *stream));
                    if group.descriptor.is_none() {
                        group.descriptor.clone_from(descriptor);
                    }
                }
                None => groups.push(SourceGroup {
                    node: node.id,
                    object: object.clone(),
                    descriptor: descriptor.clone(),
                    streams: vec![(node.id, *stream)],
                }),
            }
        }
        groups
    }

    /// The sinks: output nodes with equal references share one.
    pub fn sinks(&self) -> Vec<SinkGroup> {
        let mut groups: Vec<SinkGroup> = Vec::new();
        for node in self.nodes() {
            let NodeKind::Output { object, stream } = &node.kind else {
                continue;
            };
            match groups.iter_mut().find(|group| group.object == *object) {
                Some(group) => group.streams.push((node.id, *stream)),
                None => groups.push(SinkGroup {
                    node: node.id,
                    object: object.clone(),
                    streams: vec![(node.id, *stream)],
                }),
            }
        }
        groups
    }
}
