//! A graph of nodes as data: what a session is asked to play, and what the loader makes of it.
//!
//! A topology is a value. It crosses the process wall, lies in a TOML or JSON file, and never holds a live object: a
//! node names one by class and settings, by URL, or by a key into the table of handles that the actors keep beside it.
//!
//! ```
//! use portcullis_engine::topology::{NodeKind, ObjectRef, Topology};
//! use portcullis_engine::StreamId;
//!
//! let mut topology = Topology::new();
//! let source = topology.add_node(NodeKind::source(ObjectRef::url("clip.mp4"), StreamId(0)));
//! let sink = topology.add_node(NodeKind::output(ObjectRef::activation("sink.null"), 0));
//! topology.connect(source, 0, sink, 0)?;
//! assert_eq!(topology.downstream(source, 0), Some((sink, 0)));
//! # Ok::<(), portcullis_engine::Error>(())
//! ```

mod connect;
mod groups;
mod node;
mod serial;
mod validate;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

pub use groups::{SinkGroup, SourceGroup};
pub use node::{
    Activation, ConnectMethod, NodeKind, ObjectId, ObjectRef, Placement, PreferredType,
    TopologyNode,
};

use crate::error::{Error, ErrorKind, Result, TopologyFault};
use crate::media::{Attributes, MediaType};

/// A node within its topology: a counter that starts at 1 and survives cloning and serialisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// A topology within the process that made it; the resolved topology has the id of the partial one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopologyId(pub u64);

impl TopologyId {
    /// The next id of this process.
    pub fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl fmt::Display for TopologyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// One link: an output of a node feeds an input of another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// The upstream node.
    pub from: NodeId,
    /// Which of its outputs.
    #[serde(default)]
    pub output: u32,
    /// The downstream node.
    pub to: NodeId,
    /// Which of its inputs.
    #[serde(default)]
    pub input: u32,
    /// The type that flows, once the topology is resolved.
    #[serde(default)]
    pub media_type: Option<MediaType>,
}

/// How a resolution went: all false means without loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResolutionStatus {
    /// An optional node was dropped because no type suited it.
    pub rejected_media_type: bool,
    /// An optional node was dropped because the protected host does not trust it.
    pub rejected_protected_process: bool,
}

/// A graph of sources, transforms, tees and outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "serial::TopologyData")]
pub struct Topology {
    id: TopologyId,
    nodes: Vec<TopologyNode>,
    connections: Vec<Connection>,
    next_node: u64,
    /// Whether the loader may take another type that a source offers than the current one.
    pub enumerate_source_types: bool,
    /// How the resolution went; `None` for a partial topology.
    pub resolution: Option<ResolutionStatus>,
    /// Whatever else an application attached; the loader keeps it.
    pub attributes: Attributes,
}

impl Default for Topology {
    fn default() -> Self {
        Self::new()
    }
}

impl Topology {
    /// Most nodes of one topology.
    pub const MAX_NODES: usize = 256;
    /// Most links of one topology.
    pub const MAX_CONNECTIONS: usize = 1024;

    /// An empty topology with the next id of this process.
    pub fn new() -> Self {
        Self {
            id: TopologyId::next(),
            nodes: Vec::new(),
            connections: Vec::new(),
            next_node: 0,
            enumerate_source_types: false,
            resolution: None,
            attributes: Attributes::new(),
        }
    }

    /// The id; it survives cloning, serialisation and resolution.
    pub const fn id(&self) -> TopologyId {
        self.id
    }

    /// Adds a node under the next id. Past [`Self::MAX_NODES`] the topology is refused by [`Self::validate`].
    pub fn add_node(&mut self, kind: NodeKind) -> NodeId {
        self.next_node += 1;
        let id = NodeId(self.next_node);
        self.nodes.push(TopologyNode::new(id, kind));
        id
    }

    /// Adds a node that has its id already.
    ///
    /// # Errors
    /// `DuplicateNode` where a node has that id; `InvalidArgument` for an id that is no counter.
    pub fn insert_node(&mut self, node: TopologyNode) -> Result<NodeId> {
        let id = node.id;
        if id.0 == 0 || id.0 > u64::from(u32::MAX) {
            return Err(Error::invalid_argument(format!(
                "node id {id}: ids are counters from 1"
            )));
        }
        if self.node(id).is_some() {
            return Err(TopologyFault::DuplicateNode(id.0).into());
        }
        self.next_node = self.next_node.max(id.0);
        self.nodes.push(node);
        Ok(id)
    }

    /// The nodes in the order in which they were added.
    pub fn nodes(&self) -> &[TopologyNode] {
        &self.nodes
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&TopologyNode> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The node with this id.
    ///
    /// # Errors
    /// `NodeNotFound`.
    pub fn require(&self, id: NodeId) -> Result<&TopologyNode> {
        self.node(id).ok_or_else(|| not_found(id))
    }

    /// The node with this id, to change it. Its id must stay.
    pub fn node_mut(&mut self, id: NodeId) -> Option<&mut TopologyNode> {
        self.nodes.iter_mut().find(|node| node.id == id)
    }

    /// The `index`th node in the order in which they were added.
    ///
    /// # Errors
    /// `InvalidArgument` past the last one.
    pub fn node_at(&self, index: usize) -> Result<&TopologyNode> {
        self.nodes.get(index).ok_or_else(|| {
            Error::invalid_argument(format!("node index {index} of {}", self.nodes.len()))
        })
    }

    /// Removes a node and its links.
    ///
    /// # Errors
    /// `NodeNotFound`.
    pub fn remove_node(&mut self, id: NodeId) -> Result<TopologyNode> {
        let at = self
            .nodes
            .iter()
            .position(|node| node.id == id)
            .ok_or_else(|| not_found(id))?;
        self.connections
            .retain(|link| link.from != id && link.to != id);
        Ok(self.nodes.remove(at))
    }

    /// Removes all nodes and links; ids go on counting.
    pub fn clear(&mut self) {
        self.nodes.clear();
        self.connections.clear();
    }

    /// The id that the next added node gets.
    pub(crate) fn next_id(&self) -> NodeId {
        NodeId(self.next_node + 1)
    }

    pub(crate) fn disconnect_all(&mut self) {
        self.connections.clear();
    }

    /// Gives this topology the nodes, links and attributes of another; its own id stays.
    pub fn copy_from(&mut self, other: &Self) {
        *self = Self {
            id: self.id,
            ..other.clone()
        };
    }

    /// Refuses a node that is to run elsewhere than the session.
    ///
    /// # Errors
    /// `NodePlacementUnsupported`, naming the node.
    pub fn check_placement(&self, session: Placement) -> Result<()> {
        match self
            .nodes
            .iter()
            .find(|node| node.placement.is_some_and(|wanted| wanted != session))
        {
            Some(node) => {
                Err(Error::new(ErrorKind::NodePlacementUnsupported).at_node(node.label()))
            }
            None => Ok(()),
        }
    }
}

fn not_found(id: NodeId) -> Error {
    TopologyFault::NodeNotFound(id.0).into()
}
