//! One tree of `tracing` spans over all processes: which span a message was sent in travels with it.
//!
//! Where nothing subscribes to `tracing` this costs one look at a number for each message.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::time::SystemTime;

use tracing::Span;
use tracing::level_filters::LevelFilter;
use tracing::span::EnteredSpan;

/// Bytes of a context on the wire.
pub(crate) const LEN: usize = 24;

/// The trace that a call belongs to and the span in which it was made: the two ids of a W3C `traceparent`.
///
/// A call is handled in the other process within a span named `call`, which has them as `trace_id` and `parent_id` in
/// hexadecimal, with `parent_process` and `method`. By default `span_id` is the number that `tracing` gives the caller's span,
/// so unique within its process; the trace's id is that of the call being handled, or else one that each process draws for
/// itself. An application with ids of its own gives them by [`set_source`](Self::set_source).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: u128,
    /// The span within it.
    pub span_id: u64,
}

/// Gives the context of what this thread does just now.
pub type TraceSource = fn() -> Option<TraceContext>;

static SOURCE: OnceLock<TraceSource> = OnceLock::new();
static OWN: OnceLock<u128> = OnceLock::new();

thread_local! {
    /// What the message came with that this thread handles just now.
    static HANDLING: Cell<Option<TraceContext>> = const { Cell::new(None) };
}

impl TraceContext {
    /// What a call that is made here and now will carry; `None` where nothing is traced.
    pub fn current() -> Option<Self> {
        if !is_on() {
            return None;
        }
        if let Some(source) = SOURCE.get() {
            return source();
        }
        let handling = HANDLING.get();
        match Span::current().id() {
            Some(span) => Some(Self {
                trace_id: handling.map_or_else(own, |handling| handling.trace_id),
                span_id: span.into_u64(),
            }),
            None => handling,
        }
    }

    /// What the message came with that is being handled here and now.
    pub fn handling() -> Option<Self> {
        HANDLING.get()
    }

    /// From now on calls of this process carry what `source` gives, such as the ids of a telemetry library. The first one
    /// set stays; whether it was this one.
    pub fn set_source(source: TraceSource) -> bool {
        SOURCE.set(source).is_ok()
    }

    /// The form on the wire: both little-endian.
    pub(crate) fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..16].copy_from_slice(&self.trace_id.to_le_bytes());
        bytes[16..].copy_from_slice(&self.span_id.to_le_bytes());
        bytes
    }

    /// Takes a context off the front of a body.
    pub(crate) fn split(body: &[u8]) -> Option<(Self, &[u8])> {
        let (trace, body) = body.split_first_chunk::<16>()?;
        let (span, body) = body.split_first_chunk::<8>()?;
        let context = Self {
            trace_id: u128::from_le_bytes(*trace),
            span_id: u64::from_le_bytes(*span),
        };
        Some((context, body))
    }
}

impl fmt::Display for TraceContext {
    /// As in a `traceparent` header.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "00-{:032x}-{:016x}-01", self.trace_id, self.span_id)
    }
}

/// Whether anybody in this process subscribes to `tracing`.
fn is_on() -> bool {
    LevelFilter::current() != LevelFilter::OFF
}

/// The trace of what this process begins by itself.
fn own() -> u128 {
    *OWN.get_or_init(|| {
        let half = || u128::from(RandomState::new().hash_one(SystemTime::now()));
        half() << 64 | half()
    })
}

/// The span and the trace within which something goes on that was begun elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Carried {
    span: Span,
    handling: Option<TraceContext>,
}

impl Carried {
    /// Those of here and now; `None` where nothing is traced.
    pub(crate) fn here() -> Option<Self> {
        if !is_on() {
            return None;
        }
        let carried = Self {
            span: Span::current(),
            handling: HANDLING.get(),
        };
        (carried.handling.is_some() || !carried.span.is_none()).then_some(carried)
    }

    /// Those of a call that came from another process; `None` where nothing is traced here.
    pub(crate) fn arrived(from: TraceContext, process: u32, method: &str) -> Option<Self> {
        is_on().then(|| Self {
            span: tracing::info_span!(
                parent: None,
                "call",
                method,
                trace_id = format_args!("{:032x}", from.trace_id),
                parent_id = format_args!("{:016x}", from.span_id),
                parent_process = process,
            ),
            handling: Some(from),
        })
    }

    /// Goes on within them until what comes back is dropped.
    pub(crate) fn enter(&self) -> Within {
        Within {
            before: HANDLING.replace(self.handling),
            _span: self.span.clone().entered(),
        }
    }
}

/// See [`Carried::enter`].
pub(crate) struct Within {
    before: Option<TraceContext>,
    _span: EnteredSpan,
}

impl Drop for Within {
    fn drop(&mut self) {
        HANDLING.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_comes_back_from_its_bytes_and_reads_like_a_traceparent() {
        let context = TraceContext {
            trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
            span_id: 0x00f0_67aa_0ba9_02b7,
        };
        let mut bytes = context.to_bytes().to_vec();
        bytes.push(7);
        assert_eq!(TraceContext::split(&bytes), Some((context, &[7][..])));
        assert_eq!(TraceContext::split(&bytes[..LEN - 1]), None);
        assert_eq!(
            context.to_string(),
            "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
        );
    }

    #[test]
    fn where_nothing_subscribes_nothing_is_carried() {
        if !is_on() {
            assert_eq!(TraceContext::current(), None);
            assert!(Carried::here().is_none());
        }
    }
}
