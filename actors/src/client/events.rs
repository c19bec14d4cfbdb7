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
/// A subscriber that lets 4096 events or 64 MiB of them wait is dropped: its stream ends.
pub struct EventStream {
    events: mpsc::Receiver<(Event, usize)>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let event = ready!(self.events.poll_recv(cx));
        Poll::Ready(event.map(|(event, bytes)| {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
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
    events: mpsc::Sender<(Event, usize)>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Subscriber {
    /// Whether there was room for it.
    fn give(&self, event: &Event, bytes: usize) -> bool {
        // Only this end adds.
        let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        waiting.saturating_add(bytes) <= WAITING_BYTES
            && self.events.try_send((event.clone(), bytes)).is_ok()
    }
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
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let mut shared = lock(&self.shared);
        if shared.ended.is_none() {
            shared.subscribers.push(Subscriber {
                events: sender,
                waiting_bytes: Arc::clone(&waiting_bytes),
            });
        }
        EventStream {
            events,
            waiting_bytes,
        }
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
                // A full or dropped subscriber misses it; its stream ends all the same.
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
