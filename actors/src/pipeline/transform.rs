//! The transform actor: one per transform, so that a slow one never stalls its session.

mod process;

use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, ActorFutureExt, AsyncContext, Handler, WrapFuture};
use portcullis_derive::Remote;
use portcullis_engine::credit::OutputPort;
use portcullis_engine::media::Usage;
use portcullis_engine::{
    ContentLimits, Error, MediaType, Output, Result, Sample, SampleAllocator,
    Transform as TransformComponent,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use self::process::{Processed, process};
use super::events::EventQueue;
pub use super::events::{NextNodeEvents, NodeEvent};
use super::input::Input;
pub use super::input::{ReadAhead, Upstream};
use super::lifetime::end_with_last_handle;
use super::memory::NodeMemory;
use super::port::{self, Answer, Asker, Disconnect, Epoch, FlowItem, Port, Pull, Pulled, Require};
use crate::bridge::{Context, Deferred, Handle, ReplyFuture};
use crate::worker::Worker;

crate::interface! {
    /// The control side of a transform.
    pub TransformControl = "portcullis.TransformControl" {
        SetInputType, SetOutputType, ConnectInput, FlushTransform, NextNodeEvents
    }
}

/// Fixes the input type; answers the output types, best first.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Vec<MediaType>)]
pub struct SetInputType {
    /// The type.
    pub media_type: MediaType,
}

/// Fixes the output type.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
pub struct SetOutputType {
    /// The type.
    pub media_type: MediaType,
}

/// Says where the samples come from.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
pub struct ConnectInput {
    /// The neighbour.
    pub upstream: Upstream,
}

/// Forgets everything and enters a new epoch.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
pub struct FlushTransform {
    /// The epoch that begins.
    pub epoch: Epoch,
}

/// A transform that a topology can use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TransformObject {
    /// Its control side.
    pub control: Handle<TransformControl>,
    /// Its output side.
    pub port: Handle<Port>,
}

/// Items that wait at the output before processing pauses.
const AHEAD_ITEMS: usize = 4;
/// Payload bytes that wait at the output before processing pauses.
const AHEAD_BYTES: u64 = 8 << 20;
/// Samples that one job of the worker processes at most.
const BATCH: usize = 16;
/// Faults in a row after which a transform gives up: nothing of the stream is decodable.
const MAX_FAULTS_IN_A_ROW: u32 = 1000;

/// Runs a transform component.
pub struct TransformActor<T: TransformComponent + 'static> {
    worker: Worker<T>,
    memory: NodeMemory,
    allocator: Arc<dyn SampleAllocator>,
    limits: ContentLimits,
    input: Input,
    output: OutputPort<Asker>,
    events: EventQueue,
    working: bool,
    waits_for_memory: bool,
    /// It has waited: one turn goes whatever there is.
    has_waited: bool,
    ended: bool,
    faults_in_a_row: u32,
    produced: u64,
    /// What this transform and others of its session have made.
    usage: Arc<Mutex<Usage>>,
}

impl<T: TransformComponent> std::fmt::Debug for TransformActor<T> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "TransformActor({} samples)", self.produced)
    }
}

impl<T: TransformComponent + Unpin> TransformActor<T> {
    /// Starts the actor of a transform on this arbiter.
    pub(crate) fn create(
        worker: Worker<T>,
        allocator: Arc<dyn SampleAllocator>,
        limits: ContentLimits,
        usage: Arc<Mutex<Usage>>,
    ) -> TransformObject {
        let memory = NodeMemory::new(allocator);
        let address = Context::start(Self {
            worker,
            allocator: memory.allocator(),
            memory,
            limits,
            input: Input::new(ReadAhead::default()),
            output: OutputPort::new(),
            events: EventQueue::default(),
            working: false,
            waits_for_memory: false,
            has_waited: false,
            ended: false,
            faults_in_a_row: 0,
            produced: 0,
            usage,
        });
        TransformObject {
            control: Handle::new(&address),
            port: Handle::new(&address),
        }
    }

    fn pump(&mut self, ctx: &mut Context<Self>) {
        self.answer();
        while let Some(pull) = self.input.next_pull() {
            ctx.spawn(pull.into_actor(self).map(move |pulled, actor, ctx| {
                let Some((number, answer)) = pulled else {
                    return;
                };
                if let Err(error) = actor.input.take(number, answer) {
                    actor.fail(error);
                }
                actor.pump(ctx);
            }));
        }
        let room = (self.output.len() < AHEAD_ITEMS || self.output.wanted() > 0)
            && self.output.bytes() < AHEAD_BYTES;
        if self.working || self.waits_for_memory || self.ended || !room {
            return;
        }
        if self.input.front().is_some() && !self.memory.has_room() && !self.has_waited {
            return self.wait_for_memory(ctx);
        }
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(item) = self.input.pop()
        {
            let last = matches!(item, FlowItem::End);
            batch.push(item);
            if last {
                break;
            }
        }
        if batch.is_empty() {
            return;
        }
        self.working = true;
        self.has_waited = false;
        let epoch = self.input.epoch();
        let output = Output::new(Arc::clone(&self.allocator), self.limits);
        let memory = self.memory.clone();
        let job = self
            .worker
            .call(move |transform| Ok(process(transform, batch, output, &memory)));
        ctx.spawn(job.into_actor(self).map(move |done, actor, ctx| {
            actor.working = false;
            if epoch == actor.input.epoch() {
                match done {
                    Ok(mut processed) => {
                        actor.input.put_back(processed.rest.drain(..));
                        actor.take(processed);
                    }
                    Err(error) => actor.fail(error),
                }
            }
            actor.pump(ctx);
        }));
    }

    /// There is no memory for what it makes until somebody gives some back.
    fn wait_for_memory(&mut self, ctx: &mut Context<Self>) {
        self.waits_for_memory = true;
        let room = self.memory.room();
        ctx.spawn(room.into_actor(self).map(|(), actor, ctx| {
            actor.waits_for_memory = false;
            actor.has_waited = true;
            actor.pump(ctx);
        }));
    }

    fn answer(&mut self) {
        while let Some(answer) = self.output.answer() {
            self.hand_over(answer);
        }
    }

    fn hand_over(&mut self, answer: Answer<Asker>) {
        // The asker went in this moment: the next one gets them, in order.
        if let Err(Pulled { items, epoch }) = port::hand_over(answer) {
            self.output.unheard(items, epoch);
        }
    }

    /// Forgets everything and enters a new flow, or waits for one if this is the present one. The component forgets too. That
    /// it could not is said to whoever waits for the answer; where nobody does, the node fails.
    fn begin(&mut self, epoch: Epoch, ctx: &mut Context<Self>) -> oneshot::Receiver<Result<()>> {
        if epoch > self.output.epoch() {
            self.input.flush(epoch);
            for stale in self.output.flush(epoch) {
                self.hand_over(stale);
            }
            self.ended = false;
        } else {
            self.input.stop();
            self.output.clear();
        }
        self.faults_in_a_row = 0;
        let flow = self.input.epoch();
        let (done, answer) = oneshot::channel();
        let flush = self.worker.call(|transform| {
            transform.flush();
            Ok(())
        });
        ctx.spawn(flush.into_actor(self).map(move |outcome, actor, _| {
            if let Err(Err(error)) = done.send(outcome)
                && flow == actor.input.epoch()
            {
                actor.fail(error);
            }
        }));
        answer
    }

    fn take(&mut self, processed: Processed) {
        for fault in processed.faults {
            self.faults_in_a_row += 1;
            self.events
                .push(self.input.epoch(), NodeEvent::Fault(fault));
        }
        for item in processed.items {
            match &item {
                FlowItem::Sample(sample) => {
                    self.faults_in_a_row = 0;
                    if let Err(error) = self.count(sample) {
                        return self.fail(error);
                    }
                }
                // What is behind takes memory by it.
                FlowItem::Format(media_type) => {
                    if let Some((width, height)) = media_type.frame_size()
                        && let Err(error) = self.limits.check_picture(width, height)
                    {
                        return self.fail(error);
                    }
                }
                FlowItem::End => self.ended = true,
                _ => {}
            }
            self.output.push(item);
        }
        if self.faults_in_a_row >= MAX_FAULTS_IN_A_ROW {
            let (most, found) = (MAX_FAULTS_IN_A_ROW.into(), self.faults_in_a_row.into());
            self.fail(Error::limit("faults in a row", most, found));
        }
    }

    fn count(&mut self, sample: &Sample) -> Result<()> {
        self.produced += 1;
        let usage = self.usage.lock();
        // Numbers are whole whatever happened to another holder.
        let mut usage = usage.unwrap_or_else(PoisonError::into_inner);
        usage.add(sample, &self.limits)
    }

    fn fail(&mut self, error: Error) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.input.disconnect();
        self.events
            .push(self.input.epoch(), NodeEvent::Failed(error.clone()));
        self.output.push(FlowItem::Error(error));
        self.output.push(FlowItem::End);
        self.answer();
    }
}

impl<T: TransformComponent + Unpin> Actor for TransformActor<T> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        end_with_last_handle(ctx);
    }
}

impl<T: TransformComponent + Unpin> Handler<Pull> for TransformActor<T> {
    type Result = Deferred<Pulled>;

    fn handle(&mut self, pull: Pull, ctx: &mut Self::Context) -> Self::Result {
        if pull.credit.epoch > self.output.epoch() {
            // The asker has entered a new flow and nothing of the old one is wanted any more.
            drop(self.begin(pull.credit.epoch, ctx));
        }
        let (asker, answer) = port::asker();
        self.output.forget(Asker::has_gone);
        match self.output.request(pull.credit, asker) {
            Ok(Some(ready)) => self.hand_over(ready),
            Ok(None) => {}
            Err((asker, error)) => asker.fail(error),
        }
        self.pump(ctx);
        answer
    }
}

impl<T: TransformComponent + Unpin> Handler<Disconnect> for TransformActor<T> {
    type Result = Result<()>;

    fn handle(&mut self, message: Disconnect, ctx: &mut Self::Context) -> Self::Result {
        if message.epoch > self.output.epoch() {
            drop(self.begin(message.epoch, ctx));
        }
        self.output.disconnect(message.epoch);
        if self.output.is_disconnected() && !self.ended {
            self.ended = true;
            self.input.disconnect();
        }
        Ok(())
    }
}

impl<T: TransformComponent + Unpin> Handler<SetInputType> for TransformActor<T> {
    type Result = ReplyFuture<Vec<MediaType>>;

    fn handle(&mut self, message: SetInputType, _: &mut Self::Context) -> Self::Result {
        ReplyFuture::new(
            self.worker
                .call(move |transform| transform.set_input(&message.media_type)),
        )
    }
}

impl<T: TransformComponent + Unpin> Handler<SetOutputType> for TransformActor<T> {
    type Result = ReplyFuture<()>;

    fn handle(&mut self, message: SetOutputType, _: &mut Self::Context) -> Self::Result {
        ReplyFuture::new(
            self.worker
                .call(move |transform| transform.set_output(&message.media_type)),
        )
    }
}

impl<T: TransformComponent + Unpin> Handler<Require> for TransformActor<T> {
    type Result = Result<()>;

    fn handle(&mut self, message: Require, _: &mut Self::Context) -> Self::Result {
        self.memory.require(message.output, message.memory)
    }
}

impl<T: TransformComponent + Unpin> Handler<ConnectInput> for TransformActor<T> {
    type Result = ReplyFuture<()>;

    fn handle(&mut self, message: ConnectInput, _: &mut Self::Context) -> Self::Result {
        // Whoever asked before belongs to another topology.
        self.output = OutputPort::new();
        self.input = Input::new(ReadAhead::default());
        self.input.connect(message.upstream.clone());
        self.ended = false;
        let asked = self.worker.call(|transform| Ok(transform.allocation()));
        ReplyFuture::new(message.upstream.require(asked))
    }
}

impl<T: TransformComponent + Unpin> Handler<FlushTransform> for TransformActor<T> {
    type Result = ReplyFuture<()>;

    fn handle(&mut self, message: FlushTransform, ctx: &mut Self::Context) -> Self::Result {
        let flushed = self.begin(message.epoch, ctx);
        ReplyFuture::new(async move { flushed.await.unwrap_or_else(|_| Err(Error::cancelled())) })
    }
}

impl<T: TransformComponent + Unpin> Handler<NextNodeEvents> for TransformActor<T> {
    type Result = Deferred<Vec<(Epoch, NodeEvent)>>;

    fn handle(&mut self, _: NextNodeEvents, _: &mut Self::Context) -> Self::Result {
        self.events.next()
    }
}
