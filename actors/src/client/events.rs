//! A session's events on the application's side, and the completion of its commands.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures::Stream;
use portcullis_engine::event::{CommandId, Event, EventKind};
use portcullis_engine::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot};

use crate::bridge::Handle;
use crate::pipeline::session::{NextSessionEvents, SessionControl};
use crate::{runtime, system_time};

/// Events that wait for one subscriber.
const WAITING_EVENTS: usize = 4096;
/// What they may weigh.
const WAITING_BYTES: usize = 64 << 20;
/// Completions that are kept for commands whose caller has not asked yet.
const KEPT_COMPLETIONS: usize = 256;

/// The events of a session, from when it was asked for until the session is gone.
///
/// While 4096 events or 64 MiB of them wait for a slow subscriber, further ones are left out, but never an `Error`, a
/// `SessionEnded` or what completes a command; where twice as many wait all the same, its stream ends.
pub struct EventStream {
    events: mpsc::UnboundedReceiver<(Event, usize)>,
    waiting: Arc<Waiting>,
}

/// How much waits for a subscriber.
#[derive(Debug, Default)]
struct Waiting {
    events: AtomicUsize,
    bytes: AtomicUsize,
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let event = ready!(self.events.poll_recv(cx));
        Poll::Ready(event.map(|(event, bytes)| {
            self.waiting.events.fetch_sub(1, Ordering::Relaxed);
            self.waiting.bytes.fetch_sub(bytes, Ordering::Relaxed);
            event
        }))
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("EventStream")
    }
}

/// Takes a session's events and gives them to whoever waits, as long as a clone of it is there.
#[derive(Clone)]
pub(super) struct Events {
    shared: Arc<Mutex<Shared>>,
    /// Ends the task that asks the session, and with it the session's last handle.
    _alive: Arc<oneshot::Sender<Infallible>>,
}

struct Shared {
    subscribers: Vec<Subscriber>,
    waiting: HashMap<CommandId, oneshot::Sender<Event>>,
    completed: VecDeque<(CommandId, Event, usize)>,
    completed_bytes: usize,
    /// Commands whose id is not known here yet: only for them completions are kept.
    sending: usize,
    ended: Option<Error>,
}

struct Subscriber {
    events: mpsc::UnboundedSender<(Event, usize)>,
    waiting: Arc<Waiting>,
}

impl Subscriber {
    /// Gives it the event, if there is room or it matters; says whether the subscriber stays.
    fn give(&self, event: &Event, bytes: usize) -> bool {
        // Only this end adds.
        let events = self.waiting.events.load(Ordering::Relaxed);
        let waiting = self.waiting.bytes.load(Ordering::Relaxed);
        let fits = |most: usize| {
            events < most * WAITING_EVENTS
                && waiting.saturating_add(bytes) <= most.saturating_mul(WAITING_BYTES)
        };
        if !fits(1) && !matters(event) {
            return !self.events.is_closed();
        }
        if !fits(2) {
            return false;
        }
        self.waiting.events.fetch_add(1, Ordering::Relaxed);
        self.waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.events.send((event.clone(), bytes)).is_ok()
    }
}

/// Whether a subscriber cannot do without the event.
pub(crate) fn matters(event: &Event) -> bool {
    event.command.is_some()
        || matches!(
            event.kind,
            EventKind::Error | EventKind::SessionEnded { .. } | EventKind::SessionClosed
        )
}

/// What an event weighs: a hostile host makes them as large as a frame.
fn weight(event: &Event) -> usize {
    postcard::experimental::serialized_size(event).unwrap_or(WAITING_BYTES)
}

/// A command on its way to the session.
pub(super) struct Sending(Arc<Mutex<Shared>>);

impl Drop for Sending {
    fn drop(&mut self) {
        let mut shared = lock(&self.0);
        shared.sending = shared.sending.saturating_sub(1);
        if shared.sending == 0 {
            shared.completed.clear();
            shared.completed_bytes = 0;
        }
    }
}

impl Events {
    /// Starts to take the events of a session until it is gone, or nobody is interested any more.
    pub(super) async fn start(session: Handle<SessionControl>) -> Result<Self> {
        let (alive, mut dropped) = oneshot::channel::<Infallible>();
        let shared = Arc::new(Mutex::new(Shared {
            subscribers: Vec::new(),
            waiting: HashMap::new(),
            completed: VecDeque::new(),
            completed_bytes: 0,
            sending: 0,
            ended: None,
        }));
        let taking = Arc::clone(&shared);
        runtime::run(move || async move {
            actix_rt::spawn(async move {
                loop {
                    let next = tokio::select! {
                        next = session.send(NextSessionEvents) => next,
                        _ = &mut dropped => return,
                    };
                    let mut shared = lock(&taking);
                    match next {
                        Ok(events) => events.into_iter().for_each(|event| shared.take(event)),
                        Err(error) => return shared.end(error),
                    }
                }
            });
            Ok(())
        })
        .await?;
        Ok(Self {
            shared,
            _alive: Arc::new(alive),
        })
    }

    /// Says that a command is being sent: call it before, and keep it until its completion is waited for.
    pub(super) fn sending(&self) -> Sending {
        lock(&self.shared).sending += 1;
        Sending(Arc::clone(&self.shared))
    }

    pub(super) fn subscribe(&self) -> EventStream {
        // Bounded by what waits, see `Subscriber::give`.
        let (sender, events) = mpsc::unbounded_channel();
        let waiting = Arc::new(Waiting::default());
        let mut shared = lock(&self.shared);
        if shared.ended.is_none() {
            shared.subscribers.push(Subscriber {
                events: sender,
                waiting: Arc::clone(&waiting),
            });
        }
        EventStream { events, waiting }
    }

    /// The event that completes a command.
    pub(super) async fn completion(&self, command: CommandId) -> Result<Event> {
        let waiting = {
            let mut shared = lock(&self.shared);
            let mut completed = shared.completed.iter();
            if let Some(at) = completed.position(|(id, ..)| *id == command) {
                let event = shared.completed.remove(at);
                return event.map_or_else(
                    || Err(Error::cancelled()),
                    |(_, event, bytes)| {
                        shared.completed_bytes -= bytes;
                        Ok(event)
                    },
                );
            }
            if let Some(error) = &shared.ended {
                return Err(error.clone());
            }
            shared.waiting.retain(|_, waiting| !waiting.is_closed());
            let (sender, receiver) = oneshot::channel();
            shared.waiting.insert(command, sender);
            receiver
        };
        match waiting.await {
            Ok(event) => Ok(event),
            Err(_) => Err(lock(&self.shared)
                .ended
                .clone()
                .unwrap_or_else(Error::cancelled)),
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Events")
    }
}

impl Shared {
    fn take(&mut self, event: Event) {
        let bytes = weight(&event);
        self.subscribers
            .retain(|subscriber| subscriber.give(&event, bytes));
        let Some(command) = event.command else {
            return;
        };
        match self.waiting.remove(&command) {
            // Whoever waited may have gone.
            Some(waiting) => drop(waiting.send(event)),
            None if self.sending == 0 => {}
            None => {
                self.completed_bytes += bytes;
                self.completed.push_back((command, event, bytes));
                while self.completed.len() > KEPT_COMPLETIONS
                    || self.completed_bytes > WAITING_BYTES
                {
                    let Some((.., bytes)) = self.completed.pop_front() else {
                        break;
                    };
                    self.completed_bytes -= bytes;
                }
            }
        }
    }

    /// The session answers no more: for a lost host that is an event of its own, raised here.
    fn end(&mut self, error: Error) {
        if !matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::ActorStopped) {
            let mut event = Event::new(EventKind::Error).failed(error.clone());
            event.time = Some(system_time::now());
            event.pid = Some(std::process::id());
            for subscriber in &self.subscribers {
                // A dropped subscriber needs it no more.
                subscriber.give(&event, 0);
            }
        }
        self.ended = Some(error);
        self.subscribers.clear();
        self.waiting.clear();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use portcullis_engine::topology::NodeId;

    use super::*;

    #[test]
    fn what_matters_reaches_a_slow_subscriber() {
        let (sender, events) = mpsc::unbounded_channel();
        let waiting = Arc::new(Waiting::default());
        let subscriber = Subscriber {
            events: sender,
            waiting: Arc::clone(&waiting),
        };
        let mut stream = EventStream { events, waiting };
        let fault = Event::of_node(EventKind::NonFatalError, NodeId(1));
        for _ in 0..2 * WAITING_EVENTS {
            assert!(subscriber.give(&fault, 10));
        }
        let essential = [
            Event::of_node(EventKind::Error, NodeId(1)),
            Event::new(EventKind::SessionEnded { at: None }),
            Event::new(EventKind::SessionPaused).completing(CommandId(7)),
        ];
        for event in &essential {
            assert!(subscriber.give(event, 10));
        }
        let mut seen = Vec::new();
        while let Some(Some(event)) = stream.next().now_or_never() {
            seen.push(event);
        }
        assert_eq!(seen.len(), WAITING_EVENTS + 3);
        assert_eq!(seen[WAITING_EVENTS..], essential);
        // There is room again; and an end to what is kept.
        assert!(subscriber.give(&fault, 10));
        let kept = (0..3 * WAITING_EVENTS).take_while(|_| subscriber.give(&essential[0], 10));
        assert_eq!(kept.count(), 2 * WAITING_EVENTS - 1);
    }
}
