//! Runs a session from its topology to its end, and hands its events over as they come.

use std::time::Duration;

use futures::future::FusedFuture;
use futures::{FutureExt, StreamExt};
use portcullis_engine::event::{Event, EventKind};
use portcullis_engine::topology::{ObjectId, Topology};
use portcullis_engine::{Error, ErrorKind, MediaTime};
use tokio::time::{MissedTickBehavior, interval};

use super::failure::{Failure, Faults};
use super::progress::Progress;
use super::signals::Interrupt;
use crate::pipeline::session::OutputStatistics;
use crate::{EventStream, MediaSession, NodeObject};

/// How often counts are asked for: what a summary says of a host that was killed.
const COUNTING: Duration = Duration::from_millis(250);
/// How long a session may take to close before the command ends without it.
const CLOSING: Duration = Duration::from_secs(10);

/// What is played.
#[derive(Debug)]
pub(super) struct Program {
    /// Name of the input for messages, where there is one.
    pub(super) input: Option<String>,
    pub(super) topology: Topology,
    pub(super) objects: Vec<(ObjectId, NodeObject)>,
    pub(super) start: Option<MediaTime>,
}

/// How it went.
#[derive(Debug)]
pub(super) struct Played {
    /// The topology that was played, with what the loader inserted.
    pub(super) full: Option<Topology>,
    /// The last counts of the outputs.
    pub(super) statistics: Vec<OutputStatistics>,
    /// Errors that the session went on after.
    pub(super) faults: Faults,
    /// Why it did not go to its end.
    pub(super) failure: Option<Failure>,
}

impl Played {
    fn fail(&mut self, failure: impl Into<Failure>) {
        self.failure.get_or_insert(failure.into());
    }

    /// The exit code so far.
    pub(super) fn code(&self) -> u8 {
        match &self.failure {
            Some(failure) => failure.code(),
            None if self.faults.count() > 0 => 4,
            None => 0,
        }
    }

    pub(super) fn outcome(self) -> Result<(), Failure> {
        match self.failure {
            Some(failure) => Err(failure),
            None => self.faults.outcome(),
        }
    }
}

/// Plays to the end, a failure or a signal, and closes the session, so that its sinks complete what they wrote.
///
/// Events are handed over in their order, with what one cannot be printed for ending it.
pub(super) async fn play(
    session: &MediaSession,
    events: &mut EventStream,
    program: Program,
    interrupt: &mut Interrupt,
    progress: &Progress,
    mut on_event: impl FnMut(&Event) -> Result<(), Failure>,
) -> Played {
    let mut played = Played {
        full: None,
        statistics: Vec::new(),
        faults: Faults::new(program.input.clone()),
        failure: None,
    };
    let Program {
        topology,
        objects,
        start,
        ..
    } = program;
    let begin = async {
        let full = session.set_topology(topology, objects).await?;
        session.start(start).await?;
        Ok::<_, Error>(full)
    };
    let mut begin = Box::pin(begin.fuse());
    let mut counting = interval(COUNTING);
    counting.set_missed_tick_behavior(MissedTickBehavior::Delay);
    counting.reset();
    // Asked for beside everything else: a host that answers slowly must not delay a signal.
    let mut asking = Box::pin(futures::future::Fuse::terminated());
    let mut is_alive = true;
    let (mut has_begun, mut has_ended) = (false, false);
    // The end of a short one is heard of before the answer that it has begun.
    while !(has_begun && has_ended) {
        tokio::select! {
            biased;
            event = events.next() => {
                let Some(event) = event else {
                    is_alive = false;
                    // A host that is lost has said so by an event before.
                    played.fail(Error::cancelled().because("the session's events ended before it did"));
                    break;
                };
                if let Err(failure) = on_event(&event) {
                    played.fail(failure);
                    break;
                }
                has_ended |= played.follow(&event);
                if has_ended && played.failure.is_some() {
                    break;
                }
            }
            outcome = &mut begin, if !has_begun => {
                has_begun = true;
                match outcome {
                    Ok(full) => played.full = Some(full),
                    Err(error) => {
                        played.fail(error);
                        break;
                    }
                }
            }
            signal = interrupt.next() => {
                played.fail(signal);
                break;
            }
            // A session that is gone says so by its events.
            outcome = &mut asking => if let Ok(statistics) = outcome {
                played.statistics = statistics;
                let positions = played.statistics.iter().filter_map(|output| output.counts.position);
                if let Some(position) = positions.max() {
                    progress.at(position);
                }
            },
            _ = counting.tick(), if asking.is_terminated() => {
                asking.set(session.statistics().fuse());
            }
        }
    }
    drop(begin);
    if is_alive {
        played.close(session, interrupt).await;
    }
    // What the end and the closing have raised.
    while let Some(Some(event)) = events.next().now_or_never() {
        played.follow(&event);
        if let Err(failure) = on_event(&event) {
            played.fail(failure);
            break;
        }
    }
    played
}

impl Played {
    /// Whether nothing more is to be waited for after this event.
    fn follow(&mut self, event: &Event) -> bool {
        match (&event.kind, &event.status) {
            (EventKind::SessionEnded { .. }, _) => return true,
            (EventKind::NonFatalError, Err(error)) if error.is_content() => self.faults.add(error),
            // What could not be read is no fault of the content.
            (EventKind::NonFatalError, Err(error)) => self.fail(error.clone()),
            (EventKind::Error, Err(error)) => {
                // The first one is said at the end; what is intact is played up to there.
                if self.failure.is_some() {
                    self.faults.add(error);
                }
                self.fail(error.clone());
                // A source that is gone takes the presentation with it; no end is announced.
                return matches!(
                    error.kind(),
                    ErrorKind::ActorStopped | ErrorKind::HostLost(_)
                );
            }
            _ => {}
        }
        false
    }

    async fn close(&mut self, session: &MediaSession, interrupt: &mut Interrupt) {
        if let Ok(statistics) = session.statistics().await {
            self.statistics = statistics;
        }
        tokio::select! {
            closed = session.close() => if let Err(error) = closed {
                self.fail(error);
            },
            // Asked for a second time: at once.
            signal = interrupt.next() => self.fail(signal),
            () = tokio::time::sleep(CLOSING) => {
                self.fail(Error::new(ErrorKind::DeadlineExceeded { what: "CloseSession".into() }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use portcullis_engine::topology::NodeId;

    use super::*;

    fn after(error: Error) -> u8 {
        let mut played = Played {
            full: None,
            statistics: Vec::new(),
            faults: Faults::new(None),
            failure: None,
        };
        let event = Event::of_node(EventKind::NonFatalError, NodeId(1)).failed(error);
        assert!(!played.follow(&event), "the rest is played");
        played.code()
    }

    #[test]
    fn an_input_that_cannot_be_read_is_another_code_than_damaged_content() {
        let broken = io::Error::from_raw_os_error(5);
        assert_eq!(after(Error::io("clip.mp4", &broken)), 3);
        assert_eq!(after(Error::malformed(7, "a box")), 4);
    }
}
