//! What a session tells its application: every event with its status, its cause and where it comes from.
//!
//! Names and numbers are those of Media Foundation without the `ME`. The derived serde form crosses the process wall;
//! [`Event::to_json`] is the documented form for people and tools.

mod json;
mod kind;
mod trace;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use kind::{Capabilities, EventKind, TopologyStatus};
pub use trace::normalise;

use crate::clock::SystemTime100ns;
use crate::error::{Error, Result};
use crate::topology::NodeId;

/// A command within its session: whoever sends the command counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub u64);

impl fmt::Display for CommandId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// The component behind an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EventSource {
    /// The node; for a whole source or sink the first of its nodes.
    pub node: NodeId,
    /// The stream of the source or sink; `None` for the whole of it.
    pub stream: Option<u32>,
    /// Counts the events of this stream of this node, from 0.
    pub sequence: u64,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What happened, with what belongs to it.
    pub kind: EventKind,
    /// Whether it went well.
    pub status: Result<(), Error>,
    /// The component that raised it; `None` for the session's own events.
    pub source: Option<EventSource>,
    /// The command that this event completes.
    pub command: Option<CommandId>,
    /// When the session passed it on; put on by its actor.
    pub time: Option<SystemTime100ns>,
    /// The process that raised it; put on there.
    pub pid: Option<u32>,
}

impl Event {
    /// An event of the session itself.
    pub fn new(kind: EventKind) -> Self {
        Self {
            kind,
            status: Ok(()),
            source: None,
            command: None,
            time: None,
            pid: None,
        }
    }

    /// An event of a whole source or sink, by the first of its nodes. The session counts the sequence.
    pub fn of_node(kind: EventKind, node: NodeId) -> Self {
        Self {
            source: Some(EventSource {
                node,
                stream: None,
                sequence: 0,
            }),
            ..Self::new(kind)
        }
    }

    /// An event of one stream of a source or sink. The session counts the sequence.
    pub fn of_stream(kind: EventKind, node: NodeId, stream: u32) -> Self {
        Self {
            source: Some(EventSource {
                node,
                stream: Some(stream),
                sequence: 0,
            }),
            ..Self::new(kind)
        }
    }

    /// The same with this status.
    #[must_use]
    pub fn with_status(mut self, status: Result<(), Error>) -> Self {
        self.status = status;
        self
    }

    /// The same as a failure.
    #[must_use]
    pub fn failed(self, error: Error) -> Self {
        self.with_status(Err(error))
    }

    /// The same as completion of a command.
    #[must_use]
    pub fn completing(mut self, command: CommandId) -> Self {
        self.command = Some(command);
        self
    }

    /// Names the process that raised it, where none is named yet; in its error too.
    #[must_use]
    pub fn in_process(mut self, pid: u32) -> Self {
        self.pid.get_or_insert(pid);
        self.status = self.status.map_err(|error| error.in_process(pid));
        self
    }

    /// The event's stable name.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// The error, if it did not go well.
    pub fn error(&self) -> Option<&Error> {
        self.status.as_ref().err()
    }

    /// Whether this is the session's own event rather than a component's.
    pub fn is_session(&self) -> bool {
        self.source.is_none()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())?;
        if let Some(source) = &self.source {
            write!(out, " node {}", source.node)?;
            if let Some(stream) = source.stream {
                write!(out, " stream {stream}")?;
            }
        }
        if let Err(error) = &self.status {
            write!(out, ": {error}")?;
        }
        Ok(())
    }
}
