//! A session's events on the application's side, and the completion of its commands.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
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

/// Takes a session's events and gives them to whoever waits.
#[derive(Clone, Default)]
pub(super) struct Events(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    subscribers: Vec<mpsc::Sender<Event>>,
    waiting: HashMap<CommandId, oneshot::Sender<Event>>,
    completed: VecDeque<(CommandId, Event)>,
    ended: Option<Error>,
}

impl Events {
    /// Starts to take the events of a session until it is gone.
    pub(super) async fn start(session: Handle<SessionControl>) -> Result<Self> {
        let events = Self::default();
        let shared = Arc::downgrade(&events.0);
        runtime::run(move || async move {
            actix_rt::spawn(async move {
                loop {
                    let next = session.send(NextSessionEvents).await;
                    let Some(shared) = shared.upgrade() else {
                        return;
                    };
                    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    match next {
                        Ok(events) => events.into_iter().for_each(|event| shared.take(event)),
                        Err(error) => return shared.end(error),
                    }
                }
            });
            Ok(())
        })
        .await?;
        Ok(events)
    }

    pub(super) fn subscribe(&self) -> EventStream {
        let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.ended.is_none() {
            shared.subscribers.push(sender);
        }
        EventStream(receiver)
    }

    /// The event that completes a command.
    pub(super) async fn completion(&self, command: CommandId) -> Result<Event> {
        let waiting = {
            let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
            let (sender, receiver) = oneshot::channel();
            shared.waiting.insert(command, sender);
            receiver
        };
        match waiting.await {
            Ok(event) => Ok(event),
            Err(_) => {
                let shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                Err(shared.ended.clone().unwrap_or_else(Error::cancelled))
            }
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
        self.subscribers.retain(|subscriber| subscriber.try_send(event.clone()).is_ok());
        if let Some(command) = event.command {
            match self.waiting.remove(&command) {
                // Whoever waited may have gone.
                Some(waiting) => drop(waiting.send(event.clone())),
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
