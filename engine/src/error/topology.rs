//! Why a topology cannot be used.

use serde::{Deserialize, Serialize};

/// Why a topology cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TopologyFault {
    /// It has no nodes.
    #[error("it has no nodes")]
    Empty,
    /// No source node is connected with an output node.
    #[error("no source node is connected with an output node")]
    NoBranch,
    /// A source node without a source.
    #[error("node {0}: missing source")]
    MissingSource(u64),
    /// A source node without a presentation descriptor.
    #[error("node {0}: missing presentation descriptor")]
    MissingPresentationDescriptor(u64),
    /// A source node whose stream is not in the descriptor.
    #[error("node {0}: missing stream descriptor")]
    MissingStreamDescriptor(u64),
    /// A source node whose stream is deselected.
    #[error("node {0}: stream descriptor is not selected")]
    StreamNotSelected(u64),
    /// The graph has a cycle.
    #[error("node {0} is part of a loop")]
    Loop(u64),
    /// No node has this id.
    #[error("node {0} was not found")]
    NodeNotFound(u64),
    /// Two nodes with one id.
    #[error("node {0} is there twice")]
    DuplicateNode(u64),
    /// A connection or index that does not exist.
    #[error("node {0} has no such input or output")]
    InvalidIndex(u64),
    /// More nodes than a topology may have.
    #[error("it has {0} nodes, which is too many")]
    TooManyNodes(u64),
    /// More links than a topology may have.
    #[error("it has {0} links, which is too many")]
    TooManyConnections(u64),
    /// More nodes behind each other than a branch may have.
    #[error("node {0}: its branch is too long")]
    BranchTooLong(u64),
    /// Two output nodes for one stream of one sink.
    #[error(
        "node {0}: another node feeds the same stream of the same sink; tell two sinks apart by `instance`"
    )]
    StreamSinkTaken(u64),
    /// Two source nodes for one stream of one source.
    #[error(
        "node {0}: another node delivers the same stream of the same source; only a tee could share it"
    )]
    SourceStreamTaken(u64),
    /// An input or output that leads nowhere.
    #[error("node {0} is not connected")]
    NotConnected(u64),
    /// Only transforms can be optional.
    #[error("node {0} cannot be optional: only transforms can")]
    InvalidOptionalNode(u64),
    /// An output node whose sink is not created yet.
    #[error("node {0}: the sink is still an activation")]
    SinkActivation(u64),
}
