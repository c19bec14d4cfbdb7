//! What a session is asked.

use portcullis_derive::Remote;
use portcullis_engine::clock::ClockSnapshot;
use portcullis_engine::event::{CommandId, Event};
use portcullis_engine::session::SetTopologyFlags;
use portcullis_engine::topology::{NodeId, ObjectId, Placement, Topology};
use portcullis_engine::{ContentLimits, MediaTime};
use serde::{Deserialize, Serialize};

use super::graph::NodeObject;
use crate::bridge::Handle;
use crate::host::PmpHost;
use crate::pipeline::opener::Opener;
use crate::pipeline::sink::{ReadAhead, StreamStatistics};

crate::interface! {
    /// A media session, wherever it runs.
    pub SessionControl = "portcullis.SessionControl" {
        SetTopology, ClearTopologies, StartSession, PauseSession, StopSession, CloseSession, ShutdownSession,
        NextSessionEvents, GetClock, GetFullTopology, GetStatistics, GetPmpHost
    }
}

/// How a session is made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionConfig {
    /// What content may ask for.
    pub limits: ContentLimits,
    /// Who opens what the session needs opened.
    pub opener: Handle<Opener>,
    /// Whether sinks render by the presentation clock.
    pub pacing: Pacing,
    /// How far sinks read ahead; `None` leaves it to each sink.
    pub read_ahead: Option<ReadAhead>,
    /// Where the session runs. A node that asks for another placement is refused.
    pub placement: Placement,
}

/// When samples are rendered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pacing {
    /// At their time by the presentation clock; sinks that are rateless by themselves do not wait.
    #[default]
    Presentation,
    /// As fast as they come.
    Free,
}

/// Sets a topology. Completed by `SessionTopologySet`.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = CommandId)]
pub struct SetTopology {
    /// The topology, as data.
    pub topology: Topology,
    /// The live objects that it refers to.
    pub objects: Vec<(ObjectId, NodeObject)>,
    /// How it is set.
    pub flags: SetTopologyFlags,
}

/// Drops queued topologies. Completed by `SessionTopologiesCleared`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = CommandId)]
pub struct ClearTopologies;

/// Starts, resumes or seeks. Completed by `SessionStarted`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = CommandId)]
pub struct StartSession {
    /// Where; `None` continues, or starts at the beginning.
    pub position: Option<MediaTime>,
}

/// Pauses. Completed by `SessionPaused`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = CommandId)]
pub struct PauseSession;

/// Stops. Completed by `SessionStopped`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = CommandId)]
pub struct StopSession;

/// Stops and completes what sinks write. Completed by `SessionClosed`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = CommandId)]
pub struct CloseSession;

/// Ends everything at once, without an event.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
pub struct ShutdownSession;

/// Asks for the session's events; waits until there is one. One asker at a time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Vec<Event>, no_deadline)]
pub struct NextSessionEvents;

/// Asks for the presentation clock.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = ClockSnapshot)]
pub struct GetClock;

/// Asks for the topology that is played.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Topology)]
pub struct GetFullTopology;

/// Asks for the counts of the current sinks.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Vec<OutputStatistics>)]
pub struct GetStatistics;

/// Counts of one output node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputStatistics {
    /// The output node.
    pub node: NodeId,
    /// Its counts.
    pub counts: StreamStatistics,
}

/// Asks for the host in which the session runs (the original's PMP service).
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Handle<PmpHost>)]
pub struct GetPmpHost;
