//! The topology that a session plays, with what is known of its progress.

use std::collections::BTreeSet;

use crate::event::{CommandId, TopologyStatus};
use crate::media::MediaTime;
use crate::topology::{NodeId, NodeKind, SinkGroup, SourceGroup, Topology};

/// A component as the session waits for it: a node, or one stream of it.
pub(super) type Part = (NodeId, Option<u32>);

#[derive(Clone, Debug)]
pub(super) struct Presentation {
    /// The command that set its topology.
    pub(super) set_by: CommandId,
    pub(super) topology: Topology,
    pub(super) sources: Vec<SourceGroup>,
    pub(super) sinks: Vec<SinkGroup>,
    /// The status that was announced last; none after an end, when it is ready without saying so.
    pub(super) status: Option<TopologyStatus>,
    /// Source nodes and output nodes that have ended or failed.
    pub(super) ended: BTreeSet<NodeId>,
    /// Nodes behind which nobody is any more: they answer nothing.
    pub(super) lost: BTreeSet<NodeId>,
    /// Sources that wait for data; the clock stands still.
    pub(super) buffering: BTreeSet<NodeId>,
    pub(super) end_announced: bool,
    /// Whether sources were started before, so that another start from the beginning must say where that is.
    pub(super) was_started: bool,
    pub(super) has_ended: bool,
    /// Whether a node has failed or is gone: what it was to read may never be read to its end.
    pub(super) has_failed: bool,
}

impl Presentation {
    pub(super) fn new(set_by: CommandId, topology: Topology) -> Self {
        Self {
            set_by,
            sources: topology.sources(),
            sinks: topology.sinks(),
            topology,
            status: None,
            ended: BTreeSet::new(),
            lost: BTreeSet::new(),
            buffering: BTreeSet::new(),
            end_announced: false,
            was_started: false,
            has_ended: false,
            has_failed: false,
        }
    }

    /// The sources, each by its first node.
    pub(super) fn source_nodes(&self) -> Vec<NodeId> {
        self.sources.iter().map(|source| source.node).collect()
    }

    /// The sources and each of their streams.
    pub(super) fn source_parts(&self) -> BTreeSet<Part> {
        let streams = self.sources.iter().flat_map(|source| &source.streams);
        let streams = streams.map(|(node, stream)| (*node, Some(stream.0)));
        let wholes = self.sources.iter().map(|source| (source.node, None));
        wholes.chain(streams).collect()
    }

    /// The parts of one source.
    pub(super) fn parts_of(&self, source: NodeId) -> BTreeSet<Part> {
        let group = self.sources.iter().find(|group| group.node == source);
        let streams = group.iter().flat_map(|group| &group.streams);
        streams
            .map(|(node, stream)| (*node, Some(stream.0)))
            .chain([(source, None)])
            .collect()
    }

    /// The output nodes.
    pub(super) fn output_nodes(&self) -> Vec<NodeId> {
        let streams = self.sinks.iter().flat_map(|sink| &sink.streams);
        streams.map(|(node, _)| *node).collect()
    }

    /// The output nodes with their streams.
    pub(super) fn output_parts(&self) -> BTreeSet<Part> {
        let streams = self.sinks.iter().flat_map(|sink| &sink.streams);
        streams
            .map(|(node, stream)| (*node, Some(*stream)))
            .collect()
    }

    /// Transforms and tees.
    pub(super) fn inner_nodes(&self) -> Vec<NodeId> {
        let inner = self
            .topology
            .nodes()
            .iter()
            .filter(|node| matches!(node.kind, NodeKind::Transform { .. } | NodeKind::Tee));
        inner.map(|node| node.id).collect()
    }

    /// The component that an event names: its node is there, and its stream is the node's. An output node is one stream.
    pub(super) fn part(&self, node: NodeId, stream: Option<u32>) -> Option<Part> {
        match (&self.topology.node(node)?.kind, stream) {
            (NodeKind::Output { stream: own, .. }, None) => Some((node, Some(*own))),
            (_, None) => Some((node, None)),
            (NodeKind::SourceStream { stream: own, .. }, Some(stream)) if own.0 == stream => {
                Some((node, Some(stream)))
            }
            (NodeKind::Output { stream: own, .. }, Some(stream)) if *own == stream => {
                Some((node, Some(stream)))
            }
            _ => None,
        }
    }

    /// What stands still when this fails: of a whole source or sink everything, of a stream the stream.
    pub(super) fn parts_of_failure(&self, node: NodeId, stream: Option<u32>) -> BTreeSet<Part> {
        match (self.source_of(node), self.sink_of(node)) {
            (Some(source), _) if source == node && stream.is_none() => self.parts_of(source),
            (Some(source), _) => {
                let parts = self.parts_of(source).into_iter();
                parts.filter(|p| p.0 == node && p.1.is_some()).collect()
            }
            (None, Some(sink)) if stream.is_none() => {
                let streams = sink.streams.iter();
                streams.map(|(node, own)| (*node, Some(*own))).collect()
            }
            (None, _) => BTreeSet::from([(node, stream)]),
        }
    }

    /// The nodes behind which nobody is any more when this one is lost: a sink has one for each of its streams.
    pub(super) fn nodes_of_loss(&self, node: NodeId) -> BTreeSet<NodeId> {
        match self.sink_of(node) {
            Some(sink) => sink.streams.iter().map(|(node, _)| *node).collect(),
            None => BTreeSet::from([node]),
        }
    }

    /// The sink that an output node belongs to.
    fn sink_of(&self, node: NodeId) -> Option<&SinkGroup> {
        let mut groups = self.sinks.iter();
        groups.find(|group| group.streams.iter().any(|(n, _)| *n == node))
    }

    /// The first node of the source that a source node belongs to.
    pub(super) fn source_of(&self, node: NodeId) -> Option<NodeId> {
        let mut groups = self.sources.iter();
        let group = groups.find(|group| group.streams.iter().any(|(n, _)| *n == node))?;
        Some(group.node)
    }

    /// The length, where all sources know theirs.
    pub(super) fn duration(&self) -> Option<MediaTime> {
        let lengths = self
            .sources
            .iter()
            .map(|source| source.descriptor.as_ref()?.duration);
        lengths.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    pub(super) fn can_seek(&self) -> bool {
        self.sources.iter().all(|s| s.characteristics().can_seek)
    }

    pub(super) fn can_pause(&self) -> bool {
        self.sources.iter().all(|s| s.characteristics().can_pause)
    }

    /// Forgets what ended: samples flow again.
    pub(super) fn begin_flow(&mut self) {
        self.ended.clone_from(&self.lost);
        self.buffering.clear();
        self.end_announced = false;
        self.was_started = true;
        self.has_ended = false;
        self.has_failed = !self.lost.is_empty();
    }

    pub(super) fn all_streams_ended(&self) -> bool {
        let mut streams = self.sources.iter().flat_map(|source| &source.streams);
        streams.all(|(node, _)| self.ended.contains(node))
    }

    /// Whether nothing is left to render, and every source has said that it was read to its end: the two come from
    /// different actors, the second after the first when the source is in another process.
    pub(super) fn is_over(&self) -> bool {
        let mut outputs = self.output_nodes().into_iter();
        outputs.all(|node| self.ended.contains(&node))
            && (self.has_failed || self.all_streams_ended())
    }
}
