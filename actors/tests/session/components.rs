//! Tiny components: a source of counted samples, a container of them, a transform that passes on, and a sink that counts.

use portcullis_actors::registry::Registry;
use portcullis_engine::component::{ByteStreamHandler, Confidence, Hints, OpenContext};
use portcullis_engine::presentation::Characteristics;
use portcullis_engine::{
    ByteSource, Component, ComponentInfo, Error, MediaSink, MediaSource, MediaTime, MediaType,
    Output, PresentationDescriptor, Result, Sample, StreamDescriptor, StreamId, Subtype, TimeBase,
    Transform,
};
use serde::{Deserialize, Serialize};

pub(crate) fn registry() -> Registry {
    Registry::new()
        .with_source::<Counter>()
        .with_transform::<Pass>()
        .with_sink::<Null>()
        .with_byte_stream_handler::<Container>()
}

/// A millisecond of two channels at 48 kHz.
pub(crate) const SAMPLE_BYTES: usize = 192;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CounterSettings {
    pub(crate) samples: u64,
}

/// Samples of one stream whose first bytes count.
pub(crate) struct Counter {
    samples: u64,
    next: u64,
    presentation: PresentationDescriptor,
}

impl Counter {
    fn with(samples: u64) -> Self {
        let sound = MediaType::audio(Subtype::PCM_S16, 48_000, 2);
        let length = MediaTime::from_millis(i64::try_from(samples).unwrap_or(i64::MAX / 20_000));
        Self {
            samples,
            next: 0,
            presentation: PresentationDescriptor {
                streams: vec![StreamDescriptor::new(
                    StreamId(0),
                    sound,
                    TimeBase::new(1, 1000).expect("is one"),
                )],
                duration: Some(length),
                characteristics: Characteristics {
                    live: false,
                    can_seek: true,
                    can_pause: true,
                },
                ..PresentationDescriptor::default()
            },
        }
    }
}

impl Component for Counter {
    type Settings = CounterSettings;
    const INFO: ComponentInfo = ComponentInfo::source("test.counter", "Counts");
    fn new(settings: CounterSettings) -> Result<Self> {
        Ok(Self::with(settings.samples))
    }
}

impl MediaSource for Counter {
    fn presentation(&self) -> &PresentationDescriptor {
        &self.presentation
    }

    fn start(&mut self, _: &[StreamId], position: Option<MediaTime>) -> Result<()> {
        if let Some(position) = position {
            self.next = u64::try_from(position.ticks() / 10_000).unwrap_or(0);
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Option<(StreamId, Sample)>> {
        if self.next >= self.samples {
            return Ok(None);
        }
        let mut bytes = vec![0; SAMPLE_BYTES];
        bytes[..8].copy_from_slice(&self.next.to_le_bytes());
        let time = MediaTime::from_millis(i64::try_from(self.next).expect("few"));
        self.next += 1;
        let sample = Sample::new(time, MediaTime::from_millis(1), bytes);
        Ok(Some((StreamId(0), sample)))
    }
}

/// `TEST` and a count: a counter of so many samples. `TESTwait` reads on for ever instead.
pub(crate) struct Container;

impl Component for Container {
    type Settings = CounterSettings;
    const INFO: ComponentInfo = ComponentInfo::byte_stream_handler("test.container", "Counts");
    fn new(_: CounterSettings) -> Result<Self> {
        Ok(Self)
    }
}

impl ByteStreamHandler for Container {
    fn probe(&self, head: &[u8], _: &Hints) -> Confidence {
        match head.starts_with(b"TEST") {
            true => Confidence::Sure,
            false => Confidence::No,
        }
    }

    fn open(
        &self,
        mut input: Box<dyn ByteSource>,
        _: &OpenContext,
    ) -> Result<Box<dyn MediaSource>> {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut input, &mut text)
            .map_err(|error| Error::io("read the count", &error))?;
        let count = text.trim_start_matches("TEST").trim().parse();
        let count = count.map_err(|_| Error::malformed(4, "not a count"))?;
        Ok(Box::new(Counter::with(count)))
    }
}

/// Passes samples on, on a worker of its own.
pub(crate) struct Pass;

impl Component for Pass {
    type Settings = CounterSettings;
    const INFO: ComponentInfo = ComponentInfo::transform("test.pass", "Passes on")
        .accepts(&[Subtype::PCM_S16])
        .produces(&[Subtype::PCM_S16]);
    fn new(_: CounterSettings) -> Result<Self> {
        Ok(Self)
    }
}

impl Transform for Pass {
    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        output.push(input);
        Ok(())
    }
}

/// Takes everything.
pub(crate) struct Null;

impl Component for Null {
    type Settings = CounterSettings;
    const INFO: ComponentInfo = ComponentInfo::sink("test.null", "Takes everything");
    fn new(_: CounterSettings) -> Result<Self> {
        Ok(Self)
    }
}

impl MediaSink for Null {
    fn set_type(&mut self, _: u32, _: &MediaType) -> Result<()> {
        Ok(())
    }
    fn render(&mut self, _: u32, _: Sample) -> Result<()> {
        Ok(())
    }
}
