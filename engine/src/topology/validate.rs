//! What must hold before a topology is accepted at all; the rest the loader finds.

use std::collections::BTreeMap;

use super::{NodeId, NodeKind, ObjectRef, Topology, TopologyNode};
use crate::error::{Result, TopologyFault};

/// Most nodes of an application behind each other; the loader goes down a branch by recursion.
const MAX_BRANCH: usize = 32;
/// The same with what the loader put in: a decoder and two converters for each link.
const MAX_FULL_BRANCH: usize = 4 * MAX_BRANCH;

impl Topology {
    /// Checks what can be checked without any object: called when a topology is set, before it is resolved.
    ///
    /// # Errors
    /// `Topology` with the fault. An empty topology is `Empty`; nodes that are not connected with a source and an output
    /// are the loader's to refuse.
    pub fn validate(&self) -> Result<()> {
        if self.nodes().is_empty() {
            return Err(TopologyFault::Empty.into());
        }
        if self.nodes().len() > Self::MAX_NODES {
            return Err(TopologyFault::TooManyNodes(self.nodes().len() as u64).into());
        }
        if self.connections().len() > Self::MAX_CONNECTIONS {
            return Err(TopologyFault::TooManyConnections(self.connections().len() as u64).into());
        }
        for node in self.nodes() {
            check_source(node)?;
            if node.optional && !matches!(node.kind, NodeKind::Transform { .. }) {
                return Err(TopologyFault::InvalidOptionalNode(node.id.0).into());
            }
        }
        for source in self.sources() {
            let mut taken = BTreeMap::new();
            for (node, stream) in source.streams {
                if taken.insert(stream, node).is_some() {
                    return Err(TopologyFault::SourceStreamTaken(node.0).into());
                }
            }
        }
        for sink in self.sinks() {
            let mut taken = BTreeMap::new();
            for (node, stream) in sink.streams {
                if taken.insert(stream, node).is_some() {
                    return Err(TopologyFault::StreamSinkTaken(node.0).into());
                }
            }
        }
        self.ordered().map(|_| ())
    }

    /// The nodes, each after those that feed it.
    ///
    /// # Errors
    /// `Loop`, or `BranchTooLong`.
    pub fn ordered(&self) -> Result<Vec<NodeId>> {
        let mut waiting: BTreeMap<NodeId, usize> = self
            .nodes()
            .iter()
            .map(|node| (node.id, self.inputs(node.id).len()))
            .collect();
        let mut depths: BTreeMap<NodeId, Depth> = BTreeMap::new();
        let mut ready: Vec<NodeId> = waiting
            .iter()
            .filter(|(_, inputs)| **inputs == 0)
            .map(|(node, _)| *node)
            .collect();
        let mut order = Vec::with_capacity(waiting.len());
        while let Some(id) = ready.pop() {
            let before = depths.remove(&id).unwrap_or_default();
            let depth = before.and(self.require(id)?);
            if depth.own > MAX_BRANCH || depth.all > MAX_FULL_BRANCH {
                return Err(TopologyFault::BranchTooLong(id.0).into());
            }
            waiting.remove(&id);
            order.push(id);
            for link in self.outputs(id) {
                let deepest = depths.entry(link.to).or_default();
                *deepest = deepest.max(depth);
                if let Some(inputs) = waiting.get_mut(&link.to) {
                    *inputs -= 1;
                    if *inputs == 0 {
                        ready.push(link.to);
                    }
                }
            }
        }
        match waiting.keys().next() {
            Some(node) => Err(TopologyFault::Loop(node.0).into()),
            None => Ok(order),
        }
    }
}

/// How many nodes lie in a row up to a node.
#[derive(Clone, Copy, Default)]
struct Depth {
    own: usize,
    all: usize,
}

impl Depth {
    fn and(self, node: &TopologyNode) -> Self {
        Self {
            own: self.own + usize::from(node.inserted.is_none()),
            all: self.all + 1,
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            own: self.own.max(other.own),
            all: self.all.max(other.all),
        }
    }
}

fn check_source(node: &TopologyNode) -> Result<()> {
    let NodeKind::SourceStream {
        source,
        stream,
        descriptor,
    } = &node.kind
    else {
        return Ok(());
    };
    let id = node.id.0;
    let Some(source) = source else {
        return Err(TopologyFault::MissingSource(id).into());
    };
    let Some(descriptor) = descriptor else {
        return match source {
            // A live source was asked for its descriptor before its handle could be put into a topology.
            ObjectRef::Object(_) => Err(TopologyFault::MissingPresentationDescriptor(id).into()),
            _ => Ok(()),
        };
    };
    match descriptor.stream(*stream) {
        None => Err(TopologyFault::MissingStreamDescriptor(id).into()),
        Some(stream) if !stream.selected => Err(TopologyFault::StreamNotSelected(id).into()),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};
    use crate::media::{MediaType, Subtype, TimeBase};
    use crate::presentation::{PresentationDescriptor, StreamDescriptor, StreamId};
    use crate::topology::{ObjectId, Placement};

    fn fault(result: Result<()>) -> TopologyFault {
        match result.expect_err("is refused").kind() {
            ErrorKind::Topology(fault) => fault.clone(),
            other => panic!("{other}"),
        }
    }

    fn descriptor() -> PresentationDescriptor {
        let sound = MediaType::audio(Subtype::PCM_S16, 48_000, 2);
        PresentationDescriptor {
            streams: vec![StreamDescriptor::new(StreamId(0), sound, TimeBase::TICKS)],
            ..PresentationDescriptor::default()
        }
    }

    fn of(kind: NodeKind) -> Topology {
        let mut topology = Topology::new();
        let source = topology.add_node(kind);
        let sink = topology.add_node(NodeKind::output(ObjectRef::activation("sink.null"), 0));
        topology.connect(source, 0, sink, 0).expect("connects");
        topology
    }

    #[test]
    fn d04_a_source_node_needs_a_source() {
        let topology = of(NodeKind::SourceStream {
            source: None,
            stream: StreamId(0),
            descriptor: Some(Box::new(descriptor())),
        });
        assert_eq!(fault(topology.validate()), TopologyFault::MissingSource(1));
    }

    #[test]
    fn d05_descriptors_are_there_and_selected() {
        let live = || ObjectRef::Object(ObjectId(4));
        assert_eq!(fault(Topology::new().validate()), TopologyFault::Empty);
        assert_eq!(
            fault(of(NodeKind::source(live(), StreamId(0))).validate()),
            TopologyFault::MissingPresentationDescriptor(1)
        );
        let missing = NodeKind::described(live(), StreamId(1), descriptor());
        assert_eq!(
            fault(of(missing).validate()),
            TopologyFault::MissingStreamDescriptor(1)
        );
        let mut deselected = descriptor();
        deselected.select_only(&[]);
        let deselected = NodeKind::described(live(), StreamId(0), deselected);
        assert_eq!(
            fault(of(deselected).validate()),
            TopologyFault::StreamNotSelected(1)
        );
        of(NodeKind::described(live(), StreamId(0), descriptor()))
            .validate()
            .expect("is whole");
        of(NodeKind::source(ObjectRef::url("a.wav"), StreamId(0)))
            .validate()
            .expect("is opened later");
    }

    #[test]
    fn loops_long_branches_and_shared_streams_are_refused() {
        let transform = || NodeKind::transform(ObjectRef::activation("t"));
        let mut looped = of(NodeKind::source(ObjectRef::url("a"), StreamId(0)));
        let (a, b) = (looped.add_node(transform()), looped.add_node(transform()));
        looped.connect(a, 0, b, 0).expect("connects");
        looped.connect(b, 0, a, 0).expect("connects");
        assert_eq!(fault(looped.validate()), TopologyFault::Loop(a.0));

        let mut long = Topology::new();
        let mut last = long.add_node(NodeKind::source(ObjectRef::url("a"), StreamId(0)));
        for _ in 0..MAX_BRANCH {
            let next = long.add_node(transform());
            long.connect(last, 0, next, 0).expect("connects");
            last = next;
        }
        assert_eq!(fault(long.validate()), TopologyFault::BranchTooLong(last.0));

        let mut split = of(NodeKind::source(ObjectRef::url("a"), StreamId(0)));
        let second = split.add_node(NodeKind::source(ObjectRef::url("a"), StreamId(0)));
        assert_eq!(
            fault(split.validate()),
            TopologyFault::SourceStreamTaken(second.0)
        );

        let mut shared = of(NodeKind::source(ObjectRef::url("a"), StreamId(0)));
        let second = shared.add_node(NodeKind::output(ObjectRef::activation("sink.null"), 0));
        assert_eq!(
            fault(shared.validate()),
            TopologyFault::StreamSinkTaken(second.0)
        );
    }

    #[test]
    fn a_node_placed_elsewhere_is_refused() {
        let mut topology = of(NodeKind::source(ObjectRef::url("a"), StreamId(0)));
        topology.node_mut(NodeId(2)).expect("is there").placement = Some(Placement::Isolated);
        topology
            .check_placement(Placement::Isolated)
            .expect("the session's own");
        let error: Error = topology
            .check_placement(Placement::InProcess)
            .expect_err("another one");
        assert_eq!(error.kind(), &ErrorKind::NodePlacementUnsupported);
        assert_eq!(error.place().node.as_deref(), Some("2 sink.null"));
    }
}
