//! The transform actor: one per transform, so that a slow one never stalls its session.

mod process;

use std::sync::Arc;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use futures::future::LocalBoxFuture;
use portcullis_derive::Remote;
use portcullis_engine::credit::OutputPort;
use portcullis_engine::{
    ContentLimits, Error, MediaType, Output, Result, SampleAllocator,
    Transform as TransformComponent,
};
use serde::{Deserialize, Serialize};

use self::process::{Processed, process};
use super::events::EventQueue;
pub use super::events::{NextNodeEvents, NodeEvent};
use super::input::Input;
pub use super::input::{ReadAhead, Upstream};
use super::lifetime::end_with_last_handle;
use super::port::{self, Answer, Asker, Epoch, FlowItem, Port, Pull, Pulled};
use crate::bridge::{Deferred, Handle, ReplyFuture};
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
    allocator: Arc<dyn SampleAllocator>,
    limits: ContentLimits,
    input: Input,
    output: OutputPort<Asker>,
    events: EventQueue,
    working: bool,
    ended: bool,
    faults_in_a_row: u32,
    produced_bytes: u64,
    produced_samples: u64,
}

impl<T: TransformComponent> std::fmt::Debug for TransformActor<T> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "TransformActor({} samples)", self.produced_samples)
    }
}

impl<T: TransformComponent + Unpin> TransformActor<T> {
    /// Starts the actor of a transform on this arbiter.
    pub(crate) fn create(
        worker: Worker<T>,
        allocator: Arc<dyn SampleAllocator>,
        limits: ContentLimits,
    ) -> TransformObject {
        let address = Self {
            worker,
            allocator,
            limits,
            input: Input::new(ReadAhead::default()),
            output: OutputPort::new(),
            events: EventQueue::default(),
            working: false,
            ended: false,
            faults_in_a_row: 0,
            produced_bytes: 0,
            produced_samples: 0,
        }
        .start();
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
        if self.working || self.ended || !room {
            return;
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
        let epoch = self.input.epoch();
        let output = Output::new(Arc::clone(&self.allocator), self.limits);
        let job = self
            .worker
            .call(move |transform| Ok(process(transform, batch, output)));
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

    /// Forgets everything and enters a new flow, or waits for one if this is the present one. The component forgets too,
    /// whether the future is awaited or not.
    fn begin(&mut self, epoch: Epoch) -> LocalBoxFuture<'static, Result<()>> {
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
        self.worker.call(|transform| {
            transform.flush();
            Ok(())
        })
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
                    self.produced_samples += 1;
                    self.produced_bytes += sample.len() as u64;
                }
                FlowItem::End => self.ended = true,
                _ => {}
            }
            self.output.push(item);
        }
        let limits = &self.limits;
        let beyond = if self.produced_bytes > limits.max_output_bytes {
            Some(Error::limit(
                "output bytes",
                limits.max_output_bytes,
                self.produced_bytes,
            ))
        } else if self.produced_samples > limits.max_samples {
            Some(Error::limit(
                "samples",
                limits.max_samples,
                self.produced_samples,
            ))
        } else if self.faults_in_a_row >= MAX_FAULTS_IN_A_ROW {
            Some(Error::limit(
                "faults in a row",
                u64::from(MAX_FAULTS_IN_A_ROW),
                u64::from(self.faults_in_a_row),
            ))
        } else {
            None
        };
        if let Some(error) = beyond.filter(|_| !self.ended) {
            self.fail(error);
        }
    }

    fn fail(&mut self, error: Error) {
        if self.ended {
            return;
        }
        self.ended = true;
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
            drop(self.begin(pull.credit.epoch));
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

impl<T: TransformComponent + Unpin> Handler<ConnectInput> for TransformActor<T> {
    type Result = Result<()>;

    fn handle(&mut self, message: ConnectInput, _: &mut Self::Context) -> Self::Result {
        // Whoever asked before belongs to another topology.
        self.output = OutputPort::new();
        self.input = Input::new(ReadAhead::default());
        self.input.connect(message.upstream);
        self.ended = false;
        Ok(())
    }
}

impl<T: TransformComponent + Unpin> Handler<FlushTransform> for TransformActor<T> {
    type Result = ReplyFuture<()>;

    fn handle(&mut self, message: FlushTransform, _: &mut Self::Context) -> Self::Result {
        ReplyFuture::new(self.begin(message.epoch))
    }
}

impl<T: TransformComponent + Unpin> Handler<NextNodeEvents> for TransformActor<T> {
    type Result = Deferred<Vec<(Epoch, NodeEvent)>>;

    fn handle(&mut self, _: NextNodeEvents, _: &mut Self::Context) -> Self::Result {
        self.events.next()
    }
}
