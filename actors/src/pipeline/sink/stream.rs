//! One stream of a sink: what waits for its time, and what the renderer gets next.

use actix::SpawnHandle;
use portcullis_engine::clock::{ClockSnapshot, SystemTime100ns};
use portcullis_engine::quality::{Pace, Pacing, PacingSettings};
use portcullis_engine::{Error, MediaTime, MediaType, Sample};

use super::{LATE, StreamStatistics, TOO_LATE};
use crate::pipeline::input::{Input, ReadAhead};
use crate::pipeline::port::{Epoch, FlowItem};

/// What the renderer gets next.
pub(super) enum Ready {
    Samples(Vec<Sample>),
    Format(MediaType),
    Fault(Error),
    End,
    WaitUntil(SystemTime100ns),
    Nothing,
}

/// One stream of a sink.
pub(super) struct Stream {
    pub(super) input: Input,
    /// A call of the renderer is under way.
    pub(super) is_rendering: bool,
    /// The last thing of this flow was given to the renderer.
    pub(super) has_ended: bool,
    /// When the first sample is looked at again.
    pub(super) timer: Option<(SystemTime100ns, SpawnHandle)>,
    pacing: Pacing,
    bytes: u64,
    faults: u64,
    /// The time of what was rendered last.
    position: Option<MediaTime>,
}

impl Stream {
    pub(super) fn new(ahead: ReadAhead) -> Self {
        Self {
            input: Input::new(ahead),
            is_rendering: false,
            has_ended: false,
            timer: None,
            pacing: Pacing::new(PacingSettings {
                rateless: false,
                late_after: LATE,
                drop_after: Some(TOO_LATE),
            }),
            bytes: 0,
            faults: 0,
            position: None,
        }
    }

    pub(super) fn flush(&mut self, epoch: Epoch) {
        self.input.flush(epoch);
        self.has_ended = false;
    }

    pub(super) fn follow(&mut self, clock: ClockSnapshot, rateless: bool) {
        self.pacing.set_clock(clock);
        self.pacing.set_rateless(rateless);
    }

    pub(super) fn stand(&mut self) {
        self.pacing.set_clock(ClockSnapshot::default());
    }

    pub(super) fn counts(&self, stream: u32) -> StreamStatistics {
        StreamStatistics {
            stream,
            samples: self.pacing.rendered(),
            bytes: self.bytes,
            late: self.pacing.late(),
            dropped: self.pacing.dropped(),
            faults: self.faults,
            position: self.position,
        }
    }

    /// Whether the first thing that is to be rendered is here; a type alone is none.
    pub(super) fn is_prerolled(&mut self) -> bool {
        self.has_ended || self.input.skip_to_first()
    }

    /// Takes out what the renderer gets next.
    pub(super) fn take_ready(&mut self, now: SystemTime100ns) -> Ready {
        let mut samples = Vec::new();
        if self.pacing.is_rateless() {
            // All that are here.
            samples.reserve(self.input.len());
        }
        while let Some(FlowItem::Sample(sample)) = self.input.front() {
            match self.pacing.next(sample, now) {
                Pace::Render => {
                    self.bytes = self.bytes.saturating_add(sample.len() as u64);
                    self.position = Some(sample.time);
                    if let Some(FlowItem::Sample(sample)) = self.input.pop() {
                        samples.push(sample);
                    }
                }
                Pace::Drop => drop(self.input.pop()),
                Pace::WaitUntil(due) if samples.is_empty() => return Ready::WaitUntil(due),
                Pace::Hold if samples.is_empty() => return Ready::Nothing,
                Pace::WaitUntil(_) | Pace::Hold => break,
            }
        }
        if !samples.is_empty() {
            return Ready::Samples(samples);
        }
        if !self.pacing.is_running() {
            return Ready::Nothing;
        }
        match self.input.pop() {
            Some(FlowItem::Format(media_type)) => Ready::Format(media_type),
            Some(FlowItem::Error(error)) => {
                self.faults += 1;
                Ready::Fault(error)
            }
            Some(FlowItem::End) => Ready::End,
            // A gap, or what a newer peer sends: nothing to render.
            Some(_) => self.take_ready(now),
            None => Ready::Nothing,
        }
    }
}
