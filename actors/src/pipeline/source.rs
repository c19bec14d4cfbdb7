//! The media source actor: runs a source on its worker and answers pulls stream by stream.

mod feed;

use actix::{Actor, ActorFutureExt, AsyncContext, Handler, SpawnHandle, WrapFuture};
use futures::FutureExt;
use portcullis_derive::Remote;
use portcullis_engine::source::{Reading, SourceOutputs, SourceState, Start};
use portcullis_engine::{
    ContentLimits, Error, MediaSource as SourceComponent, MediaTime, PresentationDescriptor,
    Result, StreamId,
};
use serde::{Deserialize, Serialize};

use self::feed::{Feed, Read, read_batch};
use super::byte_stream::CancelGuard;
use super::events::EventQueue;
pub use super::events::{NextNodeEvents, NodeEvent};
use super::lifetime::end_with_last_handle;
use super::memory::NodeMemory;
use super::port::{self, Answer, Asker, Disconnect, Epoch, FlowItem, Port, Pull, Pulled, Require};
use crate::bridge::{Context, Deferred, Handle, ReplyFuture};
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
    /// Whether a paused source is to go on in the epoch in which it is, with what it has read ahead.
    pub resume: bool,
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
const BATCH: usize = 512;
/// Samples that a worker reads beyond what is asked for: the next pull is on its way, and must not wait for the worker.
const BEYOND: usize = 64;
/// Payload bytes that it does.
const BEYOND_BYTES: u64 = 1 << 20;

/// Runs a source component.
pub struct SourceActor {
    worker: Worker<Box<dyn SourceComponent>>,
    presentation: PresentationDescriptor,
    outputs: SourceOutputs<Asker>,
    events: EventQueue,
    memory: NodeMemory,
    /// What is read in the present flow, where that is on a thread of its own.
    feed: Feed,
    /// Starts of the source that are under way: what is read from now on comes after them.
    starts: usize,
    waits_for_memory: bool,
    /// It has waited: one turn goes whatever there is.
    has_waited: bool,
    /// The flow in which somebody has asked for samples: nothing is read ahead for nobody.
    asked_in: Option<Epoch>,
    /// When an inline source has its next sample.
    timer: Option<SpawnHandle>,
    /// Ends a read that is under way when the source is shut down, or its actor goes.
    cancel: Option<CancelGuard>,
}

impl std::fmt::Debug for SourceActor {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "SourceActor({:?})", self.outputs.state())
    }
}

impl Drop for SourceActor {
    fn drop(&mut self) {
        // Nobody takes what the worker may be reading.
        self.feed.end();
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
        memory: NodeMemory,
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
        if let Some(length) = presentation.duration {
            limits.check_length(length)?;
        }
        let address = Context::start(Self {
            worker,
            presentation: presentation.clone(),
            outputs: SourceOutputs::new(limits),
            events: EventQueue::default(),
            memory,
            feed: Feed::default(),
            starts: 0,
            waits_for_memory: false,
            has_waited: false,
            asked_in: None,
            timer: None,
            cancel,
        });
        Ok(SourceObject {
            control: Handle::new(&address),
            port: Handle::new(&address),
            presentation,
        })
    }

    /// Answers what can be answered and reads on, if somebody waits for more than is there.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        self.answer();
        if self.starts > 0 || self.waits_for_memory {
            return;
        }
        let batch = self.next_batch();
        let lacks_memory = match self.worker.is_inline() {
            true => !self.has_waited && !self.memory.has_room(),
            false => self.feed.lacks_memory(),
        };
        if batch > 0 && lacks_memory {
            return self.wait_for_memory(ctx);
        }
        let memory = self.memory.clone();
        if self.worker.is_inline() {
            if batch == 0 {
                return;
            }
            self.has_waited = false;
            let epoch = self.outputs.epoch();
            let job = self
                .worker
                .call(move |source| Ok(read_batch(&mut **source, &memory, batch, false)));
            if let Some(read) = job.now_or_never() {
                self.read_here(read, epoch, ctx);
            }
            return;
        }
        if !self.feed.ask(batch) {
            return;
        }
        let feed = self.feed.clone();
        let is_live = self.presentation.characteristics.live;
        let job = self.worker.call({
            let feed = feed.clone();
            move |source| {
                feed.read(&mut **source, &memory, is_live);
                Ok(())
            }
        });
        ctx.spawn(job.into_actor(self).map(move |outcome, actor, ctx| {
            if actor.feed.is(&feed) {
                actor.take_readings();
                if let Err(error) = outcome {
                    actor.take(Err(error), actor.outputs.epoch());
                }
            }
            actor.pump(ctx);
        }));
    }

    /// There is no memory for another sample until somebody gives some back.
    fn wait_for_memory(&mut self, ctx: &mut Context<Self>) {
        self.waits_for_memory = true;
        let room = self.memory.room();
        ctx.spawn(room.into_actor(self).map(|(), actor, ctx| {
            actor.waits_for_memory = false;
            actor.has_waited = true;
            actor.feed.has_memory();
            actor.pump(ctx);
        }));
    }

    /// Takes what the worker reads as it comes, until the feed is another.
    fn follow_feed(&mut self, ctx: &mut Context<Self>) {
        let feed = self.feed.clone();
        let made = feed.clone().made();
        ctx.spawn(made.into_actor(self).map(move |(), actor, ctx| {
            if actor.feed.is(&feed) && !feed.is_ended() {
                actor.take_readings();
                actor.pump(ctx);
                actor.follow_feed(ctx);
            }
        }));
    }

    fn take_readings(&mut self) {
        for reading in self.feed.take() {
            self.take(Ok(reading), self.outputs.epoch());
        }
    }

    /// How many samples the next job reads.
    fn next_batch(&self) -> usize {
        let wanted = self.outputs.wanted().unwrap_or(0);
        let is_asked = self.asked_in == Some(self.outputs.epoch());
        let is_live = self.presentation.characteristics.live;
        let beyond = match !is_asked || is_live || self.worker.is_inline() {
            // The next sample may be long in coming, or is there as soon as it is asked for.
            true => 0,
            false => self.outputs.room(BEYOND, BEYOND_BYTES),
        };
        // A job is worth its hop only for a fair number.
        match wanted {
            0 if beyond < BEYOND / 2 => 0,
            wanted => wanted.saturating_add(beyond).min(BATCH),
        }
    }

    /// Takes what an inline source has read, and sees to it that the rest is read too.
    fn read_here(&mut self, read: Result<Read>, epoch: Epoch, ctx: &mut Context<Self>) {
        let wait = match read {
            Ok(Read::Later(wait)) => Some(wait),
            Ok(Read::Some(reading)) => {
                self.take(Ok(reading), epoch);
                None
            }
            Err(error) => {
                self.take(Err(error), epoch);
                None
            }
        };
        self.answer();
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        if self.next_batch() == 0 {
            return;
        }
        self.timer =
            Some(match wait {
                Some(wait) => ctx.run_later(wait, |actor, ctx| {
                    actor.timer = None;
                    actor.pump(ctx);
                }),
                // Others on this arbiter have their turn after each batch.
                None => ctx.spawn(tokio::task::yield_now().into_actor(self).map(
                    |(), actor, ctx| {
                        actor.timer = None;
                        actor.pump(ctx);
                    },
                )),
            });
    }

    fn take(&mut self, read: Result<Reading>, epoch: Epoch) {
        if epoch != self.outputs.epoch() || self.outputs.state() == SourceState::ShutDown {
            return;
        }
        let reading = match read {
            Ok(reading) => {
                if let Some(error) = &reading.error {
                    self.events.push(epoch, NodeEvent::Fault(error.clone()));
                }
                reading
            }
            Err(error) => {
                self.events.push(epoch, NodeEvent::Failed(error.clone()));
                Reading {
                    error: Some(error),
                    is_last: true,
                    ..Reading::default()
                }
            }
        };
        if let Err(error) = self.outputs.take(reading, epoch) {
            self.events.push(epoch, NodeEvent::Fault(error));
        }
    }

    fn answer(&mut self) {
        loop {
            let answers = self.outputs.answers();
            if answers.is_empty() {
                return;
            }
            for (stream, answer) in answers {
                self.hand_over(stream, answer);
            }
        }
    }

    fn hand_over(&mut self, stream: StreamId, answer: Answer<Asker>) {
        let epoch = answer.epoch;
        let is_last = answer.items.last() == Some(&FlowItem::End);
        match port::hand_over(answer) {
            // The asker went in this moment: the next one gets them, in order.
            Err(Pulled { items, epoch }) => self.outputs.unheard(stream, items, epoch),
            Ok(()) if is_last && self.outputs.state() != SourceState::ShutDown => {
                self.events.push(epoch, NodeEvent::EndOfStream(stream));
            }
            Ok(()) => {}
        }
    }
}

impl Actor for SourceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        end_with_last_handle(ctx);
    }
}

impl Handler<Pull> for SourceActor {
    type Result = Deferred<Pulled>;

    fn handle(&mut self, pull: Pull, ctx: &mut Self::Context) -> Self::Result {
        let (asker, answer) = port::asker();
        let stream = StreamId(pull.output);
        self.asked_in = Some(pull.credit.epoch);
        self.outputs.forget(Asker::has_gone);
        match self.outputs.request(stream, pull.credit, asker) {
            Ok(Some(ready)) => self.hand_over(stream, ready),
            Ok(None) => {}
            Err((asker, error)) => asker.fail(error),
        }
        self.pump(ctx);
        answer
    }
}

impl Handler<Disconnect> for SourceActor {
    type Result = Result<()>;

    fn handle(&mut self, message: Disconnect, ctx: &mut Self::Context) -> Self::Result {
        let Disconnect { output, epoch } = message;
        let stream = StreamId(output);
        if self.outputs.disconnect(stream, epoch) {
            // For whoever plays it, it has ended.
            self.events.push(epoch, NodeEvent::EndOfStream(stream));
        }
        self.pump(ctx);
        Ok(())
    }
}

impl Handler<Require> for SourceActor {
    type Result = Result<()>;

    fn handle(&mut self, message: Require, _: &mut Self::Context) -> Self::Result {
        self.memory.require(message.output, message.memory)
    }
}

impl Handler<DescribeSource> for SourceActor {
    type Result = Result<PresentationDescriptor>;

    fn handle(&mut self, _: DescribeSource, _: &mut Self::Context) -> Self::Result {
        self.outputs.need_open()?;
        Ok(self.presentation.clone())
    }
}

impl Handler<SetPmpHost> for SourceActor {
    type Result = Result<()>;

    fn handle(&mut self, _: SetPmpHost, _: &mut Self::Context) -> Self::Result {
        self.outputs.need_open()
    }
}

impl Handler<StartSource> for SourceActor {
    type Result = ReplyFuture<()>;

    fn handle(&mut self, start: StartSource, ctx: &mut Self::Context) -> Self::Result {
        let StartSource {
            selected,
            position,
            resume,
            epoch,
        } = start;
        let unknown = selected
            .iter()
            .find(|id| self.presentation.stream(**id).is_none());
        if let Some(unknown) = unknown {
            let error = Error::invalid_argument(format!("there is no stream {unknown}"));
            return ReplyFuture::ready(Err(error));
        }
        match self.outputs.start(&selected, position, resume, epoch) {
            Ok(Start::Restart(stale)) => {
                // Those who have gone need no answer, and it is empty.
                stale
                    .into_iter()
                    .for_each(|answer| drop(port::hand_over(answer)));
            }
            Ok(Start::GoOn) => {
                self.pump(ctx);
                return ReplyFuture::ready(Ok(()));
            }
            Err(error) => return ReplyFuture::ready(Err(error)),
        }
        // Jobs of the worker are in order: nothing that is read after this job belongs to the old position.
        self.feed.end();
        self.feed = Feed::default();
        self.follow_feed(ctx);
        self.starts += 1;
        let (started, answer) = tokio::sync::oneshot::channel();
        let job = self
            .worker
            .call(move |source| source.start(&selected, position));
        ctx.spawn(job.into_actor(self).map(move |outcome, actor, ctx| {
            actor.starts -= 1;
            if outcome.is_err() {
                actor.outputs.start_failed(epoch);
            }
            // The asker may have gone; the source has started all the same.
            let _ = started.send(outcome);
            actor.pump(ctx);
        }));
        ReplyFuture::new(async move { answer.await.unwrap_or_else(|_| Err(Error::cancelled())) })
    }
}

impl Handler<PauseSource> for SourceActor {
    type Result = Result<()>;

    fn handle(&mut self, _: PauseSource, _: &mut Self::Context) -> Self::Result {
        self.outputs.pause()?;
        self.feed.ask(0);
        Ok(())
    }
}

impl Handler<StopSource> for SourceActor {
    type Result = Result<()>;

    fn handle(&mut self, _: StopSource, _: &mut Self::Context) -> Self::Result {
        self.outputs.stop()?;
        self.feed.end();
        Ok(())
    }
}

impl Handler<ShutdownSource> for SourceActor {
    type Result = Result<()>;

    fn handle(&mut self, _: ShutdownSource, _: &mut Self::Context) -> Self::Result {
        self.outputs.shut_down()?;
        self.feed.end();
        self.cancel = None;
        self.answer();
        Ok(())
    }
}

impl Handler<NextNodeEvents> for SourceActor {
    type Result = Deferred<Vec<(Epoch, NodeEvent)>>;

    fn handle(&mut self, _: NextNodeEvents, _: &mut Self::Context) -> Self::Result {
        self.events.next()
    }
}
