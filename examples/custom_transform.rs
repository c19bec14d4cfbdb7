//! A transform of one's own with a knob that is turned while it works: `cargo run --example custom_transform -- clip.mp4`.
//!
//! The component runs in the host; its handle answers in the application as if it were here.

use futures::StreamExt;
use portcullis::engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis::pipeline::sink::Grabbed;
use portcullis::{
    Component, Interactive, MajorType, NodeObject, OpenPolicy, Output, Pacing, Placement, Receive,
    Remote, Result, Sample, SourceSide, Transform, interface,
};
use serde::{Deserialize, Serialize};

// The component.

/// Multiplies sound by a factor that can be changed at any time.
#[derive(Debug, Serialize, Deserialize, Component)]
#[component(transform, class = "example.gain", about = "Multiplies sound by a factor", accepts = [PCM_S16], produces = [PCM_S16])]
pub struct Gain {
    /// What values are multiplied by.
    pub factor: f32,
}

impl Transform for Gain {
    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        output.push(input.map_i16(|value| (f32::from(value) * self.factor) as i16));
        Ok(())
    }
}

// Its message.

/// Changes the factor from the next sample on; answers the one before.
#[derive(Debug, Serialize, Deserialize, Remote)]
#[remote(reply = f32)]
pub struct SetFactor(pub f32);

interface! {
    /// The knob of a gain.
    pub GainControl = "example.GainControl" { SetFactor }
}

impl Interactive for Gain {
    type Interface = GainControl;
}

impl Receive<SetFactor> for Gain {
    fn receive(&mut self, SetFactor(factor): SetFactor) -> Result<f32> {
        Ok(std::mem::replace(&mut self.factor, factor))
    }
}

// The program.

fn main() -> anyhow::Result<()> {
    portcullis::host::init(portcullis::builtin().with_interactive::<Gain>());
    run()
}

#[tokio::main]
async fn run() -> anyhow::Result<()> {
    let path = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "tests/media/clip.mp4".into());
    let mut policy = OpenPolicy::new();
    let url = policy.grant(path);
    let session = portcullis::session(Placement::isolated())
        .pacing(Pacing::Free)
        .policy(policy)
        .start()
        .await?;

    let source = session.resolve(&url, SourceSide::Host).await?;
    let sound = source
        .presentation
        .nth_of(MajorType::Audio, 0)
        .map(|stream| stream.id);
    let sound = sound.ok_or_else(|| anyhow::anyhow!("there is no sound"))?;
    let (knob, gain) = session.create(Gain { factor: 1.0 }).await?;
    let (sink, mut samples) = session.sample_grabber().await?;

    let [source_id, gain_id, sink_id] = [0, 1, 2].map(ObjectId);
    let mut topology = Topology::new();
    let from = NodeKind::described(
        ObjectRef::Object(source_id),
        sound,
        source.presentation.clone(),
    );
    let from = topology.add_node(from);
    let through = topology.add_node(NodeKind::transform(ObjectRef::Object(gain_id)));
    let to = topology.add_node(NodeKind::output(ObjectRef::Object(sink_id), 0));
    topology.connect(from, 0, through, 0)?;
    topology.connect(through, 0, to, 0)?;
    let objects = vec![
        (source_id, NodeObject::Source(source)),
        (gain_id, NodeObject::Transform(gain)),
        (sink_id, sink),
    ];
    session.set_topology(topology, objects).await?;
    session.start(None).await?;

    let (mut count, mut silent) = (0, 0);
    while let Some(item) = samples.next().await {
        match item.what {
            Grabbed::Sample(sample) => {
                count += 1;
                silent += usize::from(sample.payload.to_bytes().iter().all(|byte| *byte == 0));
                if count == 10 {
                    println!("the factor was {}", knob.send(SetFactor(0.0)).await?);
                }
            }
            Grabbed::Fault(error) => return Err(error.into()),
            Grabbed::End => break,
            _ => {}
        }
    }
    println!("{count} samples, the last {silent} are silent");
    Ok(())
}
