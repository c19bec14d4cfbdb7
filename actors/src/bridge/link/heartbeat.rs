//! Whether a peer answers.
//!
//! A peer that is waited for and says nothing is asked whether it is still there. One that does not answer is reported, and
//! when it answers again that is too; later it may count as lost.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use portcullis_transport::{FrameHeader, TransportError};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::core::LinkCore;
use super::outgoing::CANCEL_DEADLINE;
use super::wire::kind;

/// A peer of which nothing was read for so long, because it stood still or because this side did, owes what it owes from then
/// on. One that says something more often has time between to answer a cancel.
const SILENCE: Duration = CANCEL_DEADLINE.checked_div(2).expect("two is not zero");

/// When a peer that does not answer is reported, and when it counts as lost.
///
/// Beats are counted, not time: a process that was stopped itself does not find its peer hung when it goes on. Nothing is
/// sent while nobody waits for the peer, or while it says something by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    interval: Duration,
    unresponsive_after: u32,
    lost_after: Option<u32>,
}

impl Default for Heartbeat {
    /// Each second. A peer that says nothing is reported two to three seconds after somebody has begun to wait for it, and is
    /// lost after five to six; one that falls silent while it is waited for, a second later each.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            unresponsive_after: 2,
            lost_after: Some(5),
        }
    }
}

impl Heartbeat {
    /// How long a beat lasts; at least a millisecond.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Duration::from_millis(1));
        self
    }

    /// After how many beats without an answer the peer is reported as [`PeerState::Unresponsive`]; at least one.
    #[must_use]
    pub fn unresponsive_after(mut self, beats: u32) -> Self {
        self.unresponsive_after = beats.max(1);
        self
    }

    /// After how many beats without an answer the peer counts as lost: pending calls fail with `HostLost`, and a host
    /// process is killed. At least one.
    #[must_use]
    pub fn lost_after(mut self, beats: u32) -> Self {
        self.lost_after = Some(beats.max(1));
        self
    }

    /// The peer is never given up for its silence: calls end at their deadlines, and those that wait by design wait.
    #[must_use]
    pub fn never_lost(mut self) -> Self {
        self.lost_after = None;
        self
    }
}

/// Whether a peer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerState {
    /// It does, or nobody waits for it.
    Responsive,
    /// It is waited for and says nothing.
    Unresponsive {
        /// When it was last heard, at most a beat earlier.
        since: SystemTime,
    },
    /// The link has ended.
    Lost,
}

/// Follows whether a peer answers. May be sent to other threads and works on any executor.
#[derive(Clone)]
pub struct PeerStates(watch::Receiver<PeerState>);

impl PeerStates {
    /// The state now.
    pub fn now(&self) -> PeerState {
        *self.0.borrow()
    }

    /// Waits for another state than the last one that this gave (at first, than the one of now) and gives it. After
    /// [`PeerState::Lost`] there is no other, and this gives `None`.
    pub async fn next(&mut self) -> Option<PeerState> {
        self.0.changed().await.ok()?;
        Some(*self.0.borrow_and_update())
    }
}

impl fmt::Debug for PeerStates {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PeerStates({:?})", self.now())
    }
}

/// The state of a link's peer.
pub(super) struct Peer {
    state: Option<watch::Sender<PeerState>>,
    last_heard: Instant,
}

impl Peer {
    pub(super) fn new() -> Self {
        Self {
            state: Some(watch::channel(PeerState::Responsive).0),
            last_heard: Instant::now(),
        }
    }

    /// When what the peer has said was last read.
    pub(super) fn last_heard(&self) -> Instant {
        self.last_heard
    }

    pub(super) fn states(&self) -> PeerStates {
        PeerStates(match &self.state {
            Some(state) => state.subscribe(),
            // Its sender is gone: there is no other state.
            None => watch::channel(PeerState::Lost).1,
        })
    }

    pub(super) fn is_unresponsive(&self) -> bool {
        let state = self.state.as_ref().map(|state| *state.borrow());
        matches!(state, Some(PeerState::Unresponsive { .. }))
    }

    /// The link has ended.
    pub(super) fn lose(&mut self) {
        if let Some(state) = self.state.take() {
            state.send_replace(PeerState::Lost);
        }
    }

    fn set(&self, new: PeerState) {
        if let Some(state) = &self.state {
            state.send_replace(new);
        }
    }
}

/// Counts the beats of a link.
pub(super) struct Beats {
    policy: Heartbeat,
    interval: Interval,
    /// Whether the peer has said anything since the last beat.
    was_heard: bool,
    missed: u32,
    last_heard: SystemTime,
}

impl Beats {
    pub(super) fn new(policy: Heartbeat) -> Self {
        let mut interval = interval(policy.interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            policy,
            interval,
            was_heard: false,
            missed: 0,
            last_heard: SystemTime::now(),
        }
    }

    /// The next beat.
    pub(super) async fn tick(&mut self) {
        self.interval.tick().await;
    }

    /// The peer has said something.
    pub(super) fn heard(&mut self, core: &LinkCore) {
        self.was_heard = true;
        self.missed = 0;
        let now = Instant::now();
        let before = std::mem::replace(&mut core.peer.borrow_mut().last_heard, now);
        if now - before >= SILENCE {
            core.outgoing.borrow_mut().restart_cancels();
        }
        if core.peer.borrow().is_unresponsive() {
            tracing::info!(
                link = core.id,
                process = core.peer_pid(),
                "the peer answers again"
            );
            core.peer.borrow().set(PeerState::Responsive);
        }
    }

    /// A beat; what ends the link for the peer's silence.
    pub(super) fn beat(&mut self, core: &Rc<LinkCore>) -> Option<TransportError> {
        let was_heard = std::mem::take(&mut self.was_heard);
        if was_heard || !core.outgoing.borrow().is_waiting() {
            self.missed = 0;
            self.last_heard = SystemTime::now();
            return None;
        }
        if self
            .policy
            .lost_after
            .is_some_and(|after| self.missed >= after)
        {
            return Some(TransportError::Timeout {
                what: "a sign of life of the peer".into(),
                after: self.policy.interval * self.missed,
            });
        }
        if self.missed >= self.policy.unresponsive_after && !core.peer.borrow().is_unresponsive() {
            let since = self.last_heard;
            tracing::warn!(
                link = core.id,
                process = core.peer_pid(),
                ?since,
                "the peer is unresponsive"
            );
            core.peer.borrow().set(PeerState::Unresponsive { since });
        }
        self.missed = self.missed.saturating_add(1);
        let ping = FrameHeader {
            kind: kind::PING,
            ..FrameHeader::default()
        };
        core.push_control(ping, &[]);
        None
    }
}
