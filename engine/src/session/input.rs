//! What a session is told: commands of its application and reports of its components.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::event::{CommandId, Event, EventKind};
use crate::media::MediaTime;
use crate::topology::{NodeId, Topology};

/// Counts the flows of samples through a session: every start and every seek begins another one. What belongs to an earlier
/// flow is stale, wherever it is on its way.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// How a topology is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SetTopologyFlags {
    /// Ends what is played now and drops what is queued.
    pub immediate: bool,
    /// The topology is full already: it is taken as it is.
    pub no_resolution: bool,
}

/// What an application asks of a session. Each command is completed by exactly one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Command {
    /// Resolves a topology and queues it; completed by `SessionTopologySet`.
    SetTopology {
        /// The topology, partial or full.
        topology: Box<Topology>,
        /// How.
        flags: SetTopologyFlags,
    },
    /// Drops the queued topologies; completed by `SessionTopologiesCleared`.
    ClearTopologies,
    /// Starts, goes on, or seeks; completed by `SessionStarted`.
    Start {
        /// Where; `None` for where the session is, or the beginning.
        position: Option<MediaTime>,
    },
    /// Pauses; completed by `SessionPaused`.
    Pause,
    /// Stops; completed by `SessionStopped`. Whatever waits for data before it, a start or a resolution, is completed with
    /// `Cancelled`.
    Stop,
    /// Stops and finalises the sinks, cancelling as a stop does; completed by `SessionClosed`, the last event.
    Close,
}

impl Command {
    /// Whether it does not wait for the end of what waits for data.
    pub(super) fn preempts(&self) -> bool {
        matches!(self, Self::Stop | Self::Close)
    }

    /// Whether it may have to wait for data that never comes.
    pub(super) fn waits_for_data(&self) -> bool {
        matches!(self, Self::SetTopology { .. } | Self::Start { .. })
    }

    /// The event that completes this command where it fails at once.
    pub(super) fn failed(&self, error: Error) -> Event {
        let kind = match self {
            Self::SetTopology { topology, .. } => EventKind::SessionTopologySet {
                topology: topology.id(),
                full: None,
            },
            Self::ClearTopologies => EventKind::SessionTopologiesCleared,
            Self::Start { .. } => EventKind::SessionStarted { position: None },
            Self::Pause => EventKind::SessionPaused,
            Self::Stop => EventKind::SessionStopped { at: None },
            Self::Close => EventKind::SessionClosed,
        };
        Event::new(kind).failed(error)
    }
}

/// What a component, or whoever drives it, tells the session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Report {
    /// Answers `ResolveTopology`: the full topology, with all its objects created and connected.
    TopologyResolved {
        /// The command that sets it.
        set_by: CommandId,
        /// The full topology, or why there is none.
        result: Result<Box<Topology>>,
    },
    /// A component raised an event. The session passes it on and goes by it:
    ///
    /// - `StartSources` is answered by `SourceStarted` or `SourceSeeked` of each source and `StreamStarted` or
    ///   `StreamSeeked` of each of its streams; a failed start by `SourceStarted` with the error alone;
    /// - `PauseSources` and `StopSources` likewise by `SourcePaused`, `StreamPaused`, `SourceStopped`, `StreamStopped`;
    /// - `PrerollSinks`, `StartSinks`, `PauseSinks`, `StopSinks` by `StreamSinkPrerolled`, `StreamSinkStarted`,
    ///   `StreamSinkPaused`, `StreamSinkStopped` of each output node;
    /// - the end of a presentation is `EndOfStream` of each source node and `StreamSinkMarker` of each output node;
    /// - `Error` says that its node delivers nothing more in this flow: it counts as ended, and as having answered the
    ///   effect that waits for it; later effects it answers as ever. Named without a stream it is about a whole source or
    ///   sink. A sink that fails while it prerolls or starts answers that too, and only the `Error` says what becomes of it.
    ///
    /// What is about samples (an end, a change of type, an error) reaches the application only after the start that is
    /// under way, so that traces do not depend on how far a source reads ahead.
    Raised {
        /// The event, by [`Event::of_node`] or [`Event::of_stream`].
        event: Event,
        /// The epoch of the effect that it answers, or of the samples that it is about.
        epoch: Epoch,
    },
    /// Answers `FlushTransforms` for one node.
    Flushed {
        /// The transform or tee.
        node: NodeId,
        /// The epoch of the effect.
        epoch: Epoch,
    },
    /// Answers `FinalizeSinks` for one sink.
    Finalized {
        /// The first node of the sink.
        sink: NodeId,
        /// How it went.
        result: Result<()>,
    },
    /// Whoever stands behind a node is gone, without the session asking for it, and answers nothing any more.
    NodeLost {
        /// The node; for a source the first of its nodes.
        node: NodeId,
        /// Why.
        error: Error,
    },
}

/// Everything that a session can be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// A command.
    Command {
        /// Its id, which the completing event carries.
        id: CommandId,
        /// The command.
        command: Command,
    },
    /// Ends everything at once; needs no event.
    Shutdown,
    /// A report.
    Report(Report),
}
