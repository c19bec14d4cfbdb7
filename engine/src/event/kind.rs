//! The kinds of events, with their names, their numbers and what they carry.

use serde::{Deserialize, Serialize};

use crate::media::{MediaTime, MediaType};
use crate::topology::{Topology, TopologyId};

macro_rules! kinds {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident = $id:literal $({ $($(#[doc = $fdoc:literal])+ $field:ident: $type:ty,)+ })?,
    )+) => {
        /// What happened. Numbers are Media Foundation's.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum EventKind {
            $( $(#[doc = $doc])+ $name $({ $($(#[doc = $fdoc])+ $field: $type,)+ })?, )+
        }

        impl EventKind {
            /// The stable name.
            pub const fn name(&self) -> &'static str {
                match self { $( Self::$name { .. } => stringify!($name), )+ }
            }

            /// The stable number.
            pub const fn id(&self) -> u32 {
                match self { $( Self::$name { .. } => $id, )+ }
            }

            /// All names and numbers.
            pub const ALL: &[(&str, u32)] = &[$( (stringify!($name), $id), )+];
        }
    };
}

kinds! {
    /// Something failed that no command waits for. A node that raised it delivers nothing more.
    Error = 1,
    /// Something failed and the session goes on, such as a sample that cannot be decoded.
    NonFatalError = 3,
    /// A topology was resolved and queued, or refused.
    SessionTopologySet = 101 {
        /// The topology.
        topology: TopologyId,
        /// The full topology, where it was resolved.
        full: Option<Box<Topology>>,
    },
    /// The queued topologies were dropped.
    SessionTopologiesCleared = 102,
    /// The session started, or went on at another position.
    SessionStarted = 103 {
        /// Where, if a position was asked for.
        position: Option<MediaTime>,
    },
    /// The session paused.
    SessionPaused = 104,
    /// The session stopped.
    SessionStopped = 105 {
        /// The presentation time at which it did.
        at: Option<MediaTime>,
    },
    /// The session is closed; its sinks are finalised.
    SessionClosed = 106,
    /// The last presentation has ended; the session can start again.
    SessionEnded = 107 {
        /// The presentation time at which it did.
        at: Option<MediaTime>,
    },
    /// What the session can do has changed.
    SessionCapabilitiesChanged = 110 {
        /// What it can do now.
        capabilities: Capabilities,
        /// What differs from before.
        delta: Capabilities,
    },
    /// A topology went on to its next status.
    SessionTopologyStatus = 111 {
        /// The topology.
        topology: TopologyId,
        /// The status.
        topology_status: TopologyStatus,
    },
    /// The times of the next presentation.
    SessionNotifyPresentationTime = 112 {
        /// The topology.
        topology: TopologyId,
        /// The source's time at which it starts.
        start: MediaTime,
        /// What is added to source time to get presentation time.
        offset: MediaTime,
        /// The presentation time at which its first samples reach the outputs.
        start_at_output: MediaTime,
    },
    /// A source lacks data; presentation time stands still.
    BufferingStarted = 122,
    /// A source has data again.
    BufferingStopped = 123,
    /// A source started.
    SourceStarted = 201 {
        /// The position that was asked for; `None` where it went on from where it was.
        position: Option<MediaTime>,
    },
    /// A stream started.
    StreamStarted = 202 {
        /// The position that was asked for; `None` where it went on from where it was.
        position: Option<MediaTime>,
    },
    /// A source went to another position.
    SourceSeeked = 203 {
        /// The position that was asked for.
        position: MediaTime,
    },
    /// A stream went to another position.
    StreamSeeked = 204 {
        /// The position that was asked for.
        position: MediaTime,
    },
    /// A stream is delivered that was not before.
    NewStream = 205,
    /// A stream goes on being delivered.
    UpdatedStream = 206,
    /// A source stopped.
    SourceStopped = 207,
    /// A stream stopped.
    StreamStopped = 208,
    /// A source paused.
    SourcePaused = 209,
    /// A stream paused.
    StreamPaused = 210,
    /// All streams of a source, or of the whole presentation, have ended; samples may still be on their way.
    EndOfPresentation = 211,
    /// A stream has ended.
    EndOfStream = 212,
    /// A stream has nothing to deliver for a while.
    StreamTick = 214 {
        /// From when.
        time: MediaTime,
        /// For how long.
        duration: MediaTime,
    },
    /// A stream's type changed in band.
    StreamFormatChanged = 216 {
        /// The new type.
        media_type: MediaType,
    },
    /// A sink's stream follows the running clock.
    StreamSinkStarted = 301,
    /// A sink's stream stopped.
    StreamSinkStopped = 302,
    /// A sink's stream paused.
    StreamSinkPaused = 303,
    /// A sink's stream has rendered everything up to the end of its presentation.
    StreamSinkMarker = 306,
    /// A sink's stream has its first samples and can start.
    StreamSinkPrerolled = 307,
    /// The type that flows into a sink's stream changed.
    StreamSinkFormatChanged = 309 {
        /// The new type.
        media_type: MediaType,
    },
    /// How well a sink keeps up.
    QualityNotify = 311 {
        /// Samples rendered so far.
        rendered: u64,
        /// Of these, how many after they were due.
        late: u64,
        /// Samples dropped so far.
        dropped: u64,
    },
    /// A sink cannot go on: its device is gone.
    SinkInvalidated = 312,
}

/// How far a topology is. Within one presentation it only goes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TopologyStatus {
    /// It can start.
    Ready,
    /// Its sources have started.
    StartedSource,
    /// Nodes were put in while it runs.
    DynamicChanged,
    /// The sinks have gone over to it from the one before.
    SinkSwitched,
    /// Its presentation has ended.
    Ended,
}

impl TopologyStatus {
    /// Media Foundation's number.
    pub const fn id(self) -> u32 {
        match self {
            Self::Ready => 100,
            Self::StartedSource => 200,
            Self::DynamicChanged => 210,
            Self::SinkSwitched => 300,
            Self::Ended => 400,
        }
    }
}

/// What a session can do. Bits are Media Foundation's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(u32);

impl Capabilities {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// It can start.
    pub const START: Self = Self(0x1);
    /// It can start at a position.
    pub const SEEK: Self = Self(0x2);
    /// It can pause.
    pub const PAUSE: Self = Self(0x4);
    /// It can run at other rates.
    pub const RATE_FORWARD: Self = Self(0x10);
    /// It can run backwards.
    pub const RATE_REVERSE: Self = Self(0x20);

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What differs between the two.
    #[must_use]
    pub const fn delta(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }

    /// Whether all of `other` is there.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
