//! The actor of a sink: asks for samples, gives them to the renderer when their time has come, and says what happened.

use std::collections::BTreeMap;
use std::fmt;

use actix::{Actor, ActorFutureExt, AsyncContext, Handler, WrapFuture};
use portcullis_engine::clock::SystemTime100ns;
use portcullis_engine::{Error, Result};
use tokio::sync::oneshot;

use super::stream::{Ready, Stream};
use super::{
    ConnectSink, FinalizeSink, NextNodeEvents, NodeEvent, PauseSink, PrerollSink, ReadAhead,
    Renderer, SetSinkType, SinkObject, SinkStatistics, StartSink, StopSink, StreamStatistics,
};
use crate::bridge::{Context, Deferred, Handle, ReplyFuture};
use crate::pipeline::events::EventQueue;
use crate::pipeline::lifetime::end_with_last_handle;
use crate::pipeline::port::Epoch;

/// Streams of one sink.
const MAX_STREAMS: usize = 64;

/// Runs a sink.
pub(crate) struct SinkActor<R> {
    renderer: R,
    now: fn() -> SystemTime100ns,
    streams: BTreeMap<u32, Stream>,
    events: EventQueue,
    ahead: ReadAhead,
    epoch: Epoch,
    /// Why the sink cannot go on in this flow.
    failure: Option<Error>,
    prerolling: Option<oneshot::Sender<Result<()>>>,
}

impl<R: Renderer> SinkActor<R> {
    /// Starts the actor of a sink on this arbiter.
    pub(crate) fn create(
        renderer: R,
        ahead: ReadAhead,
        now: fn() -> SystemTime100ns,
    ) -> SinkObject {
        let address = Context::start(Self {
            renderer,
            now,
            streams: BTreeMap::new(),
            events: EventQueue::default(),
            ahead,
            epoch: Epoch::default(),
            failure: None,
            prerolling: None,
        });
        SinkObject {
            control: Handle::new(&address),
        }
    }

    fn pull(&mut self, id: u32, ctx: &mut Context<Self>) {
        while let Some(pull) = self.streams.get_mut(&id).and_then(|s| s.input.next_pull()) {
            ctx.spawn(pull.into_actor(self).map(move |pulled, actor, ctx| {
                let (Some(stream), Some((number, answer))) = (actor.streams.get_mut(&id), pulled)
                else {
                    return;
                };
                if let Err(error) = stream.input.take(number, answer) {
                    return actor.fail(error, ctx);
                }
                actor.check_preroll(ctx);
                actor.drive(id, ctx);
            }));
        }
    }

    /// Renders what is due and asks for more.
    fn drive(&mut self, id: u32, ctx: &mut Context<Self>) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.is_rendering || stream.has_ended {
            return self.pull(id, ctx);
        }
        let work = if let Some(error) = &self.failure {
            stream.has_ended = true;
            self.renderer.fail(id, error.clone())
        } else {
            match stream.take_ready((self.now)()) {
                Ready::Nothing => return self.pull(id, ctx),
                Ready::WaitUntil(due) => {
                    self.set_timer(id, due, ctx);
                    return self.pull(id, ctx);
                }
                Ready::Samples(samples) => {
                    // Whoever makes the next ones works while these are rendered.
                    self.pull(id, ctx);
                    self.renderer.render(id, samples)
                }
                Ready::Format(media_type) => {
                    let event = NodeEvent::FormatChanged(id, media_type.clone());
                    self.events.push(self.epoch, event);
                    self.renderer.set_type(id, media_type)
                }
                // Whoever made the fault has told the session.
                Ready::Fault(error) => self.renderer.fault(id, error),
                Ready::End => {
                    stream.has_ended = true;
                    self.renderer.end_of_stream(id)
                }
            }
        };
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.is_rendering = true;
        }
        let epoch = self.epoch;
        ctx.spawn(work.into_actor(self).map(move |done, actor, ctx| {
            actor.rendered(id, epoch, done, ctx);
        }));
        self.pull(id, ctx);
    }

    fn rendered(&mut self, id: u32, epoch: Epoch, done: Result<()>, ctx: &mut Context<Self>) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.is_rendering = false;
        if self.epoch == epoch && self.failure.is_none() {
            match done {
                Err(error) => return self.fail(error, ctx),
                Ok(()) if stream.has_ended => {
                    self.events.push(epoch, NodeEvent::StreamRendered(id));
                }
                Ok(()) => {}
            }
        }
        self.drive(id, ctx);
    }

    fn set_timer(&mut self, id: u32, due: SystemTime100ns, ctx: &mut Context<Self>) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        match stream.timer {
            Some((set, _)) if set == due => return,
            Some((_, timer)) => drop(ctx.cancel_future(timer)),
            None => {}
        }
        let timer = ctx.run_later(due.since((self.now)()), move |actor, ctx| {
            if let Some(stream) = actor.streams.get_mut(&id) {
                stream.timer = None;
            }
            actor.drive(id, ctx);
        });
        stream.timer = Some((due, timer));
    }

    /// Ends every stream with this error.
    fn fail(&mut self, error: Error, ctx: &mut Context<Self>) {
        if self.failure.is_none() {
            self.events
                .push(self.epoch, NodeEvent::Failed(error.clone()));
            // What this failure means its event says; that the preroll is over says the answer.
            self.end_preroll(Ok(()));
            self.failure = Some(error);
            for stream in self.streams.values_mut() {
                stream.input.disconnect();
            }
        }
        self.drive_all(ctx);
    }

    fn check_preroll(&mut self, ctx: &mut Context<Self>) {
        if self.prerolling.is_none() {
            return;
        }
        let mut is_done = true;
        for stream in self.streams.values_mut() {
            is_done &= stream.is_prerolled();
        }
        if is_done {
            self.end_preroll(Ok(()));
        } else {
            for id in self.streams.keys().copied().collect::<Vec<_>>() {
                self.pull(id, ctx);
            }
        }
    }

    fn end_preroll(&mut self, outcome: Result<()>) {
        if let Some(waiting) = self.prerolling.take() {
            // Whoever waited may have gone.
            let _ = waiting.send(outcome);
        }
    }

    fn drive_all(&mut self, ctx: &mut Context<Self>) {
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            self.drive(id, ctx);
        }
    }

    fn stand(&mut self, ctx: &mut Context<Self>) {
        for stream in self.streams.values_mut() {
            stream.stand();
            if let Some((_, timer)) = stream.timer.take() {
                ctx.cancel_future(timer);
            }
        }
    }
}

impl<R> fmt::Debug for SinkActor<R> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SinkActor({} streams)", self.streams.len())
    }
}

impl<R: Renderer> Actor for SinkActor<R> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        end_with_last_handle(ctx);
    }
}

impl<R: Renderer> Handler<SetSinkType> for SinkActor<R> {
    type Result = ReplyFuture<()>;

    fn handle(&mut self, message: SetSinkType, _: &mut Self::Context) -> Self::Result {
        ReplyFuture::new(self.renderer.set_type(message.stream, message.media_type))
    }
}

impl<R: Renderer> Handler<ConnectSink> for SinkActor<R> {
    type Result = ReplyFuture<()>;

    fn handle(&mut self, message: ConnectSink, _: &mut Self::Context) -> Self::Result {
        let is_new = !self.streams.contains_key(&message.stream);
        if is_new && self.streams.len() >= MAX_STREAMS {
            return ReplyFuture::ready(Err(Error::limit(
                "streams of a sink",
                MAX_STREAMS as u64,
                self.streams.len() as u64 + 1,
            )));
        }
        let ahead = self.ahead;
        let stream = self
            .streams
            .entry(message.stream)
            .or_insert_with(|| Stream::new(ahead));
        stream.input.connect(message.upstream.clone());
        if let Some(ahead) = message.ahead {
            stream.input.set_ahead(ahead);
        }
        let asked = self.renderer.allocation(message.stream);
        ReplyFuture::new(message.upstream.require(asked))
    }
}

impl<R: Renderer> Handler<PrerollSink> for SinkActor<R> {
    type Result = ReplyFuture<()>;

    fn handle(&mut self, message: PrerollSink, ctx: &mut Self::Context) -> Self::Result {
        self.end_preroll(Err(Error::cancelled()));
        self.stand(ctx);
        self.failure = None;
        self.epoch = message.epoch;
        self.renderer.flush(message.epoch);
        for stream in self.streams.values_mut() {
            stream.flush(message.epoch);
        }
        let (waiting, answer) = oneshot::channel();
        self.prerolling = Some(waiting);
        self.check_preroll(ctx);
        ReplyFuture::new(async move { answer.await.unwrap_or_else(|_| Err(Error::cancelled())) })
    }
}

impl<R: Renderer> Handler<StartSink> for SinkActor<R> {
    type Result = Result<()>;

    fn handle(&mut self, message: StartSink, ctx: &mut Self::Context) -> Self::Result {
        let rateless = message.rateless || self.renderer.is_rateless();
        self.stand(ctx);
        for stream in self.streams.values_mut() {
            stream.follow(message.clock, rateless);
        }
        self.drive_all(ctx);
        Ok(())
    }
}

impl<R: Renderer> Handler<PauseSink> for SinkActor<R> {
    type Result = Result<()>;

    fn handle(&mut self, _: PauseSink, ctx: &mut Self::Context) -> Self::Result {
        self.stand(ctx);
        Ok(())
    }
}

impl<R: Renderer> Handler<StopSink> for SinkActor<R> {
    type Result = Result<()>;

    fn handle(&mut self, _: StopSink, ctx: &mut Self::Context) -> Self::Result {
        self.stand(ctx);
        self.end_preroll(Err(Error::cancelled()));
        for stream in self.streams.values_mut() {
            stream.input.stop();
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
        Ok(self
            .streams
            .iter()
            .map(|(id, stream)| stream.counts(*id))
            .collect())
    }
}

impl<R: Renderer> Handler<NextNodeEvents> for SinkActor<R> {
    type Result = Deferred<Vec<(Epoch, NodeEvent)>>;

    fn handle(&mut self, _: NextNodeEvents, _: &mut Self::Context) -> Self::Result {
        self.events.next()
    }
}
