//! The components that measure latency: a source that stamps each sample when its time has come, and a transform that
//! looks at the stamp where the sample arrives.

use std::sync::Arc;
use std::time::Duration;

use portcullis_engine::media::{HeapAllocator, SampleAllocator};
use portcullis_engine::presentation::Characteristics;
use portcullis_engine::{
    Component, ComponentInfo, MajorType, MediaSource, MediaTime, MediaType, Output,
    PresentationDescriptor, Result, Sample, StreamDescriptor, StreamId, Subtype, TimeBase,
    Transform,
};
use serde::{Deserialize, Serialize};

use crate::{Interactive, Receive, Registry, Remote, interface, system_time};

/// Class id of [`Metronome`].
pub(super) const METRONOME: &str = "bench.metronome";

/// The registry of a program that is measured: everything built in, and what measures.
pub fn registry() -> Registry {
    crate::builtin()
        .with_source::<Metronome>()
        .with_interactive::<Stopwatch>()
}

/// What the metronome makes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetronomeSettings {
    pub(super) size: u32,
    pub(super) count: u64,
    pub(super) interval_us: u32,
}

/// A live source: sample `n` is made `n` intervals after the start and begins with the time at which it was made.
#[derive(Debug)]
pub(super) struct Metronome {
    settings: MetronomeSettings,
    presentation: PresentationDescriptor,
    next: u64,
    start: Option<std::time::Instant>,
    memory: Arc<dyn SampleAllocator>,
}

impl Component for Metronome {
    type Settings = MetronomeSettings;
    const INFO: ComponentInfo = ComponentInfo::source(METRONOME, "Makes a sample at each interval")
        .produces(&[Subtype::PATTERN])
        .inline();

    fn new(settings: MetronomeSettings) -> Result<Self> {
        let media_type = MediaType::new(MajorType::Data, Subtype::PATTERN);
        Ok(Self {
            settings,
            presentation: PresentationDescriptor {
                streams: vec![StreamDescriptor::new(
                    StreamId(0),
                    media_type,
                    TimeBase::TICKS,
                )],
                characteristics: Characteristics {
                    live: true,
                    ..Characteristics::default()
                },
                ..PresentationDescriptor::default()
            },
            next: 0,
            start: None,
            memory: Arc::new(HeapAllocator),
        })
    }
}

impl Metronome {
    /// When the next sample is to be made, from the start on.
    fn due(&self) -> Duration {
        Duration::from_micros(u64::from(self.settings.interval_us))
            .saturating_mul(u32::try_from(self.next).unwrap_or(u32::MAX))
    }
}

impl MediaSource for Metronome {
    fn presentation(&self) -> &PresentationDescriptor {
        &self.presentation
    }

    fn use_memory(&mut self, memory: Arc<dyn SampleAllocator>) {
        self.memory = memory;
    }

    fn start(&mut self, _: &[StreamId], _: Option<MediaTime>) -> Result<()> {
        self.start.get_or_insert_with(std::time::Instant::now);
        Ok(())
    }

    fn next_in(&self) -> Option<Duration> {
        if self.next == self.settings.count {
            return None;
        }
        let wait = self.due().saturating_sub(self.start?.elapsed());
        (!wait.is_zero()).then_some(wait)
    }

    fn read(&mut self) -> Result<Option<(StreamId, Sample)>> {
        if self.next == self.settings.count {
            return Ok(None);
        }
        let time = MediaTime::from(self.due());
        self.next += 1;
        let mut payload = self.memory.allocate(self.settings.size as usize);
        payload.fill(self.next as u8);
        let now = system_time::now().ticks();
        if let Some(stamp) = payload.first_chunk_mut::<8>() {
            *stamp = now.to_le_bytes();
        }
        Ok(Some((
            StreamId(0),
            Sample::new(time, MediaTime::ZERO, payload),
        )))
    }
}

interface! {
    /// What can be asked of a stopwatch.
    pub(super) StopwatchControl = "bench.StopwatchControl" { TakeLatencies, Echo }
}

/// Asks for the latencies since the last time, in 100 ns.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Vec<u32>)]
pub(super) struct TakeLatencies;

/// Asks for the same number.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = u64)]
pub(super) struct Echo(pub(super) u64);

/// Measures how old samples are, and passes them on.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stopwatch {
    #[serde(skip)]
    latencies: Vec<u32>,
}

impl Component for Stopwatch {
    type Settings = Self;
    const INFO: ComponentInfo =
        ComponentInfo::transform("bench.stopwatch", "Measures how old samples are").inline();

    fn new(settings: Self) -> Result<Self> {
        Ok(settings)
    }
}

impl Transform for Stopwatch {
    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        let now = system_time::now().ticks();
        let stamp = match &input.payload {
            crate::Payload::Bytes(bytes) => bytes
                .first_chunk::<8>()
                .map(|word| i64::from_le_bytes(*word)),
            crate::Payload::View(view) => view.read_u64(0).map(u64::cast_signed),
        };
        if let Some(stamp) = stamp {
            self.latencies
                .push(u32::try_from(now.saturating_sub(stamp)).unwrap_or(u32::MAX));
        }
        output.push(input);
        Ok(())
    }
}

impl Interactive for Stopwatch {
    type Interface = StopwatchControl;
}

impl Receive<TakeLatencies> for Stopwatch {
    fn receive(&mut self, _: TakeLatencies) -> Result<Vec<u32>> {
        Ok(std::mem::take(&mut self.latencies))
    }
}

impl Receive<Echo> for Stopwatch {
    fn receive(&mut self, message: Echo) -> Result<u64> {
        Ok(message.0)
    }
}
