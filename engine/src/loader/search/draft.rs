//! What the search has decided so far; decisions are taken back in the reverse order.

use crate::component::Role;
use crate::error::Result;
use crate::loader::merged;
use crate::media::MediaType;
use crate::topology::{NodeId, NodeKind, ObjectRef, Topology, TopologyNode};

/// The decisions.
pub(in crate::loader) struct Draft {
    first_id: u64,
    inserted: Vec<TopologyNode>,
    links: Vec<(NodeId, u32, NodeId, MediaType)>,
    pub(in crate::loader) dropped: Vec<NodeId>,
}

/// A point to go back to.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    inserted: usize,
    links: usize,
    dropped: usize,
}

impl Draft {
    pub(super) fn new(first_id: NodeId) -> Self {
        Self {
            first_id: first_id.0,
            inserted: Vec::new(),
            links: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// The id of the node that would be put in next.
    pub(super) fn next_id(&self) -> NodeId {
        NodeId(self.first_id + self.inserted.len() as u64)
    }

    pub(super) fn insert(&mut self, id: NodeId, object: ObjectRef, role: Role, output: MediaType) {
        let mut node = TopologyNode::new(id, NodeKind::transform(object));
        node.inserted = Some(role);
        // Fixes the choice: a full topology resolves to itself.
        node.output_types.push(crate::topology::PreferredType {
            index: 0,
            media_type: output,
        });
        self.inserted.push(node);
    }

    pub(super) fn link(&mut self, from: NodeId, output: u32, to: NodeId, media_type: MediaType) {
        self.links.push((from, output, to, media_type));
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            inserted: self.inserted.len(),
            links: self.links.len(),
            dropped: self.dropped.len(),
        }
    }

    pub(super) fn take_back(&mut self, mark: Mark) {
        self.inserted.truncate(mark.inserted);
        self.links.truncate(mark.links);
        self.dropped.truncate(mark.dropped);
    }

    /// The full topology.
    pub(in crate::loader) fn apply(self, mut topology: Topology) -> Result<Topology> {
        topology.resolution = Some(merged(topology.resolution, !self.dropped.is_empty()));
        for id in self.dropped {
            topology.remove_node(id)?;
        }
        for node in self.inserted {
            topology.insert_node(node)?;
        }
        topology.disconnect_all();
        for (from, output, to, media_type) in self.links {
            topology.connect(from, output, to, 0)?;
            topology.set_link_type(from, output, media_type)?;
        }
        Ok(topology)
    }
}
