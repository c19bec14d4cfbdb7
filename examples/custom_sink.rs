//! A sink of one's own, in an isolated host: `cargo run --example custom_sink -- clip.mp4 levels.csv`.
//!
//! The sink writes a file that it cannot open: the host asks the application, whose policy grants it.

use std::io::Write;

use futures::StreamExt;
use portcullis::engine::component::{ByteSink, MediaSink};
use portcullis::engine::topology::{NodeKind, ObjectRef, Topology};
use portcullis::{
    Component, Error, EventKind, MajorType, MediaType, NodeObject, OpenPolicy, Pacing, Placement,
    Result, Sample, Settings, SourceSide,
};
use serde::{Deserialize, Serialize};

/// Writes the time and the loudest value of each sample of sound.
#[derive(Serialize, Deserialize, Component)]
#[component(sink, class = "example.levels", about = "Writes levels", accepts = [PCM_S16])]
struct Levels {
    url: String,
    #[serde(skip)]
    file: Option<Box<dyn ByteSink>>,
}

impl MediaSink for Levels {
    fn set_type(&mut self, _: u32, media_type: &MediaType) -> Result<()> {
        if !Self::INFO.accepts.contains(&media_type.subtype) {
            return Err(Error::invalid_type(media_type, "16-bit sound is wanted"));
        }
        Ok(())
    }

    fn render(&mut self, _: u32, sample: Sample) -> Result<()> {
        let bytes = sample.payload.to_bytes();
        let values = bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|pair| i16::from_le_bytes(*pair).unsigned_abs());
        let file = self
            .file
            .as_mut()
            .ok_or_else(|| Error::invalid_request("no file"))?;
        writeln!(
            file,
            "{:.3},{}",
            sample.time.as_secs_f64(),
            values.max().unwrap_or(0)
        )
        .map_err(|error| Error::io("levels", &error))
    }

    fn is_rateless(&self) -> bool {
        true
    }

    fn output_url(&self) -> Option<&str> {
        Some(&self.url)
    }

    fn attach(&mut self, output: Box<dyn ByteSink>) -> Result<()> {
        self.file = Some(output);
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    portcullis::host::init(portcullis::builtin().with_sink::<Levels>());
    run()
}

#[tokio::main]
async fn run() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let input = arguments
        .next()
        .unwrap_or_else(|| "tests/media/clip.mp4".into());
    let output = arguments.next().unwrap_or_else(|| "levels.csv".into());
    let mut policy = OpenPolicy::new();
    let url = policy.grant(input);
    policy.grant_output(&output);
    let session = portcullis::session(Placement::isolated())
        .pacing(Pacing::Free)
        .policy(policy)
        .start()
        .await?;
    let mut events = session.events();

    let source = session.resolve(&url, SourceSide::Host).await?;
    let sound = source
        .presentation
        .nth_of(MajorType::Audio, 0)
        .map(|stream| stream.id);
    let sound = sound.ok_or_else(|| anyhow::anyhow!("there is no sound"))?;
    let mut topology = Topology::new();
    let id = portcullis::ObjectId(0);
    let from = topology.add_node(NodeKind::described(
        ObjectRef::Object(id),
        sound,
        source.presentation.clone(),
    ));
    let levels = Settings::of(&serde_json::json!({ "url": output }))?;
    let to = topology.add_node(NodeKind::output(
        ObjectRef::with_settings("example.levels", levels),
        0,
    ));
    topology.connect(from, 0, to, 0)?;
    session
        .set_topology(topology, vec![(id, NodeObject::Source(source))])
        .await?;
    session.start(None).await?;
    while let Some(event) = events.next().await {
        if let EventKind::SessionEnded { .. } = event.kind {
            break;
        }
        event.status?;
    }
    session.close().await?;
    println!("{output}");
    Ok(())
}
