//! A session's events on the application's side, and the completion of its commands.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::Stream;
use portcullis_engine::event::{CommandId, Event, EventKind};
use portcullis_engine::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot};

use crate::bridge::Handle;
use crate::pipeline::session::{NextSessionEvents, SessionControl};
use crate::{runtime, system_time};

/// Events that wait for one subscriber.
const WAITING_EVENTS: usize = 4096;
/// Completions that are kept for commands whose caller has not asked yet.
const KEPT_COMPLETIONS: usize = 256;

/// The events of a session, from when it was asked for until the session is gone.
///
/// A subscriber that lets 4096 events wait is dropped: its stream ends.
pub struct EventStream(mpsc::Receiver<Event>);

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.0.poll_recv(cx)
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
    subscribers: Vec<mpsc::Sender<Event>>,
    waiting: HashMap<CommandId, oneshot::Sender<Event>>,
    completed: VecDeque<(CommandId, Event)>,
    /// Commands whose id is not known here yet: only for them completions are kept.
    sending: usize,
    ended: Option<Error>,
}

/// A command on its way to the session.
pub(super) struct Sending(Arc<Mutex<Shared>>);

impl Drop for Sending {
    fn drop(&mut self) {
        let mut shared = lock(&self.0);
        shared.sending = shared.sending.saturating_sub(1);
        if shared.sending == 0 {
            shared.completed.clear();
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
        let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
        let mut shared = lock(&self.shared);
        if shared.ended.is_none() {
            shared.subscribers.push(sender);
        }
        EventStream(receiver)
    }

    /// The event that completes a command.
    pub(super) async fn completion(&self, command: CommandId) -> Result<Event> {
        let waiting = {
            let mut shared = lock(&self.shared);
            if let Some(at) = shared.completed.iter().position(|(id, _)| *id == command) {
                return shared
                    .completed
                    .remove(at)
                    .map(|(_, event)| event)
                    .ok_or_else(Error::cancelled);
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
        // First: whoever waits for a command's completion finds its event in the stream.
        self.subscribers
            .retain(|subscriber| subscriber.try_send(event.clone()).is_ok());
        if let Some(command) = event.command {
            match self.waiting.remove(&command) {
                // Whoever waited may have gone.
                Some(waiting) => drop(waiting.send(event.clone())),
                None if self.sending == 0 => {}
                None => {
                    self.completed.push_back((command, event.clone()));
                    if self.completed.len() > KEPT_COMPLETIONS {
                        self.completed.pop_front();
                    }
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
                let _ = subscriber.try_send(event.clone());
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
