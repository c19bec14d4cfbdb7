//! Runs a link until it ends.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use portcullis_engine::Result;
use portcullis_transport::{FrameHeader, LinkReceiver, TransportError};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::core::LinkCore;
use super::{Diagnose, wire};
use crate::bridge::handle::AnyHandle;
use crate::bridge::payload_port::PayloadTerms;

/// How often a peer that is waited for and says nothing is asked whether it is still there.
const BEAT: Duration = Duration::from_secs(1);
/// Beats without a word from the peer after which it counts as hung.
const MISSED_BEATS: u32 = 5;

/// Starts a link on this arbiter. With `beats` a peer that does not answer at all ends it.
pub(super) fn start(
    link: portcullis_transport::Link,
    terms: PayloadTerms,
    root: Option<AnyHandle>,
    beats: bool,
    diagnose: Diagnose,
) -> Rc<LinkCore> {
    debug_assert_eq!(wire::ROOT, 0, "the root is the first export");
    let core = LinkCore::new(link.sender, link.agreed, terms);
    if let Some(root) = root {
        core.export_root(root);
    }
    actix_rt::spawn(link.writer);
    let running = Rc::clone(&core);
    let receiver = link.receiver;
    actix_rt::spawn(async move {
        // Reading a message runs the user's own code on what a peer wrote.
        let served = AssertUnwindSafe(serve(&running, receiver, beats)).catch_unwind();
        let ended = served.await.unwrap_or_else(|_| {
            TransportError::protocol("reading a message of the peer panicked in this process")
        });
        running.mark_lost();
        running.sender.abort(ended.clone());
        let error = diagnose(ended).await;
        running.fail(&error);
    });
    core
}

/// Takes the peer's frames until the link ends, and says what ended it.
async fn serve(core: &Rc<LinkCore>, mut receiver: LinkReceiver, beats: bool) -> TransportError {
    let slots = core.payloads.borrow().peer();
    let mut heartbeat = Heartbeat::default();
    let mut beat = interval(BEAT);
    // Beats are counted, not time: a process that was stopped itself must not find its peer hung when it goes on.
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut timer = std::pin::pin!(sleep_until(Instant::now()));
    let mut set = None;
    loop {
        let deadline = core.outgoing.borrow().next_deadline();
        if let Some(deadline) = deadline.filter(|_| set != deadline) {
            timer.as_mut().reset(deadline);
            set = Some(deadline);
        }
        let outcome = tokio::select! {
            received = receive(core, &mut receiver) => {
                heartbeat.heard();
                match received {
                    Ok(Ok(())) => {
                        // Others on this arbiter have their turn after each batch, the actors that were called among them.
                        turn().await;
                        core.look_for_answers();
                        Ok(())
                    }
                    Ok(broken) => broken,
                    Err(end) => return end,
                }
            }
            () = core.woken.some() => {
                core.look_for_answers();
                Ok(())
            }
            () = core.sweep.notified() => core.sweep(Instant::now()),
            () = &mut timer, if deadline.is_some() => {
                set = None;
                core.sweep(Instant::now())
            }
            () = slots.releases_ready() => {
                core.give_back_slots();
                Ok(())
            }
            () = core.closing.notified() => return TransportError::Closed,
            _ = beat.tick(), if beats => match heartbeat.beat(core) {
                Some(hung) => return hung,
                None => Ok(()),
            },
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, link = core.id, "the peer breaks the protocol");
            return TransportError::protocol(error.to_string());
        }
    }
}

/// Takes the frames of one read; fails in the inner way where the peer breaks the protocol.
async fn receive(
    core: &Rc<LinkCore>,
    receiver: &mut LinkReceiver,
) -> Result<Result<()>, TransportError> {
    poll_fn(|cx| {
        let mut outcome = Ok(());
        let received = receiver.poll_receive_each(cx, |frame| {
            outcome = core.receive(frame);
            match outcome {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        received.map_ok(|()| std::mem::replace(&mut outcome, Ok(())))
    })
    .await
}

/// Lets all others on this arbiter that are ready have their turn. Unlike tokio's `yield_now` it does not look for I/O first.
async fn turn() {
    let mut had_turn = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut had_turn, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Notices a peer that does not serve its link any more.
#[derive(Default)]
struct Heartbeat {
    /// Whether the peer has said anything since the last beat.
    was_heard: bool,
    missed: u32,
}

impl Heartbeat {
    fn heard(&mut self) {
        self.was_heard = true;
        self.missed = 0;
    }

    fn beat(&mut self, core: &LinkCore) -> Option<TransportError> {
        let was_heard = std::mem::take(&mut self.was_heard);
        if was_heard || !core.outgoing.borrow().is_waiting() {
            self.missed = 0;
            return None;
        }
        if self.missed >= MISSED_BEATS {
            return Some(TransportError::Timeout {
                what: "a sign of life of the peer".into(),
                after: BEAT * MISSED_BEATS,
            });
        }
        self.missed += 1;
        let ping = FrameHeader {
            kind: wire::kind::PING,
            ..FrameHeader::default()
        };
        core.push_control(ping, &[]);
        None
    }
}
