//! Runs a link until it ends.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::task::Poll;

use futures::FutureExt;
use portcullis_engine::Result;
use portcullis_transport::{LinkReceiver, TransportError};
use tokio::time::{Instant, sleep_until};

use super::core::LinkCore;
use super::heartbeat::{Beats, Heartbeat};
use super::{Diagnose, wire};
use crate::bridge::handle::AnyHandle;
use crate::bridge::payload_port::PayloadTerms;

/// What this side brings to a link.
pub(super) struct Terms {
    pub(super) payloads: PayloadTerms,
    pub(super) root: Option<AnyHandle>,
    pub(super) heartbeat: Heartbeat,
    pub(super) diagnose: Diagnose,
}

/// Starts a link on this arbiter.
pub(super) fn start(link: portcullis_transport::Link, terms: Terms) -> Rc<LinkCore> {
    debug_assert_eq!(wire::ROOT, 0, "the root is the first export");
    let Terms {
        payloads,
        root,
        heartbeat,
        diagnose,
    } = terms;
    let core = LinkCore::new(link.sender, link.agreed, payloads);
    if let Some(root) = root {
        core.export_root(root);
    }
    actix_rt::spawn(link.writer);
    let running = Rc::clone(&core);
    let receiver = link.receiver;
    actix_rt::spawn(async move {
        // Reading a message runs the user's own code on what a peer wrote.
        let served = AssertUnwindSafe(serve(&running, receiver, heartbeat)).catch_unwind();
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
async fn serve(
    core: &Rc<LinkCore>,
    mut receiver: LinkReceiver,
    heartbeat: Heartbeat,
) -> TransportError {
    let slots = core.payloads.borrow().peer();
    let mut beats = Beats::new(heartbeat);
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
                beats.heard(core);
                match received {
                    Ok(Ok(())) => {
                        let room = core.untaken.room(&core.agreed.limits).await;
                        // Others on this arbiter have their turn after each batch, the actors that were called among them.
                        turn().await;
                        core.look_for_answers();
                        room
                    }
                    Ok(broken) => broken,
                    Err(end) => return end,
                }
            }
            () = core.woken.some() => {
                core.look_for_answers();
                Ok(())
            }
            () = core.sweep.notified() => {
                core.give_up_watches();
                core.sweep(Instant::now())
            }
            () = &mut timer, if deadline.is_some() => {
                set = None;
                core.sweep(Instant::now())
            }
            () = slots.releases_ready() => {
                core.give_back_slots();
                Ok(())
            }
            () = core.closing.notified() => return TransportError::Closed,
            () = beats.tick() => match beats.beat(core) {
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
