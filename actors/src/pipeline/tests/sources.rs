//! A source and its ports.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use portcullis_engine::{
    ContentLimits, ErrorKind, MediaSource, MediaType, PresentationDescriptor, SampleAllocator,
    SampleBuffer, StreamDescriptor, StreamId, Subtype, TimeBase,
};

use super::*;
use crate::pipeline::events::{NextNodeEvents, NodeEvent};
use crate::pipeline::memory::NodeMemory;
use crate::pipeline::sink::{Accept, ConnectSink, Grabber, ReadAhead, SampleGrabber};
use crate::pipeline::source::*;

/// Two streams in turn, a fault at the third sample, and an end.
struct Turns {
    presentation: PresentationDescriptor,
    next: i64,
    count: i64,
}

impl MediaSource for Turns {
    fn presentation(&self) -> &PresentationDescriptor {
        &self.presentation
    }
    fn start(&mut self, _: &[StreamId], position: Option<MediaTime>) -> Result<()> {
        match position {
            Some(position) if position.ticks() < 0 => Err(Error::cancelled()),
            Some(position) => {
                self.next = position.ticks() / 10_000;
                Ok(())
            }
            None => Ok(()),
        }
    }
    fn read(&mut self) -> Result<Option<(StreamId, Sample)>> {
        self.next += 1;
        match self.next - 1 {
            at if at >= self.count => Ok(None),
            2 => Err(Error::malformed(2, "a fault")),
            at => Ok(Some((StreamId((at % 2) as u32), sample(at)))),
        }
    }
}

/// Like `Turns`, of one stream, and says how often it was read.
struct Counted {
    turns: Turns,
    reads: Arc<AtomicU64>,
}

impl MediaSource for Counted {
    fn presentation(&self) -> &PresentationDescriptor {
        self.turns.presentation()
    }
    fn start(&mut self, selected: &[StreamId], position: Option<MediaTime>) -> Result<()> {
        self.turns.start(selected, position)
    }
    fn read(&mut self) -> Result<Option<(StreamId, Sample)>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.turns.read()
    }
}

/// Remembers what all consumers together asked for last.
#[derive(Debug, Default)]
struct Asked(Mutex<AllocationRequirements>);

impl SampleAllocator for Asked {
    fn allocate(&self, len: usize) -> SampleBuffer {
        SampleBuffer::heap(len)
    }
    fn agree(&self, asked: AllocationRequirements) -> Result<()> {
        *self.0.lock().expect("nobody panics with it") = asked;
        Ok(())
    }
}

fn presentation() -> PresentationDescriptor {
    let sound = MediaType::audio(Subtype::PCM_S16, 1000, 1);
    let stream = |id| {
        let base = TimeBase::new(1, 1000).expect("is one");
        StreamDescriptor::new(StreamId(id), sound.clone(), base)
    };
    PresentationDescriptor {
        streams: vec![stream(0), stream(1)],
        ..PresentationDescriptor::default()
    }
}

async fn source(count: i64) -> SourceObject {
    source_in(NodeMemory::default(), move || Turns {
        presentation: presentation(),
        next: 0,
        count,
    })
    .await
}

async fn source_in<S: MediaSource + 'static>(
    memory: NodeMemory,
    build: impl FnOnce() -> S + Send + 'static,
) -> SourceObject {
    let build = move || Ok(Box::new(build()) as Box<dyn MediaSource>);
    let limits = ContentLimits::default();
    let source = SourceActor::create(false, limits, memory, None, build).await;
    source.expect("is made")
}

async fn start(source: &SourceObject, streams: &[u32], at: Option<i64>, epoch: u64) -> Result<()> {
    let start = StartSource {
        selected: streams.iter().map(|id| StreamId(*id)).collect(),
        position: at.map(MediaTime::from_millis),
        resume: at.is_none(),
        epoch: Epoch(epoch),
    };
    source.control.send(start).await
}

/// Pulls one stream to its end.
async fn all(source: &SourceObject, output: u32, epoch: u64) -> Vec<FlowItem> {
    let mut items = Vec::new();
    while items.last() != Some(&FlowItem::End) {
        let ask = Pull {
            output,
            ..pull(3, epoch)
        };
        let pulled = source.port.send(ask).await.expect("goes on");
        assert!(!pulled.items.is_empty() && pulled.epoch == Epoch(epoch));
        items.extend(pulled.items);
    }
    items
}

#[test]
fn each_stream_has_its_samples_the_faults_and_an_end() {
    run(async {
        let source = source(9).await;
        start(&source, &[0, 1], None, 1).await.expect("starts");
        let fault = FlowItem::Error(Error::malformed(2, "a fault"));
        let first = all(&source, 0, 1).await;
        assert_eq!(
            first,
            [
                item(0),
                fault.clone(),
                item(4),
                item(6),
                item(8),
                FlowItem::End
            ]
        );
        let second = all(&source, 1, 1).await;
        assert_eq!(
            second,
            [item(1), fault, item(3), item(5), item(7), FlowItem::End]
        );
        let mut ends = Vec::new();
        while ends.len() < 2 {
            let events = source.control.send(NextNodeEvents).await.expect("has some");
            ends.extend(
                events
                    .into_iter()
                    .filter(|(_, event)| !matches!(event, NodeEvent::Fault(_))),
            );
        }
        let end = |id| (Epoch(1), NodeEvent::EndOfStream(StreamId(id)));
        assert_eq!(ends, [end(0), end(1)]);
    });
}

#[test]
fn a_seek_answers_old_pulls_with_nothing_and_new_ones_from_there() {
    run(async {
        let source = source(1000).await;
        start(&source, &[0], None, 1).await.expect("starts");
        source.port.send(pull(4, 1)).await.expect("has some");
        let early = source.port.send(pull(4, 2));
        start(&source, &[0], Some(500), 2).await.expect("seeks");
        let first = early.await.expect("of the new flow");
        assert_eq!((first.items[0].clone(), first.epoch), (item(500), Epoch(2)));
        let stale = source.port.send(pull(4, 1)).await.expect("is answered");
        assert_eq!((stale.items.len(), stale.epoch), (0, Epoch(2)));
        assert!(start(&source, &[0], Some(-1), 3).await.is_err());
        assert!(start(&source, &[7], None, 4).await.is_err());
        let error = source
            .port
            .send(Pull {
                output: 1,
                ..pull(1, 3)
            })
            .await
            .expect_err("not selected");
        assert!(matches!(error.kind(), ErrorKind::InvalidRequest(_)));
    });
}

#[test]
fn a_pull_that_nobody_waits_for_takes_nothing() {
    run(async {
        let source = source(6).await;
        start(&source, &[0, 1], Some(4), 1).await.expect("starts");
        source.control.send(PauseSource).await.expect("pauses");
        for _ in 0..500 {
            drop(source.port.send(pull(10, 1)));
        }
        settle().await;
        start(&source, &[0, 1], None, 1).await.expect("goes on");
        assert_eq!(all(&source, 0, 1).await, [item(4), FlowItem::End]);
    });
}

#[test]
fn a_stream_that_nobody_takes_has_ended_and_its_sibling_goes_on() {
    run(async {
        let source = source(9).await;
        start(&source, &[0, 1], None, 1).await.expect("starts");
        let (output, epoch) = (1, Epoch(1));
        for _ in 0..2 {
            let gone = Disconnect { output, epoch };
            source.port.send(gone).await.expect("is told");
        }
        let items = all(&source, 0, 1).await;
        assert_eq!(items.len(), 6);
        let mut ends = Vec::new();
        while ends.len() < 2 {
            let events = source.control.send(NextNodeEvents).await.expect("has some");
            let of_ends = |(_, event): &(_, _)| matches!(event, NodeEvent::EndOfStream(_));
            ends.extend(events.into_iter().filter(of_ends));
        }
        let end = |id| (Epoch(1), NodeEvent::EndOfStream(StreamId(id)));
        assert_eq!(ends, [end(1), end(0)]);
    });
}

#[test]
fn another_session_starts_a_source_that_the_first_left_running() {
    run(async {
        let source = source(6).await;
        let begin = |at: Option<i64>| StartSource {
            selected: vec![StreamId(0), StreamId(1)],
            position: at.map(MediaTime::from_millis),
            resume: false,
            epoch: Epoch(1),
        };
        source.control.send(begin(Some(3))).await.expect("starts");
        source.port.send(pull(1, 1)).await.expect("has one");
        source
            .control
            .send(begin(Some(3)))
            .await
            .expect("starts again");
        assert_eq!(all(&source, 0, 1).await, [item(4), FlowItem::End]);
        // From the beginning, or where it is: never what was read for another.
        source
            .control
            .send(begin(None))
            .await
            .expect("starts again");
        assert_eq!(all(&source, 0, 1).await, [FlowItem::End]);
    });
}

#[test]
fn a_shutdown_is_said_to_those_who_wait_and_final() {
    run(async {
        let source = source(1000).await;
        start(&source, &[0], None, 1).await.expect("starts");
        source.control.send(PauseSource).await.expect("pauses");
        let waiting = source.port.send(pull(1, 1));
        source
            .control
            .send(ShutdownSource)
            .await
            .expect("the first");
        let items = waiting.await.expect("is answered").items;
        // Nothing was read ahead: nobody had asked before it paused.
        assert!(matches!(&items[..], [FlowItem::Error(_), FlowItem::End]));
        assert!(source.control.send(ShutdownSource).await.is_err());
        assert!(start(&source, &[0], None, 2).await.is_err());
        assert!(source.port.send(pull(1, 1)).await.is_err());
    });
}

#[test]
fn a_source_that_nobody_asks_is_not_read() {
    run(async {
        let reads = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&reads);
        let source = source_in(NodeMemory::default(), move || Counted {
            turns: Turns {
                presentation: presentation(),
                next: 0,
                count: 1000,
            },
            reads: counter,
        })
        .await;
        start(&source, &[0, 1], None, 1).await.expect("starts");
        source.control.send(PauseSource).await.expect("pauses");
        // It ends its worker, behind whatever that still had to do.
        source.control.send(ShutdownSource).await.expect("ends");
        drop(source);
        while Arc::strong_count(&reads) > 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(reads.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn what_a_consumer_asked_of_memory_ends_with_the_next_consumer() {
    run(async {
        let asked = Arc::new(Asked::default());
        let memory = NodeMemory::new(asked.clone());
        let source = source_in(memory, || Turns {
            presentation: presentation(),
            next: 0,
            count: 9,
        })
        .await;
        let upstream = Upstream {
            port: source.port.clone(),
            output: 0,
        };
        let of_first = AllocationRequirements {
            alignment: 64,
            count: 3,
            ..AllocationRequirements::default()
        };
        let first = upstream.clone().require(async move { Ok(of_first) });
        first.await.expect("is taken");
        assert_eq!(*asked.0.lock().expect("no panic"), of_first);
        // Another session has the source now, and its sink asks for nothing.
        let Grabber { sink, .. } = SampleGrabber::start(ReadAhead::default(), Accept::Any);
        let connect = ConnectSink {
            stream: 0,
            upstream,
            ahead: None,
        };
        sink.control.send(connect).await.expect("is connected");
        assert!(asked.0.lock().expect("no panic").is_none());
    });
}
