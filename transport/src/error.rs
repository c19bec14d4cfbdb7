//! What can go wrong between two processes, as one value that can be cloned to every waiting call.

use std::borrow::Cow;
use std::time::Duration;

use crate::sandbox::Layer;

/// Why a link, a pool or a host process failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The peer closed the link between two frames, or this side did.
    #[error("the link is closed")]
    Closed,
    /// The operating system refused something.
    #[error("{what}: {text}")]
    Io {
        /// What was being done.
        what: Cow<'static, str>,
        /// The system's own words.
        text: String,
    },
    /// The peer broke a rule. The link must be given up.
    #[error("the peer broke the protocol: {what}")]
    Protocol {
        /// Which rule, with the values seen.
        what: Cow<'static, str>,
    },
    /// A frame is larger than the agreed limit, in either direction.
    #[error("a frame of {len} bytes exceeds the limit of {max} bytes")]
    FrameTooLarge {
        /// Bytes of the body.
        len: u64,
        /// Largest body allowed.
        max: u64,
    },
    /// More descriptors than one frame may carry, or a link that cannot carry any.
    #[error("a frame with {count} descriptors exceeds the limit of {max} on this link")]
    TooManyDescriptors {
        /// Descriptors given.
        count: usize,
        /// Most that the link carries with one frame.
        max: usize,
    },
    /// More is waiting to be written than the link may hold: the peer does not read.
    #[error("{queued} bytes wait on the link, the limit is {max}; the peer does not read")]
    QueueFull {
        /// Bytes waiting, with the refused frame.
        queued: usize,
        /// The limit.
        max: usize,
    },
    /// The two sides do not fit each other.
    #[error("handshake: {field} does not fit: ours is {ours}, the peer's is {theirs}")]
    HandshakeMismatch {
        /// The part of the hello that does not fit.
        field: &'static str,
        /// Our value.
        ours: String,
        /// The peer's value.
        theirs: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {after:?}")]
    Timeout {
        /// What was waited for.
        what: Cow<'static, str>,
        /// How long.
        after: Duration,
    },
    /// The sample pool has no slot.
    #[error(transparent)]
    PoolExhausted(#[from] PoolExhausted),
    /// A host process could not be started.
    #[error("cannot start host `{program}`: {text}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        text: String,
    },
    /// A host's sandbox cannot be complete, and must be.
    #[error("host `{program}` needs the layer `{layer}`, which is not to be had: {text}")]
    Sandbox {
        /// The program.
        program: String,
        /// The layer.
        layer: Layer,
        /// Why.
        text: String,
    },
}

impl TransportError {
    /// Wraps what the operating system said while doing `what`.
    pub(crate) fn io(what: impl Into<Cow<'static, str>>, error: impl std::fmt::Display) -> Self {
        Self::Io {
            what: what.into(),
            text: error.to_string(),
        }
    }

    /// Whether the peer did what it must not do.
    pub fn is_violation(&self) -> bool {
        matches!(
            self,
            Self::Protocol { .. } | Self::FrameTooLarge { .. } | Self::HandshakeMismatch { .. }
        )
    }

    /// The peer broke the rule `what`.
    ///
    /// Public because the layer above validates what frames carry and gives a link up for the same reason.
    pub fn protocol(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Protocol { what: what.into() }
    }
}

/// No slot of a sample pool can be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no pool slot for {wanted} bytes: {reason} (pool limit {max_bytes} bytes)")]
pub struct PoolExhausted {
    /// Bytes asked for.
    pub wanted: usize,
    /// The pool's limit.
    pub max_bytes: usize,
    /// Whether it can succeed once slots come back; otherwise it never will.
    pub transient: bool,
    /// Why.
    pub reason: Cow<'static, str>,
}

/// A peer may not be lent a slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the peer cannot be lent a slot: {reason}")]
pub struct LendRefused {
    /// Whether it can once the peer gives something back.
    pub transient: bool,
    /// Why.
    pub reason: Cow<'static, str>,
}
