//! An actor with whatever the claims need, on either side of the wall.

use std::collections::HashMap;

use actix::{Actor, ActorContext, Handler};
use portcullis_actors::bridge::{Context, Handle, ReplyFuture, TraceContext};
use portcullis_actors::{Remote, interface};
use portcullis_engine::{Error, MediaTime, Result, Sample};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::spans::{self, Seen};

interface! {
    /// What a lab answers.
    pub(crate) Lab = "test.Lab" {
        Whose, Begin, Keep, Kept, AskKept, WaitOnKept, WatchKept, Wait, AwaitEvents, Stop, Panic, Fetch, Call, Spans, IsHome,
    }
}

/// Handles in collections in collections.
pub(crate) type Nested = Vec<Option<HashMap<String, Handle<Lab>>>>;

/// The process that the actor is in.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = u32)]
pub(crate) struct Whose;

/// Makes another lab, whose events its maker counts.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Handle<Lab>)]
pub(crate) struct Begin;

/// Keeps handles.
#[derive(Serialize, Deserialize, Remote)]
pub(crate) struct Keep(pub(crate) Nested);

/// Gives the kept handles back and keeps them no more.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Nested)]
pub(crate) struct Kept;

/// Asks the kept lab whose it is.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = u32)]
pub(crate) struct AskKept;

/// Waits on the kept lab.
#[derive(Serialize, Deserialize, Remote)]
#[remote(no_deadline)]
pub(crate) struct WaitOnKept;

/// Watches the kept lab, and gives its end.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Error, no_deadline)]
pub(crate) struct WatchKept;

/// Waits for ever.
#[derive(Serialize, Deserialize, Remote)]
#[remote(no_deadline)]
pub(crate) struct Wait;

/// Answers once so many waits were begun, were dropped, and so many labs of this one have stopped.
#[derive(Serialize, Deserialize, Remote)]
#[remote(no_deadline)]
pub(crate) struct AwaitEvents(pub(crate) Events);

/// Stops the lab.
#[derive(Serialize, Deserialize, Remote)]
pub(crate) struct Stop;

/// Panics.
#[derive(Serialize, Deserialize, Remote)]
pub(crate) struct Panic;

/// Gives a sample of so many bytes.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Sample)]
pub(crate) struct Fetch(pub(crate) usize);

/// Works, and calls back the lab that it is given, if any; gives the trace in which it did so.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Option<String>)]
pub(crate) struct Call(pub(crate) Option<Handle<Lab>>);

/// The spans that the process has seen.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Vec<Seen>)]
pub(crate) struct Spans;

/// Whether the lab that it is given is in the same process.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = bool)]
pub(crate) struct IsHome(pub(crate) Handle<Lab>);

/// What has happened to a lab and those that it has made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Events {
    pub(crate) waits_begun: usize,
    pub(crate) waits_dropped: usize,
    pub(crate) stopped: usize,
}

pub(crate) struct LabActor {
    kept: Nested,
    events: watch::Sender<Events>,
}

impl Default for LabActor {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            events: watch::channel(Events::default()).0,
        }
    }
}

impl LabActor {
    fn kept(&self) -> Result<Handle<Lab>> {
        let kept = self.kept.iter().flatten().flat_map(HashMap::values).next();
        kept.cloned()
            .ok_or_else(|| Error::invalid_request("nothing is kept"))
    }
}

impl Actor for LabActor {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        self.events.send_modify(|events| events.stopped += 1);
    }
}

impl Handler<Whose> for LabActor {
    type Result = Result<u32>;
    fn handle(&mut self, _: Whose, _: &mut Self::Context) -> Self::Result {
        Ok(portcullis_transport::host::pid())
    }
}

impl Handler<Begin> for LabActor {
    type Result = Result<Handle<Lab>>;
    fn handle(&mut self, _: Begin, _: &mut Self::Context) -> Self::Result {
        Ok(Handle::start(Self {
            kept: Vec::new(),
            events: self.events.clone(),
        }))
    }
}

impl Handler<Keep> for LabActor {
    type Result = Result<()>;
    fn handle(&mut self, message: Keep, _: &mut Self::Context) -> Self::Result {
        self.kept = message.0;
        Ok(())
    }
}

impl Handler<Kept> for LabActor {
    type Result = Result<Nested>;
    fn handle(&mut self, _: Kept, _: &mut Self::Context) -> Self::Result {
        Ok(std::mem::take(&mut self.kept))
    }
}

impl Handler<AskKept> for LabActor {
    type Result = ReplyFuture<u32>;
    fn handle(&mut self, _: AskKept, _: &mut Self::Context) -> Self::Result {
        let kept = self.kept();
        ReplyFuture::new(async move { kept?.send(Whose).await })
    }
}

impl Handler<WaitOnKept> for LabActor {
    type Result = ReplyFuture<()>;
    fn handle(&mut self, _: WaitOnKept, _: &mut Self::Context) -> Self::Result {
        let kept = self.kept();
        ReplyFuture::new(async move { kept?.send(Wait).await })
    }
}

impl Handler<WatchKept> for LabActor {
    type Result = ReplyFuture<Error>;
    fn handle(&mut self, _: WatchKept, _: &mut Self::Context) -> Self::Result {
        let watch = self.kept().map(|kept| kept.watch());
        ReplyFuture::new(async move { Ok(watch?.await) })
    }
}

impl Handler<Wait> for LabActor {
    type Result = ReplyFuture<()>;
    fn handle(&mut self, _: Wait, _: &mut Self::Context) -> Self::Result {
        struct Dropped(watch::Sender<Events>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.send_modify(|events| events.waits_dropped += 1);
            }
        }
        self.events.send_modify(|events| events.waits_begun += 1);
        let dropped = Dropped(self.events.clone());
        ReplyFuture::new(async move {
            std::future::pending::<()>().await;
            drop(dropped);
            Ok(())
        })
    }
}

impl Handler<AwaitEvents> for LabActor {
    type Result = ReplyFuture<()>;
    fn handle(&mut self, message: AwaitEvents, _: &mut Self::Context) -> Self::Result {
        let mut events = self.events.subscribe();
        ReplyFuture::new(async move {
            let all = events.wait_for(|events| *events == message.0).await;
            all.map(drop).map_err(|_| Error::cancelled())
        })
    }
}

impl Handler<Stop> for LabActor {
    type Result = Result<()>;
    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) -> Self::Result {
        ctx.stop();
        Ok(())
    }
}

impl Handler<Panic> for LabActor {
    type Result = Result<()>;
    fn handle(&mut self, _: Panic, _: &mut Self::Context) -> Self::Result {
        panic!("the lab burns");
    }
}

impl Handler<Fetch> for LabActor {
    type Result = Result<Sample>;
    fn handle(&mut self, message: Fetch, _: &mut Self::Context) -> Self::Result {
        let payload = vec![7; message.0];
        Ok(Sample::new(MediaTime::ZERO, MediaTime::ZERO, payload))
    }
}

impl Handler<Call> for LabActor {
    type Result = ReplyFuture<Option<String>>;
    fn handle(&mut self, message: Call, _: &mut Self::Context) -> Self::Result {
        tracing::info_span!("work").in_scope(|| tracing::debug!("works"));
        ReplyFuture::new(async move {
            tokio::task::yield_now().await;
            if let Some(back) = message.0 {
                back.send(Call(None)).await?;
            }
            Ok(TraceContext::handling().map(|trace| trace.to_string()))
        })
    }
}

impl Handler<Spans> for LabActor {
    type Result = Result<Vec<Seen>>;
    fn handle(&mut self, _: Spans, _: &mut Self::Context) -> Self::Result {
        Ok(spans::seen())
    }
}

impl Handler<IsHome> for LabActor {
    type Result = Result<bool>;
    fn handle(&mut self, message: IsHome, _: &mut Self::Context) -> Self::Result {
        Ok(!message.0.is_remote())
    }
}
