//! What can go wrong, as a value that crosses the process wall intact.

mod topology;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use topology::TopologyFault;

use crate::media::{MediaTime, MediaType};
use crate::trust::TrustError;

/// A result with the project's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Text = Cow<'static, str>;

/// What happened.
#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorKind {
    // Content.
    /// The input breaks its format's rules.
    #[error("malformed input at byte {at}: {what}")]
    Malformed {
        /// Byte position in the input.
        at: u64,
        /// The rule that is broken.
        what: Text,
    },
    /// The input ends inside of something.
    #[error("input ends at byte {at}, inside of {what}")]
    Truncated {
        /// Where the input ends.
        at: u64,
        /// What is incomplete.
        what: Text,
    },
    /// A decoder could not make sense of a sample.
    #[error("{codec} sample at {time} cannot be decoded: {what}")]
    Undecodable {
        /// The codec.
        codec: Text,
        /// Presentation time of the sample.
        time: MediaTime,
        /// The decoder's reason.
        what: Text,
    },
    /// No container handler recognises the input.
    #[error("no handler recognises the input ({what})")]
    UnsupportedByteStream {
        /// What the first bytes look like, and what was tried.
        what: Text,
    },
    /// The codec, or a feature of it, is not supported.
    #[error("codec {codec} is not supported: {what}")]
    UnsupportedCodec {
        /// FFmpeg's name of the codec.
        codec: Text,
        /// What is missing.
        what: Text,
    },
    /// The content is encrypted and this placement has no way to decrypt it.
    #[error("stream is protected ({scheme}), and there is no key for it here")]
    Protected {
        /// The protection scheme, such as `cenc`.
        scheme: Text,
    },
    /// The content asks for more than the session's limits allow.
    #[error("content limit {limit}: {found} is more than {max}")]
    LimitExceeded {
        /// Which limit.
        limit: Text,
        /// The limit.
        max: u64,
        /// What the content asks for.
        found: u64,
    },
    /// The format needs to seek and the input cannot.
    #[error("{what} needs a seekable input")]
    NotSeekable {
        /// The format, and why it needs to seek.
        what: Text,
    },

    // Opening.
    /// There is no such thing.
    #[error("{what} was not found")]
    NotFound {
        /// What was looked for.
        what: Text,
    },
    /// No handler for the URL's scheme.
    #[error("scheme {scheme} is not supported")]
    UnsupportedScheme {
        /// The scheme without its colon.
        scheme: Text,
    },
    /// The opener's policy does not grant this URL.
    #[error("opening {url} is refused: {why}")]
    OpenRefused {
        /// The URL.
        url: Text,
        /// The rule that refused it.
        why: Text,
    },
    /// The operating system refused.
    #[error("{what}: {os}")]
    Io {
        /// What was tried.
        what: Text,
        /// The system's words.
        os: Text,
    },

    // Topology and components.
    /// No registered component accepts the type.
    #[error("no component accepts {0}; `portcullis components` lists them")]
    NoComponent(MediaType),
    /// Two neighbours agree on no type.
    #[error("cannot connect: {0}")]
    CannotConnect(Text),
    /// A type that a component does not take.
    #[error("{media_type} is refused: {why}")]
    InvalidMediaType {
        /// The refused type.
        media_type: MediaType,
        /// Why.
        why: Text,
    },
    /// The topology has no usable branch, or breaks a rule.
    #[error("topology is refused: {0}")]
    Topology(TopologyFault),
    /// No component of this class is registered here.
    #[error("class {class} is not registered")]
    ClassNotFound {
        /// The class id.
        class: Text,
    },
    /// The host program lacks the class.
    #[error(
        "the host program has no class {class}; register it in the registry given to `host::init`"
    )]
    ClassNotInHost {
        /// The class id.
        class: Text,
    },
    /// Settings that a component does not understand.
    #[error("settings of {class} are refused: {why}")]
    InvalidSettings {
        /// The class id.
        class: Text,
        /// Why.
        why: Text,
    },
    /// A node asks for a placement unlike its session's.
    #[error("a node's own placement is not supported yet")]
    NodePlacementUnsupported,
    /// A component or an actor panicked: it ends, and those around it go on.
    #[error("panicked at {place}: {message}")]
    Panicked {
        /// The panic's message.
        message: Text,
        /// The source file and the line.
        place: Text,
    },

    // Requests.
    /// The request makes no sense in the present state.
    #[error("invalid request: {0}")]
    InvalidRequest(Text),
    /// An argument is out of range.
    #[error("invalid argument: {0}")]
    InvalidArgument(Text),
    /// A position outside of the presentation.
    #[error("position {position} is outside of the presentation ({duration})")]
    InvalidPosition {
        /// What was asked for.
        position: MediaTime,
        /// The presentation's length.
        duration: MediaTime,
    },
    /// Pause while nothing runs.
    #[error("the session is stopped and cannot pause")]
    PauseWhileStopped,
    /// A state that does not allow the transition.
    #[error("invalid state transition: {0}")]
    InvalidStateTransition(Text),
    /// The stream has ended.
    #[error("end of stream")]
    EndOfStream,
    /// The object is shut down.
    #[error("{what} is shut down")]
    Shutdown {
        /// Which object.
        what: Text,
    },
    /// Something that exists only within one process was asked for across the wall.
    #[error("{what} is not remotable: use the asynchronous call")]
    NotRemotable {
        /// Which call or object.
        what: Text,
    },
    /// The presentation clock has no time source.
    #[error("the clock has no time source")]
    NoTimeSource,
    /// The clock is already in that state.
    #[error("the clock is already in that state")]
    ClockStateAlreadySet,
    /// A rate that a node does not support.
    #[error("rate {rate} is not supported")]
    UnsupportedRate {
        /// The rate in thousandths.
        rate: i64,
    },
    /// The content needs a host before it can be resolved and no session gives one.
    #[error("the source needs a PMP host and the session gives none")]
    NoPmpHost,
    /// Not offered by this object.
    #[error("{what} is not supported")]
    Unsupported {
        /// What was asked for.
        what: Text,
    },

    // Trust.
    /// A program, its manifest or one of its components is not trusted.
    #[error("not trusted: {0}")]
    NotTrusted(TrustError),

    // Calls.
    /// The caller gave up.
    #[error("cancelled")]
    Cancelled,
    /// No answer within the message's deadline.
    #[error("no answer to {what} within its deadline")]
    DeadlineExceeded {
        /// The message.
        what: Text,
    },
    /// The called actor has stopped.
    #[error("the called actor has stopped")]
    ActorStopped,
    /// The host process is gone.
    #[error("host lost: {0}")]
    HostLost(HostExit),
    /// The host could not be started.
    #[error("host cannot start: {0}")]
    HostStart(Text),
    /// A layer of the host's sandbox is required and not to be had here.
    #[error("host cannot start without the sandbox's layer \"{layer}\": {why}")]
    LayerMissing {
        /// The layer.
        layer: Text,
        /// What the kernel or the program lacks.
        why: Text,
    },
    /// The other side of the link breaks the protocol.
    #[error("protocol error: {0}")]
    Protocol(Text),
}

/// How a host process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostExit {
    /// The process id.
    pub pid: u32,
    /// The exit code, if it exited.
    pub code: Option<i32>,
    /// The signal, if one ended it.
    pub signal: Option<i32>,
    /// The system call for which its sandbox ended it, by name, number and architecture.
    pub blocked: Option<String>,
    /// The quota beyond which it went.
    pub quota: Option<HostQuota>,
    /// The last lines that it wrote to standard error.
    pub last_words: Vec<String>,
}

/// What a host may use up only so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HostQuota {
    /// Memory.
    Memory,
    /// Processor time.
    CpuTime,
    /// Time since its start.
    WallTime,
}

impl fmt::Display for HostQuota {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Memory => "memory",
            Self::CpuTime => "processor time",
            Self::WallTime => "wall time",
        })
    }
}

impl fmt::Display for HostExit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "process {} ", self.pid)?;
        match (self.signal, self.code) {
            (Some(signal), _) => write!(out, "was ended by signal {signal}")?,
            (None, Some(code)) => write!(out, "exited with code {code}")?,
            (None, None) => write!(out, "closed its link")?,
        }
        if let Some(call) = &self.blocked {
            write!(out, "; its sandbox blocked the system call {call}")?;
        }
        if let Some(quota) = self.quota {
            write!(out, "; it went beyond its quota of {quota}")?;
        }
        if let Some(last) = self.last_words.last() {
            write!(out, "; last words: {last}")?;
        }
        Ok(())
    }
}

/// Where an error happened; put on by actors, so components never think of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The node: its id within its topology and its class.
    pub node: Option<String>,
    /// Process id of the process that raised it.
    pub process: Option<u32>,
    /// What was being read: a path or URL.
    pub input: Option<String>,
}

/// A failure: what, where, and the chain of causes as text.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Error(Box<Inner>);

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Inner {
    kind: ErrorKind,
    place: Place,
    causes: Vec<Text>,
}

impl Error {
    /// An error of this kind without a place.
    pub fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            place: Place::default(),
            causes: Vec::new(),
        }))
    }

    /// The input breaks a rule of its format at this byte.
    pub fn malformed(at: u64, what: impl Into<Text>) -> Self {
        Self::new(ErrorKind::Malformed {
            at,
            what: what.into(),
        })
    }

    /// The input ends inside of something.
    pub fn truncated(at: u64, what: impl Into<Text>) -> Self {
        Self::new(ErrorKind::Truncated {
            at,
            what: what.into(),
        })
    }

    /// A codec, or a feature of it, is not supported.
    pub fn unsupported_codec(codec: impl Into<Text>, what: impl Into<Text>) -> Self {
        Self::new(ErrorKind::UnsupportedCodec {
            codec: codec.into(),
            what: what.into(),
        })
    }

    /// A decoder could not make sense of a sample.
    pub fn undecodable(codec: impl Into<Text>, time: MediaTime, what: impl Into<Text>) -> Self {
        Self::new(ErrorKind::Undecodable {
            codec: codec.into(),
            time,
            what: what.into(),
        })
    }

    /// A type is refused.
    pub fn invalid_type(media_type: &MediaType, why: impl Into<Text>) -> Self {
        Self::new(ErrorKind::InvalidMediaType {
            media_type: media_type.clone(),
            why: why.into(),
        })
    }

    /// An argument is out of range.
    pub fn invalid_argument(what: impl Into<Text>) -> Self {
        Self::new(ErrorKind::InvalidArgument(what.into()))
    }

    /// A request makes no sense in the present state.
    pub fn invalid_request(what: impl Into<Text>) -> Self {
        Self::new(ErrorKind::InvalidRequest(what.into()))
    }

    /// A content limit is exceeded.
    pub fn limit(limit: impl Into<Text>, max: u64, found: u64) -> Self {
        Self::new(ErrorKind::LimitExceeded {
            limit: limit.into(),
            max,
            found,
        })
    }

    /// The system refused an operation.
    pub fn io(what: impl Into<Text>, error: &std::io::Error) -> Self {
        let what = what.into();
        // A blocking read through `ByteSource` carries the project's own error inside of the system's.
        if let Some(own) = error.get_ref().and_then(|e| e.downcast_ref::<Self>()) {
            return own.clone();
        }
        if error.kind() == std::io::ErrorKind::NotFound {
            return Self::new(ErrorKind::NotFound { what });
        }
        Self::new(ErrorKind::Io {
            what,
            os: error.to_string().into(),
        })
    }

    /// Cancelled by the caller.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled)
    }

    /// What happened.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Where it happened.
    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// Causes, nearest first, as text.
    pub fn causes(&self) -> &[Cow<'static, str>] {
        &self.0.causes
    }

    /// Whether whoever was asked is gone, or whoever asked: nothing else that could be tried does better.
    pub fn ends_every_try(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::Cancelled
                | ErrorKind::HostLost(_)
                | ErrorKind::DeadlineExceeded { .. }
                | ErrorKind::ActorStopped
                | ErrorKind::Shutdown { .. }
                | ErrorKind::Protocol(_)
        )
    }

    /// Adds a cause: what was tried and why it was refused.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Text>) -> Self {
        self.0.causes.push(cause.into());
        self
    }

    /// Names the node, where none is named yet.
    #[must_use]
    pub fn at_node(mut self, node: impl Into<String>) -> Self {
        self.0.place.node.get_or_insert_with(|| node.into());
        self
    }

    /// Names the process, where none is named yet.
    #[must_use]
    pub fn in_process(mut self, pid: u32) -> Self {
        self.0.place.process.get_or_insert(pid);
        self
    }

    /// Names the input, where none is named yet.
    #[must_use]
    pub fn of_input(mut self, input: impl Into<String>) -> Self {
        self.0.place.input.get_or_insert_with(|| input.into());
        self
    }

    /// How the host ended, if that is what happened.
    pub fn host_exit(&self) -> Option<&HostExit> {
        match &self.0.kind {
            ErrorKind::HostLost(exit) => Some(exit),
            _ => None,
        }
    }

    /// Whether the same request may succeed when tried again, in a fresh host.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::HostLost(_) | ErrorKind::DeadlineExceeded { .. } | ErrorKind::HostStart(_)
        )
    }

    /// Whether the content is at fault: damaged, unsupported, protected or beyond the limits.
    pub fn is_content(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Malformed { .. }
                | ErrorKind::Truncated { .. }
                | ErrorKind::Undecodable { .. }
                | ErrorKind::UnsupportedByteStream { .. }
                | ErrorKind::UnsupportedCodec { .. }
                | ErrorKind::Protected { .. }
                | ErrorKind::LimitExceeded { .. }
                | ErrorKind::NoComponent(_)
        )
    }

    /// Whether the caller gave up.
    pub fn is_cancelled(&self) -> bool {
        self.0.kind == ErrorKind::Cancelled
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

impl From<TopologyFault> for Error {
    fn from(fault: TopologyFault) -> Self {
        Self::new(ErrorKind::Topology(fault))
    }
}

impl std::error::Error for Error {}

impl fmt::Debug for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("place", &self.0.place)
            .field("causes", &self.0.causes)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.0.place;
        let kind = self.0.kind.to_string();
        // What could not be opened is named already.
        if let Some(input) = place
            .input
            .as_ref()
            .filter(|input| !kind.starts_with(*input))
        {
            write!(out, "{input}: ")?;
        }
        out.write_str(&kind)?;
        match (&place.node, place.process) {
            (Some(node), Some(pid)) => write!(out, " (node {node}, process {pid})")?,
            (Some(node), None) => write!(out, " (node {node})")?,
            (None, Some(pid)) => write!(out, " (process {pid})")?,
            (None, None) => {}
        }
        for cause in &self.0.causes {
            write!(out, "; {cause}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
