//! A source of one's own, in an isolated host: `cargo run --example custom_source -- tone.wav`.
//!
//! A source needs no input: a topology names it by class id and settings. The file is opened by the application, and only
//! because its policy grants it.

use futures::StreamExt;
use portcullis::engine::component::MediaSource;
use portcullis::engine::topology::{NodeKind, ObjectRef, Topology};
use portcullis::{
    Component, EventKind, MediaTime, MediaType, OpenPolicy, Pacing, Placement,
    PresentationDescriptor, Result, Sample, Settings, StreamDescriptor, StreamId, Subtype,
    TimeBase,
};
use serde::{Deserialize, Serialize};

const RATE: u32 = 48_000;
/// PCM frames of one sample: 10 ms.
const FRAMES: u32 = RATE / 100;

/// A sine wave.
#[derive(Debug, Serialize, Deserialize, Component)]
#[component(source, class = "example.tone", about = "A sine wave", produces = [PCM_S16])]
struct Tone {
    hertz: f64,
    seconds: u32,
    #[serde(skip, default = "presentation")]
    presentation: PresentationDescriptor,
    #[serde(skip)]
    next: u32,
}

fn presentation() -> PresentationDescriptor {
    let media_type = MediaType::audio(Subtype::PCM_S16, RATE, 1);
    let base = TimeBase::per_second(RATE).expect("a rate is not zero");
    PresentationDescriptor {
        streams: vec![StreamDescriptor::new(StreamId(0), media_type, base)],
        ..PresentationDescriptor::default()
    }
}

impl MediaSource for Tone {
    fn presentation(&self) -> &PresentationDescriptor {
        &self.presentation
    }

    fn start(&mut self, _: &[StreamId], position: Option<MediaTime>) -> Result<()> {
        if let Some(position) = position {
            self.next = (position.as_secs_f64() * f64::from(RATE)) as u32 / FRAMES;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Option<(StreamId, Sample)>> {
        if self.next >= self.seconds * RATE / FRAMES {
            return Ok(None);
        }
        let wave = |frame: u32| {
            (f64::from(frame) * self.hertz * std::f64::consts::TAU / f64::from(RATE)).sin()
        };
        let first = self.next * FRAMES;
        let values = (first..first + FRAMES).map(|frame| (wave(frame) * 12_000.0) as i16);
        let payload: Vec<u8> = values.flat_map(i16::to_le_bytes).collect();
        let time = MediaTime::from_millis(i64::from(self.next) * 10);
        self.next += 1;
        Ok(Some((
            StreamId(0),
            Sample::new(time, MediaTime::from_millis(10), payload),
        )))
    }
}

fn main() -> anyhow::Result<()> {
    portcullis::host::init(portcullis::builtin().with_source::<Tone>());
    run()
}

#[tokio::main]
async fn run() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "tone.wav".into());
    let mut policy = OpenPolicy::new();
    policy.grant_output(&path);
    let session = portcullis::session(Placement::isolated())
        .pacing(Pacing::Free)
        .policy(policy)
        .start()
        .await?;
    let mut events = session.events();
    let mut topology = Topology::new();
    let tone = Settings::from_json(r#"{"hertz": 440.0, "seconds": 2}"#);
    let from = topology.add_node(NodeKind::source(
        ObjectRef::with_settings("example.tone", tone),
        StreamId(0),
    ));
    let file = Settings::of(&serde_json::json!({ "url": path }))?;
    let to = topology.add_node(NodeKind::output(
        ObjectRef::with_settings("sink.wav", file),
        0,
    ));
    topology.connect(from, 0, to, 0)?;
    session.set_topology(topology, Vec::new()).await?;
    session.start(None).await?;
    while let Some(event) = events.next().await {
        if let EventKind::SessionEnded { .. } = event.kind {
            break;
        }
        event.status?;
    }
    // Closing completes the file.
    session.close().await?;
    println!("{path}");
    Ok(())
}
