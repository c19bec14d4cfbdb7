//! The media sink actor: pulls samples, waits for their time, and renders them.

mod component;
mod grabber;

use std::collections::BTreeMap;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use futures::future::LocalBoxFuture;
use portcullis_derive::Remote;
use portcullis_engine::clock::{ClockSnapshot, SystemTime100ns};
use portcullis_engine::{Error, MediaTime, MediaType, Result, Sample};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::events::EventQueue;
pub use super::events::{NextNodeEvents, NodeEvent};
use super::input::Input;
pub use super::input::{ReadAhead, Upstream};
use super::port::{Epoch, Item};
use crate::bridge::{Handle, ReplyFuture};
pub(crate) use component::ComponentRenderer;
pub(crate) use grabber::{Accept, SampleGrabber};
pub use grabber::{Grabbed, GrabbedItem};

crate::interface! {
    /// The control side of a sink.
    pub SinkControl = "portcullis.SinkControl" {
        DescribeSink, SetSinkType, ConnectSink, PrerollSink, StartSink, PauseSink, StopSink, FinalizeSink, SinkStatistics,
        NextNodeEvents
    }
}

/// Asks what the session must know of a sink.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = SinkFacts)]
pub struct DescribeSink;

/// What the session must know of a sink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkFacts {
    /// Samples are wanted as fast as they come.
    pub rateless: bool,
}

/// Fixes the type of a stream; a refusal lets the loader try another.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
pub struct SetSinkType {
    /// Which stream of the sink.
    pub stream: u32,
    /// The type.
    pub media_type: MediaType,
}

/// Says where the samples of a stream come from.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
pub struct ConnectSink {
    /// Which stream of the sink.
    pub stream: u32,
    /// The neighbour.
    pub upstream: Upstream,
    /// How far to read ahead; `None` keeps what the sink itself thinks right.
    pub ahead: Option<ReadAhead>,
}

/// Enters a new epoch and asks for samples; answered when each stream has its first.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(no_deadline)]
pub struct PrerollSink {
    /// The epoch that begins.
    pub epoch: Epoch,
}

/// Renders from now on, by this clock.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
pub struct StartSink {
    /// The presentation clock.
    pub clock: ClockSnapshot,
    /// Render as fast as samples come, whatever the clock says.
    pub rateless: bool,
}

/// Renders nothing until the next start; what was pulled stays.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
pub struct PauseSink;

/// Forgets what was pulled.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
pub struct StopSink;

/// Completes what is written.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(deadline_ms = 60000)]
pub struct FinalizeSink;

/// Asks for counts.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Vec<StreamStatistics>)]
pub struct SinkStatistics;

/// Counts of one stream of a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStatistics {
    /// Which stream of the sink.
    pub stream: u32,
    /// Samples rendered.
    pub samples: u64,
    /// Payload bytes rendered.
    pub bytes: u64,
    /// Of those, how many came more than [`LATE`] after their time.
    pub late: u64,
    /// Samples that came too late to be rendered.
    pub dropped: u64,
    /// Faults in place of samples.
    pub faults: u64,
}

/// A sink that a topology can use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SinkObject {
    /// Its control side.
    pub control: Handle<SinkControl>,
}

/// A sample is late when it comes this much after its time.
pub const LATE: MediaTime = MediaTime::from_millis(40);
/// A sample that comes this much after its time is dropped.
pub const TOO_LATE: MediaTime = MediaTime::from_millis(500);

/// What a sink does with samples whose time has come. One call at a time per stream.
pub(crate) trait Renderer: Unpin + 'static {
    fn set_type(
        &mut self,
        stream: u32,
        media_type: MediaType,
    ) -> LocalBoxFuture<'static, Result<()>>;
    fn render(&mut self, stream: u32, samples: Vec<Sample>) -> LocalBoxFuture<'static, Result<()>>;
    fn fault(&mut self, stream: u32, error: Error) -> LocalBoxFuture<'static, Result<()>>;
    fn end_of_stream(&mut self, stream: u32) -> LocalBoxFuture<'static, Result<()>>;
    /// The sink cannot go on.
    fn fail(&mut self, streams: Vec<u32>, error: Error) {
        let _ = (streams, error);
    }
    fn finalize(&mut self) -> LocalBoxFuture<'static, Result<()>>;
    fn flush(&mut self, epoch: Epoch);
    fn is_rateless(&self) -> bool;
}

/// Runs a sink.
pub(crate) struct SinkActor<R> {
    renderer: R,
    now: fn() -> SystemTime100ns,
    streams: BTreeMap<u32, Stream>,
    events: EventQueue,
    ahead: ReadAhead,
    clock: Option<ClockSnapshot>,
    rateless: bool,
    failed: bool,
    prerolling: Option<oneshot::Sender<Result<()>>>,
}

struct Stream {
    input: Input,
    counts: StreamStatistics,
    /// A call of the renderer is under way.
    rendering: bool,
    /// A timer is set for the first sample.
    timer: bool,
    ended: bool,
}

enum Ready {
    Samples(Vec<Sample>),
    Format(MediaType),
    Fault(Error),
    End,
    Wait(Duration),
    Nothing,
}

impl<R: Renderer> SinkActor<R> {
    /// Starts the actor of a sink on this arbiter.
    pub(crate) fn create(
        renderer: R,
        ahead: ReadAhead,
        now: fn() -> SystemTime100ns,
    ) -> SinkObject {
        let address = Self {
            renderer,
            now,
            streams: BTreeMap::new(),
            events: EventQueue::default(),
            ahead,
            clock: None,
            rateless: false,
            failed: false,
            prerolling: None,
        }
        .start();
        SinkObject {
            control: Handle::new(&address),
        }
    }

    fn stream(&mut self, stream: u32) -> &mut Stream {
        let ahead = self.ahead;
        self.streams.entry(stream).or_insert_with(|| Stream {
            input: Input::new(ahead),
            counts: StreamStatistics {
                stream,
                ..StreamStatistics::default()
            },
            rendering: false,
            timer: false,
            ended: false,
        })
    }

    fn pull(&mut self, id: u32, ctx: &mut Context<Self>) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if let Some((epoch, call)) = stream.input.next_pull() {
            ctx.spawn(call.into_actor(self).map(move |answer, actor, ctx| {
                let Some(stream) = actor.streams.get_mut(&id) else {
                    return;
                };
                if let Err(error) = stream.input.take(epoch, answer) {
                    actor.fail(error);
                }
                actor.preroll_done();
                actor.drive(id, ctx);
            }));
        }
    }

    /// Renders what is due and asks for more.
    fn drive(&mut self, id: u32, ctx: &mut Context<Self>) {
        self.pull(id, ctx);
        let rateless = self.rateless;
        let (Some(clock), Some(stream), false) =
            (self.clock, self.streams.get_mut(&id), self.failed)
        else {
            return;
        };
        if stream.rendering || stream.ended {
            return;
        }
        let epoch = stream.input.epoch();
        let ready = stream.take_ready(&clock, rateless, (self.now)());
        let work = match ready {
            Ready::Nothing => return self.pull(id, ctx),
            Ready::Wait(wait) => {
                if !stream.timer {
                    stream.timer = true;
                    ctx.run_later(wait, move |actor, ctx| {
                        if let Some(stream) = actor.streams.get_mut(&id) {
                            stream.timer = false;
                        }
                        actor.drive(id, ctx);
                    });
                }
                return self.pull(id, ctx);
            }
            Ready::Samples(samples) => self.renderer.render(id, samples),
            Ready::Format(media_type) => {
                self.events
                    .push(epoch, NodeEvent::FormatChanged(id, media_type.clone()));
                self.renderer.set_type(id, media_type)
            }
            // Whoever made the fault has told the session.
            Ready::Fault(error) => self.renderer.fault(id, error),
            Ready::End => {
                stream.ended = true;
                self.renderer.end_of_stream(id)
            }
        };
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.rendering = true;
        }
        ctx.spawn(work.into_actor(self).map(move |done, actor, ctx| {
            let Some(stream) = actor.streams.get_mut(&id) else {
                return;
            };
            stream.rendering = false;
            if stream.input.epoch() == epoch {
                let ended = stream.ended;
                match done {
                    Err(error) => actor.fail(error),
                    Ok(()) if ended => actor.events.push(epoch, NodeEvent::StreamRendered(id)),
                    Ok(()) => {}
                }
            }
            actor.drive(id, ctx);
        }));
    }

    fn fail(&mut self, error: Error) {
        if self.failed {
            return;
        }
        self.failed = true;
        if let Some(waiting) = self.prerolling.take() {
            // Whoever waited may have gone.
            let _ = waiting.send(Err(error.clone()));
        }
        self.renderer
            .fail(self.streams.keys().copied().collect(), error.clone());
        let epoch = self
            .streams
            .values()
            .map(|stream| stream.input.epoch())
            .max()
            .unwrap_or_default();
        self.events.push(epoch, NodeEvent::Failed(error));
    }

    fn preroll_done(&mut self) {
        if self
            .streams
            .values()
            .all(|stream| stream.input.front().is_some())
            && let Some(waiting) = self.prerolling.take()
        {
            // Whoever waited may have gone.
            let _ = waiting.send(Ok(()));
        }
    }

    fn drive_all(&mut self, ctx: &mut Context<Self>) {
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            self.drive(id, ctx);
        }
    }
}

impl Stream {
    /// What the renderer gets next.
    fn take_ready(&mut self, clock: &ClockSnapshot, rateless: bool, now: SystemTime100ns) -> Ready {
        let mut samples = Vec::new();
        loop {
            match self.input.front() {
                Some(Item::Sample(sample)) => {
                    if !rateless {
                        let Some(due) = clock.due(sample.time) else {
                            break;
                        };
                        if due > now && !sample.flags.preroll {
                            if samples.is_empty() {
                                return Ready::Wait(due.since(now));
                            }
                            break;
                        }
                    }
                    let Some(Item::Sample(sample)) = self.input.pop() else {
                        break;
                    };
                    if sample.flags.preroll {
                        continue;
                    }
                    let lateness = match clock.due(sample.time) {
                        Some(due) if !rateless => now - due,
                        _ => MediaTime::ZERO,
                    };
                    if lateness > TOO_LATE {
                        self.counts.dropped += 1;
                        continue;
                    }
                    self.counts.late += u64::from(lateness > LATE);
                    self.counts.samples += 1;
                    self.counts.bytes += sample.len() as u64;
                    samples.push(sample);
                }
                _ if !samples.is_empty() => break,
                Some(_) => {
                    return match self.input.pop() {
                        Some(Item::Format(media_type)) => Ready::Format(media_type),
                        Some(Item::Fault(error)) => {
                            self.counts.faults += 1;
                            Ready::Fault(error)
                        }
                        Some(Item::End) => Ready::End,
                        // A gap, or what a newer peer sends: nothing to render.
                        _ => continue,
                    };
                }
                None => break,
            }
        }
        if samples.is_empty() {
            Ready::Nothing
        } else {
            Ready::Samples(samples)
        }
    }
}

impl<R: Renderer> Actor for SinkActor<R> {
    type Context = Context<Self>;
}

impl<R: Renderer> Handler<DescribeSink> for SinkActor<R> {
    type Result = Result<SinkFacts>;

    fn handle(&mut self, _: DescribeSink, _: &mut Self::Context) -> Self::Result {
        Ok(SinkFacts {
            rateless: self.renderer.is_rateless(),
        })
    }
}

impl<R: Renderer> Handler<SetSinkType> for SinkActor<R> {
    type Result = ReplyFuture<()>;

    fn handle(&mut self, message: SetSinkType, _: &mut Self::Context) -> Self::Result {
        ReplyFuture::new(self.renderer.set_type(message.stream, message.media_type))
    }
}

impl<R: Renderer> Handler<ConnectSink> for SinkActor<R> {
    type Result = Result<()>;

    fn handle(&mut self, message: ConnectSink, _: &mut Self::Context) -> Self::Result {
        let stream = self.stream(message.stream);
        stream.input.connect(message.upstream);
        if let Some(ahead) = message.ahead {
            stream.input.set_ahead(ahead);
        }
        Ok(())
    }
}

impl<R: Renderer> Handler<PrerollSink> for SinkActor<R> {
    type Result = ReplyFuture<()>;

    fn handle(&mut self, message: PrerollSink, ctx: &mut Self::Context) -> Self::Result {
        self.clock = None;
        self.failed = false;
        self.renderer.flush(message.epoch);
        for stream in self.streams.values_mut() {
            stream.input.flush(message.epoch);
            stream.ended = false;
        }
        let (waiting, answer) = oneshot::channel();
        self.prerolling = Some(waiting);
        self.drive_all(ctx);
        self.preroll_done();
        ReplyFuture::new(async move { answer.await.unwrap_or_else(|_| Err(Error::cancelled())) })
    }
}

impl<R: Renderer> Handler<StartSink> for SinkActor<R> {
    type Result = Result<()>;

    fn handle(&mut self, message: StartSink, ctx: &mut Self::Context) -> Self::Result {
        self.clock = Some(message.clock);
        self.rateless = message.rateless || self.renderer.is_rateless();
        self.drive_all(ctx);
        Ok(())
    }
}

impl<R: Renderer> Handler<PauseSink> for SinkActor<R> {
    type Result = Result<()>;

    fn handle(&mut self, _: PauseSink, _: &mut Self::Context) -> Self::Result {
        self.clock = None;
        Ok(())
    }
}

impl<R: Renderer> Handler<StopSink> for SinkActor<R> {
    type Result = Result<()>;

    fn handle(&mut self, _: StopSink, _: &mut Self::Context) -> Self::Result {
        self.clock = None;
        for stream in self.streams.values_mut() {
            let epoch = stream.input.epoch();
            stream.input.flush(epoch);
            stream.ended = true;
        }
        Ok(())
    }
}

impl<R: Renderer> Handler<FinalizeSink> for SinkActor<R> {
    type Result = ReplyFuture<()>;

    fn handle(&mut self, _: FinalizeSink, _: &mut Self::Context) -> Self::Result {
        ReplyFuture::new(self.renderer.finalize())
    }
}

impl<R: Renderer> Handler<SinkStatistics> for SinkActor<R> {
    type Result = Result<Vec<StreamStatistics>>;

    fn handle(&mut self, _: SinkStatistics, _: &mut Self::Context) -> Self::Result {
        Ok(self.streams.values().map(|stream| stream.counts).collect())
    }
}

impl<R: Renderer> Handler<NextNodeEvents> for SinkActor<R> {
    type Result = ReplyFuture<Vec<(Epoch, NodeEvent)>>;

    fn handle(&mut self, _: NextNodeEvents, _: &mut Self::Context) -> Self::Result {
        self.events.next()
    }
}
