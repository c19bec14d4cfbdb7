//! From a partial topology to a full one: decoders and converters are put in until every link has a type.
//!
//! The loader decides and asks; it creates nothing. Whoever runs it says through [`Negotiate`] which classes there are and
//! what an object answers to a type, wherever that object lives. Each question and each refusal is kept, so a failure
//! explains itself.

mod attempt;
mod search;
mod types;

use std::collections::BTreeMap;

use futures::future::LocalBoxFuture;

use crate::component::{Registry, Role};
use crate::error::{Error, Result, TopologyFault};
use crate::media::MediaType;
use crate::presentation::PresentationDescriptor;
use crate::topology::{NodeId, NodeKind, ObjectRef, ResolutionStatus, Topology};

pub use attempt::{Attempt, Stage};
use search::Search;
pub use types::{inherit, satisfies};

/// What the loader asks of those who have the objects.
///
/// A transform that the loader thinks of putting in is asked under the id that its node will have. Where a class is refused
/// the next one is asked under the same id. Of each (node, class) in the full topology the types that were asked last hold;
/// what was created for others can go.
pub trait Negotiate {
    /// The classes of a role that may accept a type, best first.
    fn candidates(&self, role: Role, input: &MediaType) -> Vec<String>;

    /// Gives a transform its input type; it answers the types that it can put out, best first. May be asked again with
    /// another type.
    fn try_transform<'a>(
        &'a self,
        node: NodeId,
        object: &'a ObjectRef,
        input: &'a MediaType,
    ) -> LocalBoxFuture<'a, Result<Vec<MediaType>>>;

    /// Gives a transform that accepted an input type its output type.
    fn try_transform_output<'a>(
        &'a self,
        node: NodeId,
        object: &'a ObjectRef,
        output: &'a MediaType,
    ) -> LocalBoxFuture<'a, Result<()>>;

    /// Gives a sink's stream its type.
    ///
    /// # Errors
    /// `Topology(SinkActivation)` where the sink was not created yet; it ends the search.
    fn try_output<'a>(
        &'a self,
        node: NodeId,
        object: &'a ObjectRef,
        stream: u32,
        media_type: &'a MediaType,
    ) -> LocalBoxFuture<'a, Result<()>>;
}

/// The classes of a registry for [`Negotiate::candidates`]: those of the role whose description names the subtype, the one
/// registered last first.
pub fn candidates(registry: &Registry, role: Role, input: &MediaType) -> Vec<String> {
    registry
        .candidates(|info| info.role == role && info.takes(input.subtype))
        .into_iter()
        .map(|entry| entry.info().class.to_owned())
        .collect()
}

/// A full topology and how it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The full topology: same id, same ids of nodes, a type on every link, a descriptor in every source node.
    pub topology: Topology,
    /// What was tried, in order, with each refusal.
    pub attempts: Vec<Attempt>,
    /// Optional nodes that did not fit.
    pub dropped: Vec<NodeId>,
}

/// Resolves a topology, which stays as it is. `sources` describes the sources of nodes that have no descriptor, by node.
///
/// Each branch is tried directly, then with converters, then with a decoder and converters, as far as the downstream node's
/// connect method allows; a choice that leads nowhere further down is taken back. A full topology resolves to an equal one.
///
/// # Errors
/// `Topology` for a graph without a whole branch; `InvalidMediaType`, `NoComponent`, `CannotConnect`, `Protected`, or what the
/// only decoder said, naming the node and with the attempts as causes.
pub async fn load(
    topology: &Topology,
    sources: &BTreeMap<NodeId, PresentationDescriptor>,
    negotiate: &dyn Negotiate,
) -> Result<Resolved> {
    let described = describe(topology, sources);
    described.validate()?;
    check_branches(&described)?;
    let mut search = Search::new(&described, negotiate);
    for node in described.nodes() {
        if matches!(node.kind, NodeKind::SourceStream { .. }) {
            search.source(node).await?;
        }
    }
    let (draft, attempts) = search.finish();
    let dropped = draft.dropped.clone();
    let topology = draft.apply(described)?;
    Ok(Resolved {
        topology,
        attempts,
        dropped,
    })
}

/// A copy whose source nodes have their descriptors.
fn describe(topology: &Topology, sources: &BTreeMap<NodeId, PresentationDescriptor>) -> Topology {
    let mut described = topology.clone();
    for (id, known) in sources {
        if let Some(node) = described.node_mut(*id)
            && let NodeKind::SourceStream { descriptor, .. } = &mut node.kind
            && descriptor.is_none()
        {
            *descriptor = Some(Box::new(known.clone()));
        }
    }
    described
}

/// Every node leads from a source to an output.
fn check_branches(topology: &Topology) -> Result<()> {
    let has = |wanted: fn(&NodeKind) -> bool| topology.nodes().iter().any(|n| wanted(&n.kind));
    if topology.connections().is_empty()
        || !has(|kind| matches!(kind, NodeKind::SourceStream { .. }))
        || !has(|kind| matches!(kind, NodeKind::Output { .. }))
    {
        return Err(TopologyFault::NoBranch.into());
    }
    for node in topology.nodes() {
        let (inputs, outputs) = (topology.inputs(node.id), topology.outputs(node.id));
        let (needs_input, needs_output) = match node.kind {
            NodeKind::SourceStream { .. } => (false, true),
            NodeKind::Output { .. } => (true, false),
            NodeKind::Transform { .. } | NodeKind::Tee => (true, true),
        };
        if (needs_input && inputs.is_empty()) || (needs_output && outputs.is_empty()) {
            return Err(not_connected(node.id));
        }
        let is_transform = matches!(node.kind, NodeKind::Transform { .. });
        if is_transform
            && (inputs.iter().any(|l| l.input > 0) || outputs.iter().any(|l| l.output > 0))
        {
            return Err(TopologyFault::InvalidIndex(node.id.0).into());
        }
        if !needs_input && node.stream_descriptor().is_none() {
            return Err(TopologyFault::MissingPresentationDescriptor(node.id.0).into());
        }
    }
    Ok(())
}

fn not_connected(node: NodeId) -> Error {
    TopologyFault::NotConnected(node.0).into()
}

fn merged(before: Option<ResolutionStatus>, dropped: bool) -> ResolutionStatus {
    let before = before.unwrap_or_default();
    ResolutionStatus {
        rejected_media_type: before.rejected_media_type || dropped,
        ..before
    }
}

#[cfg(test)]
mod tests;
