//! The media sink actor: pulls samples, waits for their time, and renders them.

mod actor;
mod component;
mod grabber;
mod stream;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use portcullis_derive::Remote;
use portcullis_engine::clock::ClockSnapshot;
use portcullis_engine::{Error, MediaTime, MediaType, Result, Sample};
use serde::{Deserialize, Serialize};

pub use super::events::{NextNodeEvents, NodeEvent};
pub use super::input::{ReadAhead, Upstream};
use super::port::{AllocationRequirements, Epoch};
use crate::bridge::Handle;
pub(crate) use actor::SinkActor;
pub(crate) use component::ComponentRenderer;
pub(crate) use grabber::{Accept, Grabber, SampleGrabber};
pub use grabber::{Grabbed, GrabbedItem};

crate::interface! {
    /// The control side of a sink.
    pub SinkControl = "portcullis.SinkControl" {
        SetSinkType, ConnectSink, PrerollSink, StartSink, PauseSink, StopSink, FinalizeSink, SinkStatistics, NextNodeEvents
    }
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

/// Enters a new epoch and asks for samples; answered when each stream has the first that is to be rendered.
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
    /// The time of the sample that was rendered last.
    pub position: Option<MediaTime>,
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
    /// What is asked of the memory in which a stream's samples come.
    fn allocation(&mut self, _: u32) -> LocalBoxFuture<'static, Result<AllocationRequirements>> {
        std::future::ready(Ok(AllocationRequirements::default())).boxed_local()
    }
    fn render(&mut self, stream: u32, samples: Vec<Sample>) -> LocalBoxFuture<'static, Result<()>>;
    fn fault(&mut self, stream: u32, error: Error) -> LocalBoxFuture<'static, Result<()>>;
    fn end_of_stream(&mut self, stream: u32) -> LocalBoxFuture<'static, Result<()>>;
    /// The sink cannot go on: the last call for this stream until the next flush.
    fn fail(&mut self, stream: u32, error: Error) -> LocalBoxFuture<'static, Result<()>>;
    fn finalize(&mut self) -> LocalBoxFuture<'static, Result<()>>;
    fn flush(&mut self, epoch: Epoch);
    fn is_rateless(&self) -> bool;
}
