//! The state of a source, and the events that its changes raise (reference 2.3).
//!
//! The source itself is a [`MediaSource`](crate::MediaSource) on a worker; whoever drives it asks this machine what may be done
//! and what is to be said about it. What it delivers is decided by its [`SourceOutputs`].

mod outputs;

pub use outputs::{Reading, SourceOutputs, Start};

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventKind};
use crate::media::MediaTime;
use crate::presentation::StreamId;
use crate::topology::{NodeId, SourceGroup};

/// What a source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceState {
    /// It delivers nothing.
    Stopped,
    /// It delivers what is asked for.
    Started,
    /// It keeps what is asked for until it starts again.
    Paused,
    /// It is no more.
    ShutDown,
}

#[derive(Clone, Debug)]
struct Stream {
    node: NodeId,
    id: StreamId,
    /// Whether it was delivered since the source last stood at its beginning.
    is_known: bool,
    has_ended: bool,
}

/// The decisions of one source.
#[derive(Clone, Debug)]
pub struct SourceMachine {
    node: NodeId,
    state: SourceState,
    streams: Vec<Stream>,
}

impl SourceMachine {
    /// A stopped source with the streams of its nodes in a topology.
    pub fn new(group: &SourceGroup) -> Self {
        let streams = group.streams.iter().map(|(node, id)| Stream {
            node: *node,
            id: *id,
            is_known: false,
            has_ended: false,
        });
        Self {
            node: group.node,
            state: SourceState::Stopped,
            streams: streams.collect(),
        }
    }

    /// What it does.
    pub fn state(&self) -> SourceState {
        self.state
    }

    /// The streams that are to be delivered: each once, in order.
    pub fn selected(&self) -> Vec<StreamId> {
        let mut selected: Vec<_> = self.streams.iter().map(|stream| stream.id).collect();
        selected.sort_unstable();
        selected.dedup();
        selected
    }

    /// The source was started at a position, or to go on, with this result: what to raise.
    pub fn started(&mut self, position: Option<MediaTime>, result: Result<()>) -> Vec<Event> {
        let was_stopped = self.state == SourceState::Stopped;
        // From stopped it starts somewhere, and says where.
        let position = position.or(was_stopped.then_some(MediaTime::ZERO));
        if let Err(error) = result {
            self.state = SourceState::Stopped;
            let event = Event::of_node(EventKind::SourceStarted { position }, self.node);
            return vec![event.failed(error)];
        }
        self.state = SourceState::Started;
        let (whole, part) = match position {
            Some(position) if !was_stopped => (
                EventKind::SourceSeeked { position },
                EventKind::StreamSeeked { position },
            ),
            position => (
                EventKind::SourceStarted { position },
                EventKind::StreamStarted { position },
            ),
        };
        let mut events = Vec::new();
        for stream in &mut self.streams {
            let is_known = std::mem::replace(&mut stream.is_known, true);
            let kind = match is_known {
                true => EventKind::UpdatedStream,
                false => EventKind::NewStream,
            };
            events.push(Event::of_stream(kind, stream.node, stream.id.0));
            if position.is_some() {
                stream.has_ended = false;
            }
        }
        events.push(Event::of_node(whole, self.node));
        self.on_streams(&part, &mut events);
        events
    }

    /// Pauses: what to raise.
    ///
    /// # Errors
    /// `InvalidStateTransition` unless it is started.
    pub fn pause(&mut self) -> Result<Vec<Event>> {
        if self.state != SourceState::Started {
            let what = "only a started source can pause";
            return Err(ErrorKind::InvalidStateTransition(what.into()).into());
        }
        self.state = SourceState::Paused;
        let mut events = vec![Event::of_node(EventKind::SourcePaused, self.node)];
        self.on_streams(&EventKind::StreamPaused, &mut events);
        Ok(events)
    }

    /// Stops, from any state: what to raise.
    pub fn stop(&mut self) -> Vec<Event> {
        self.state = SourceState::Stopped;
        let mut events = vec![Event::of_node(EventKind::SourceStopped, self.node)];
        self.on_streams(&EventKind::StreamStopped, &mut events);
        events
    }

    /// A request came to the end of a node's stream: what to raise, the end of the presentation too if it was the last.
    ///
    /// # Errors
    /// `InvalidRequest` for a node that is not the source's.
    pub fn stream_ended(&mut self, node: NodeId) -> Result<Vec<Event>> {
        if !self.streams.iter().any(|stream| stream.node == node) {
            let what = format!("node {node} is not of this source");
            return Err(Error::invalid_request(what));
        }
        let mut events = Vec::new();
        for stream in self.streams.iter_mut().filter(|stream| stream.node == node) {
            if !std::mem::replace(&mut stream.has_ended, true) {
                events.push(Event::of_stream(EventKind::EndOfStream, node, stream.id.0));
            }
        }
        if !events.is_empty() && self.streams.iter().all(|stream| stream.has_ended) {
            events.push(Event::of_node(EventKind::EndOfPresentation, self.node));
        }
        Ok(events)
    }

    fn on_streams(&self, kind: &EventKind, events: &mut Vec<Event>) {
        let of = |stream: &Stream| Event::of_stream(kind.clone(), stream.node, stream.id.0);
        events.extend(self.streams.iter().map(of));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::ObjectRef;

    fn source(streams: u32) -> SourceMachine {
        SourceMachine::new(&SourceGroup {
            node: NodeId(1),
            object: ObjectRef::url("a"),
            descriptor: None,
            streams: (0..streams)
                .map(|id| (NodeId(u64::from(id) + 1), StreamId(id)))
                .collect(),
        })
    }

    fn kinds(events: Vec<Event>) -> Vec<EventKind> {
        events.into_iter().map(|event| event.kind).collect()
    }

    #[test]
    fn d36_the_events_of_start_pause_seek_and_stop() {
        use EventKind as K;
        let mut source = source(1);
        let zero = Some(MediaTime::ZERO);
        let position = MediaTime::ZERO;
        assert_eq!(
            kinds(source.started(None, Ok(()))),
            [
                K::NewStream,
                K::SourceStarted { position: zero },
                K::StreamStarted { position: zero }
            ]
        );
        let paused = kinds(source.pause().expect("is started"));
        assert_eq!(paused, [K::SourcePaused, K::StreamPaused]);
        assert!(source.pause().is_err());
        assert_eq!(
            kinds(source.started(None, Ok(()))),
            [
                K::UpdatedStream,
                K::SourceStarted { position: None },
                K::StreamStarted { position: None }
            ]
        );
        source.pause().expect("is started");
        assert_eq!(
            kinds(source.started(zero, Ok(()))),
            [
                K::UpdatedStream,
                K::SourceSeeked { position },
                K::StreamSeeked { position }
            ]
        );
        assert_eq!(kinds(source.stop()), [K::SourceStopped, K::StreamStopped]);
        assert_eq!(
            kinds(source.started(zero, Ok(())))[1],
            K::SourceStarted { position: zero }
        );
    }

    #[test]
    fn d37_the_end_comes_with_the_request_behind_the_last_sample() {
        let mut source = source(2);
        let (first, second) = (NodeId(1), NodeId(2));
        source.started(None, Ok(()));
        let ended = kinds(source.stream_ended(first).expect("is its own"));
        assert_eq!(ended, [EventKind::EndOfStream]);
        let events = source.stream_ended(second).expect("is its own");
        assert_eq!(events[1].kind, EventKind::EndOfPresentation);
        let again = source.stream_ended(second).expect("is its own");
        assert!(again.is_empty());
        source.started(Some(MediaTime::ZERO), Ok(()));
        let again = source.stream_ended(second).expect("is its own");
        assert_eq!(again.len(), 1);
        assert!(source.stream_ended(NodeId(7)).is_err());
    }

    #[test]
    fn a_failed_start_is_one_event() {
        let mut source = source(2);
        let failed = source.started(None, Err(Error::cancelled()));
        assert_eq!(failed.len(), 1);
        assert!(failed[0].error().expect("failed").is_cancelled());
        assert_eq!(source.state(), SourceState::Stopped);
    }
}
