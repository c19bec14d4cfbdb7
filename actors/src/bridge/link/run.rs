//! Runs a link until it ends.

use std::rc::Rc;
use std::time::{Duration, Instant};

use portcullis_engine::{Error, Result};
use portcullis_transport::{Frame, LinkReceiver, TransportError};

use super::core::LinkCore;
use super::{Diagnose, wire};
use crate::bridge::handle::AnyHandle;

/// How often deadlines are looked at while calls are in flight.
const TICK: Duration = Duration::from_millis(50);

/// Starts a link on this arbiter.
pub(super) fn start(
    link: portcullis_transport::Link,
    root: Option<AnyHandle>,
    diagnose: Diagnose,
) -> Rc<LinkCore> {
    debug_assert_eq!(wire::ROOT, 0, "the root is the first export");
    let core = LinkCore::new(link.sender, link.agreed);
    if let Some(root) = root {
        core.export_root(root);
    }
    actix_rt::spawn(link.writer);
    let running = Rc::clone(&core);
    let receiver = link.receiver;
    actix_rt::spawn(async move {
        let ended = serve(&running, receiver).await;
        running.mark_lost();
        running.sender.abort(ended.clone());
        let error = diagnose(ended).await;
        running.fail(&error);
    });
    core
}

/// Takes the peer's frames until the link ends, and says what ended it.
async fn serve(core: &Rc<LinkCore>, mut receiver: LinkReceiver) -> TransportError {
    let mut frames = Vec::new();
    let slots = core.payloads.borrow().peer();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            received = receiver.receive(&mut frames) => {
                let end = received.err();
                // What came before the end counts.
                if let Err(error) = take(core, &mut frames) {
                    tracing::warn!(%error, link = core.id, "the peer breaks the protocol");
                    return TransportError::protocol(error.to_string());
                }
                if let Some(end) = end {
                    return end;
                }
                // Others on this arbiter have their turn after each batch.
                tokio::task::yield_now().await;
            }
            () = core.sweep.notified() => core.sweep(Instant::now()),
            () = slots.releases_ready() => core.give_back_slots(),
            () = core.closing.notified() => return TransportError::Closed,
            _ = tick.tick(), if core.calls.borrow().in_flight() > 0 => core.sweep(Instant::now()),
        }
    }
}

fn take(core: &Rc<LinkCore>, frames: &mut Vec<Frame>) -> Result<(), Error> {
    frames.drain(..).try_for_each(|frame| core.receive(frame))
}
