//! What a session wants done.

use serde::{Deserialize, Serialize};

use super::input::Epoch;
use crate::clock::ClockSnapshot;
use crate::event::{CommandId, Event};
use crate::media::MediaTime;
use crate::topology::{NodeId, Topology};

/// One thing to do, in the order in which the machine puts them out. Nodes are those of the current presentation: a source
/// is named by the first of its nodes, a sink's streams by their output nodes. A topology is named by the command that set it:
/// one and the same topology can be set several times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Effect {
    /// Give this event to the application.
    Emit(Event),
    /// Resolve the topology, create and connect its objects; answered by `TopologyResolved`.
    ResolveTopology {
        /// The command that sets it.
        set_by: CommandId,
        /// The topology.
        topology: Box<Topology>,
        /// False where the topology is to be taken as it is.
        resolve: bool,
    },
    /// Give up a resolution that is under way; it needs no answer any more.
    CancelResolution {
        /// The command that was to set the topology.
        set_by: CommandId,
    },
    /// This topology is the one that the effects from now on are about.
    ActivateTopology {
        /// The command that set it.
        set_by: CommandId,
    },
    /// The objects of this topology are not needed any more.
    ReleaseTopology {
        /// The command that set it.
        set_by: CommandId,
    },
    /// Start these sources.
    StartSources {
        /// The sources.
        sources: Vec<NodeId>,
        /// Where; `None` to go on.
        position: Option<MediaTime>,
        /// Whether they go on from paused, in the flow in which they are.
        resume: bool,
        /// The flow that their samples belong to.
        epoch: Epoch,
    },
    /// Pause these sources.
    PauseSources {
        /// The sources.
        sources: Vec<NodeId>,
        /// The current flow.
        epoch: Epoch,
    },
    /// Stop these sources.
    StopSources {
        /// The sources.
        sources: Vec<NodeId>,
        /// The current flow.
        epoch: Epoch,
    },
    /// Let these transforms and tees forget what they hold; samples of earlier epochs are stale.
    FlushTransforms {
        /// Transforms and tees.
        nodes: Vec<NodeId>,
        /// The flow that comes next.
        epoch: Epoch,
    },
    /// Let these outputs forget what they hold of earlier epochs and ask for the first samples, without rendering them.
    PrerollSinks {
        /// Output nodes.
        sinks: Vec<NodeId>,
        /// Where the presentation starts.
        position: MediaTime,
        /// The flow to ask for.
        epoch: Epoch,
    },
    /// Let these outputs render by this clock.
    StartSinks {
        /// Output nodes.
        sinks: Vec<NodeId>,
        /// The running clock.
        clock: ClockSnapshot,
        /// The current flow.
        epoch: Epoch,
    },
    /// Let these outputs stand still; they keep what they hold.
    PauseSinks {
        /// Output nodes.
        sinks: Vec<NodeId>,
        /// The paused clock.
        clock: ClockSnapshot,
        /// The current flow.
        epoch: Epoch,
    },
    /// Let these outputs stop and forget what they hold.
    StopSinks {
        /// Output nodes.
        sinks: Vec<NodeId>,
        /// The stopped clock.
        clock: ClockSnapshot,
        /// The current flow.
        epoch: Epoch,
    },
    /// The clock changed while the outputs go on; needs no answer.
    SetClock {
        /// Output nodes.
        sinks: Vec<NodeId>,
        /// The clock.
        clock: ClockSnapshot,
    },
    /// Complete what these sinks write; answered by `Finalized` of each.
    FinalizeSinks {
        /// Sinks, each by the first of its nodes.
        sinks: Vec<NodeId>,
    },
    /// End everything: the session does nothing more.
    ShutDown,
}
