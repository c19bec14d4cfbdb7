//! The application: `my-app HOST CLIP [MANIFEST PUBLIC-KEY]` plays the sound of a clip through `my.quieter`, which only the
//! host program has: in an isolated host, or, with a manifest and the key that has to have signed it, in a protected one.

use std::path::PathBuf;

use anyhow::Context;
use custom_host::Quieter;
use futures::StreamExt;
use portcullis::engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis::engine::trust::{PublicKey, TrustRoots};
use portcullis::host::{DescribeHost, Host, ProtectedHost, Trust};
use portcullis::pipeline::sink::Grabbed;
use portcullis::{MajorType, NodeObject, OpenPolicy, Pacing, Placement, Settings, SourceSide};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: my-app HOST CLIP [MANIFEST PUBLIC-KEY]";
    let host = Host::program(arguments.next().context(usage)?);
    let clip = arguments.next().context(usage)?;
    let placement = match (arguments.next(), arguments.next()) {
        (None, _) => Placement::Isolated(host),
        (Some(manifest), Some(key)) => {
            let roots = TrustRoots::new([PublicKey::parse(&std::fs::read(key)?)?])?;
            Placement::Protected(ProtectedHost::new(host, Trust::file(manifest, roots)))
        }
        (Some(_), None) => anyhow::bail!(usage),
    };
    let kind = if matches!(placement, Placement::Isolated(_)) { "an isolated" } else { "a protected" };

    let mut policy = OpenPolicy::new();
    let url = policy.grant(PathBuf::from(clip));
    let session = portcullis::session(placement)
        .pacing(Pacing::Free)
        .policy(policy)
        .start()
        .await?;
    let facts = session.pmp_host().send(DescribeHost).await?;
    let own = facts.components.iter().find(|c| c.class == "my.quieter");
    let own = own.context("the host program lacks my.quieter")?;
    println!(
        "in {kind} host, process {}: {} components, one is {own}",
        facts.pid,
        facts.components.len()
    );

    let source = session.resolve(&url, SourceSide::Host).await?;
    let sound = source.presentation.nth_of(MajorType::Audio, 0);
    let sound = sound.context("the clip has no sound")?.id;
    let (sink, mut samples) = session.sample_grabber().await?;
    let [source_id, sink_id] = [0, 1].map(ObjectId);
    let mut topology = Topology::new();
    let from = topology.add_node(NodeKind::described(
        ObjectRef::Object(source_id),
        sound,
        source.presentation.clone(),
    ));
    let settings = Settings::of(&Quieter { by: 4 })?;
    let quieter = ObjectRef::with_settings("my.quieter", settings);
    let through = topology.add_node(NodeKind::transform(quieter));
    let to = topology.add_node(NodeKind::output(ObjectRef::Object(sink_id), 0));
    topology.connect(from, 0, through, 0)?;
    topology.connect(through, 0, to, 0)?;
    let objects = vec![(source_id, NodeObject::Source(source)), (sink_id, sink)];
    session.set_topology(topology, objects).await?;
    session.start(None).await?;

    let (mut count, mut loudest) = (0, 0);
    while let Some(item) = samples.next().await {
        match item.what {
            Grabbed::Sample(sample) => {
                count += 1;
                let bytes = sample.payload.to_bytes();
                let values = bytes
                    .chunks_exact(2)
                    .map(|b| i16::from_le_bytes([b[0], b[1]]));
                loudest = values.map(i16::unsigned_abs).fold(loudest, u16::max);
            }
            Grabbed::Fault(error) => return Err(error.into()),
            Grabbed::End => break,
            _ => {}
        }
    }
    println!("{count} samples, the loudest value is {loudest}");
    Ok(())
}
