//! The media source actor: runs a source on its worker and answers pulls stream by stream.

use std::collections::HashMap;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use portcullis_derive::Remote;
use portcullis_engine::{
    ContentLimits, Error, ErrorKind, MediaSource as SourceComponent, MediaTime,
    PresentationDescriptor, Result, Sample, StreamId,
};
use serde::{Deserialize, Serialize};

use super::byte_stream::CancelGuard;
use super::events::EventQueue;
pub use super::events::{NextNodeEvents, NodeEvent};
use super::port::{Epoch, Item, Port, Pull, Pulled};
use super::queue::OutputQueue;
use crate::bridge::{Handle, ReplyFuture};
use crate::host::PmpHost;
use crate::worker::Worker;

crate::interface! {
    /// The control side of a source.
    pub SourceControl = "portcullis.SourceControl" {
        DescribeSource, SetPmpHost, StartSource, PauseSource, StopSource, ShutdownSource, NextNodeEvents
    }
}

/// Asks for the presentation descriptor.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = PresentationDescriptor)]
pub struct DescribeSource;

/// Gives a source the host in which its session runs, before the topology is resolved. A plain source has no use for it.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
pub struct SetPmpHost {
    /// The session's host.
    pub host: Handle<PmpHost>,
}

/// Starts, resumes or seeks. Answered when pulls of `epoch` will give samples from there.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = (), deadline_ms = 60000)]
pub struct StartSource {
    /// The streams to deliver.
    pub selected: Vec<StreamId>,
    /// Where to start; `None` continues, or starts at the beginning.
    pub position: Option<MediaTime>,
    /// The epoch that begins.
    pub epoch: Epoch,
}

/// Pauses: pulls wait.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
pub struct PauseSource;

/// Stops: pulls wait, what was read ahead is forgotten.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
pub struct StopSource;

/// Ends the source for good.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
pub struct ShutdownSource;

/// A source that a topology can use: what resolution gives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceObject {
    /// Its control side.
    pub control: Handle<SourceControl>,
    /// Its output side: output n is stream n.
    pub port: Handle<Port>,
    /// Its streams.
    pub presentation: PresentationDescriptor,
}

/// Samples that one job of the worker reads at most, so that control is never far away.
const BATCH: usize = 64;
/// Payload bytes after which a job ends.
const BATCH_BYTES: u64 = 1 << 20;

/// Runs a source component.
pub struct SourceActor {
    worker: Worker<Box<dyn SourceComponent>>,
    presentation: PresentationDescriptor,
    limits: ContentLimits,
    streams: HashMap<u32, OutputQueue>,
    events: EventQueue,
    epoch: Epoch,
    state: State,
    /// Jobs of the worker that are under way.
    jobs: usize,
    ended: bool,
    /// Ends a read that is under way when the actor goes.
    _cancel: Option<CancelGuard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stopped,
    Started,
    Paused,
    Shutdown,
}

impl std::fmt::Debug for SourceActor {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "SourceActor({:?})", self.state)
    }
}

impl SourceActor {
    /// Builds a source on a thread of its own (or here, if it is `inline`) and starts its actor on this arbiter.
    ///
    /// # Errors
    /// What `build` answers.
    pub(crate) async fn create(
        inline: bool,
        limits: ContentLimits,
        cancel: Option<CancelGuard>,
        build: impl FnOnce() -> Result<Box<dyn SourceComponent>> + Send + 'static,
    ) -> Result<SourceObject> {
        let worker = if inline {
            Worker::inline(build)?
        } else {
            Worker::spawn("pc-source", build).await?
        };
        let presentation = worker
            .call(|source| Ok(source.presentation().clone()))
            .await?;
        limits.check_tracks(presentation.streams.len() as u64)?;
        if let Some(length) = presentation
            .duration
            .filter(|length| *length > limits.max_duration)
        {
            let seconds = |time: MediaTime| time.to_duration().as_secs();
            return Err(Error::limit(
                "duration in seconds",
                seconds(limits.max_duration),
                seconds(length),
            ));
        }
        let address = Self {
            worker,
            presentation: presentation.clone(),
            limits,
            streams: HashMap::new(),
            events: EventQueue::default(),
            epoch: Epoch::default(),
            state: State::Stopped,
            jobs: 0,
            ended: false,
            _cancel: cancel,
        }
        .start();
        Ok(SourceObject {
            control: Handle::new(&address),
            port: Handle::new(&address),
            presentation,
        })
    }

    /// Reads on, if somebody waits for more than is there.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        if self.jobs > 0 || self.ended || self.state != State::Started {
            return;
        }
        let wanted = self
            .streams
            .values()
            .filter(|stream| stream.len() == 0)
            .map(OutputQueue::wanted)
            .max()
            .unwrap_or(0);
        if wanted == 0 {
            return;
        }
        self.jobs += 1;
        let epoch = self.epoch;
        let batch = wanted.clamp(1, 4096).max(BATCH.min(wanted * 2));
        let job = self
            .worker
            .call(move |source| Ok(read_batch(&mut **source, batch)));
        ctx.spawn(job.into_actor(self).map(move |read, actor, ctx| {
            actor.jobs -= 1;
            if actor.epoch == epoch && actor.state != State::Shutdown {
                actor.take(read);
            }
            actor.pump(ctx);
        }));
    }

    fn take(&mut self, read: Result<Batch>) {
        match read {
            Ok(batch) => {
                for (stream, sample) in batch.samples {
                    if let Some(queue) = self.streams.get_mut(&stream.0) {
                        queue.push(Item::Sample(sample));
                    }
                }
                if let Some(error) = batch.error {
                    self.fault(error);
                }
                self.ended = batch.ended;
            }
            Err(error) => {
                self.events
                    .push(self.epoch, NodeEvent::Failed(error.clone()));
                for queue in self.streams.values_mut() {
                    queue.push(Item::Fault(error.clone()));
                }
                self.ended = true;
            }
        }
        let held = self
            .streams
            .values()
            .map(OutputQueue::bytes)
            .max()
            .unwrap_or(0);
        if held > self.limits.max_interleave_bytes {
            self.fault(Error::limit(
                "interleave bytes",
                self.limits.max_interleave_bytes,
                held,
            ));
            self.ended = true;
        }
        if self.ended {
            let mut streams: Vec<_> = self.streams.iter_mut().collect();
            streams.sort_by_key(|(stream, _)| **stream);
            for (stream, queue) in streams {
                queue.push(Item::End);
                self.events
                    .push(self.epoch, NodeEvent::EndOfStream(StreamId(*stream)));
            }
            self.events.push(self.epoch, NodeEvent::EndOfPresentation);
        }
        for queue in self.streams.values_mut() {
            queue.serve();
        }
    }

    fn fault(&mut self, error: Error) {
        self.events
            .push(self.epoch, NodeEvent::Fault(error.clone()));
        for queue in self.streams.values_mut() {
            queue.push(Item::Fault(error.clone()));
        }
    }

    fn check(&self) -> Result<()> {
        match self.state {
            State::Shutdown => Err(Error::new(ErrorKind::Shutdown {
                what: "media source".into(),
            })),
            _ => Ok(()),
        }
    }
}

/// What one job of the worker read.
#[derive(Default)]
struct Batch {
    samples: Vec<(StreamId, Sample)>,
    error: Option<Error>,
    ended: bool,
}

fn read_batch(source: &mut dyn SourceComponent, max: usize) -> Batch {
    let mut batch = Batch::default();
    let mut bytes = 0;
    while batch.samples.len() < max && bytes < BATCH_BYTES {
        match source.read() {
            Ok(Some((stream, sample))) => {
                bytes += sample.len() as u64;
                batch.samples.push((stream, sample));
            }
            Ok(None) => {
                batch.ended = true;
                break;
            }
            Err(error) => {
                batch.error = Some(error);
                break;
            }
        }
    }
    batch
}

impl Actor for SourceActor {
    type Context = Context<Self>;
}

impl Handler<Pull> for SourceActor {
    type Result = ReplyFuture<Pulled>;

    fn handle(&mut self, pull: Pull, ctx: &mut Self::Context) -> Self::Result {
        if let Err(error) = self.check() {
            return ReplyFuture::ready(Err(error));
        }
        let Some(stream) = self.streams.get_mut(&pull.output) else {
            return ReplyFuture::ready(Err(Error::invalid_request(format!(
                "stream {} is not selected",
                pull.output
            ))));
        };
        let answer = stream.ask(pull);
        self.pump(ctx);
        answer
    }
}

impl Handler<DescribeSource> for SourceActor {
    type Result = Result<PresentationDescriptor>;

    fn handle(&mut self, _: DescribeSource, _: &mut Self::Context) -> Self::Result {
        self.check()?;
        Ok(self.presentation.clone())
    }
}

impl Handler<SetPmpHost> for SourceActor {
    type Result = Result<()>;

    fn handle(&mut self, _: SetPmpHost, _: &mut Self::Context) -> Self::Result {
        self.check()
    }
}

impl Handler<StartSource> for SourceActor {
    type Result = ReplyFuture<()>;

    fn handle(&mut self, start: StartSource, ctx: &mut Self::Context) -> Self::Result {
        if let Err(error) = self.check() {
            return ReplyFuture::ready(Err(error));
        }
        if let Some(unknown) = start
            .selected
            .iter()
            .find(|id| self.presentation.stream(**id).is_none())
        {
            return ReplyFuture::ready(Err(Error::invalid_argument(format!(
                "there is no stream {unknown}"
            ))));
        }
        let resume =
            self.state == State::Paused && start.position.is_none() && start.epoch == self.epoch;
        self.state = State::Started;
        if resume {
            self.pump(ctx);
            return ReplyFuture::ready(Ok(()));
        }
        self.epoch = start.epoch;
        self.ended = false;
        self.streams
            .retain(|stream, _| start.selected.contains(&StreamId(*stream)));
        for stream in &start.selected {
            self.streams.entry(stream.0).or_default().flush(start.epoch);
        }
        // Jobs of the worker are in order: nothing that is read after this job belongs to the old position.
        self.jobs += 1;
        let epoch = self.epoch;
        let (started, answer) = tokio::sync::oneshot::channel();
        let job = self
            .worker
            .call(move |source| source.start(&start.selected, start.position));
        ctx.spawn(job.into_actor(self).map(move |outcome, actor, ctx| {
            actor.jobs -= 1;
            if actor.epoch == epoch {
                if outcome.is_err() {
                    actor.state = State::Stopped;
                }
                actor.pump(ctx);
            }
            // The asker may have gone; the source has started all the same.
            let _ = started.send(outcome);
        }));
        ReplyFuture::new(async move { answer.await.unwrap_or_else(|_| Err(Error::cancelled())) })
    }
}

impl Handler<PauseSource> for SourceActor {
    type Result = Result<()>;

    fn handle(&mut self, _: PauseSource, _: &mut Self::Context) -> Self::Result {
        self.check()?;
        if self.state != State::Started {
            return Err(Error::new(ErrorKind::InvalidStateTransition(
                "pause of a source that is not started".into(),
            )));
        }
        self.state = State::Paused;
        Ok(())
    }
}

impl Handler<StopSource> for SourceActor {
    type Result = Result<()>;

    fn handle(&mut self, _: StopSource, _: &mut Self::Context) -> Self::Result {
        self.check()?;
        self.state = State::Stopped;
        for stream in self.streams.values_mut() {
            let epoch = stream.epoch();
            stream.flush(epoch);
        }
        Ok(())
    }
}

impl Handler<ShutdownSource> for SourceActor {
    type Result = Result<()>;

    fn handle(&mut self, _: ShutdownSource, _: &mut Self::Context) -> Self::Result {
        self.check()?;
        self.state = State::Shutdown;
        let error = Error::new(ErrorKind::Shutdown {
            what: "media source".into(),
        });
        for stream in self.streams.values_mut() {
            stream.fail(&error);
        }
        Ok(())
    }
}

impl Handler<NextNodeEvents> for SourceActor {
    type Result = ReplyFuture<Vec<(Epoch, NodeEvent)>>;

    fn handle(&mut self, _: NextNodeEvents, _: &mut Self::Context) -> Self::Result {
        self.events.next()
    }
}
