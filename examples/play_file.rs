//! Plays a file in an isolated host, at its own pace, and shows the session's events: `cargo run --example play_file -- clip.mp4`.
//!
//! There is no screen yet: every stream goes, as the container has it, into a sink that counts.

use futures::StreamExt;
use portcullis::engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis::{EventKind, NodeObject, OpenPolicy, Placement, Settings, SourceSide};

fn main() -> anyhow::Result<()> {
    portcullis::host::init(portcullis::builtin());
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
        .policy(policy)
        .start()
        .await?;
    let mut events = session.events();
    println!(
        "application {}, host {}",
        std::process::id(),
        session.host().pid()
    );

    let source = session.resolve(&url, SourceSide::Host).await?;
    let mut topology = Topology::new();
    for stream in &source.presentation.streams {
        let from = topology.add_node(NodeKind::described(
            ObjectRef::Object(ObjectId(0)),
            stream.id,
            source.presentation.clone(),
        ));
        let sink = ObjectRef::with_settings("sink.null", Settings::default());
        let to = topology.add_node(NodeKind::output(sink, stream.id.0));
        topology.connect(from, 0, to, 0)?;
    }
    session
        .set_topology(topology, vec![(ObjectId(0), NodeObject::Source(source))])
        .await?;
    session.start(None).await?;
    while let Some(event) = events.next().await {
        println!("{event}");
        if matches!(
            event.kind,
            EventKind::SessionEnded { .. } | EventKind::Error
        ) {
            break;
        }
    }
    for output in session.statistics().await? {
        let counts = output.counts;
        println!(
            "node {}: {} samples, {} late, {} dropped",
            output.node, counts.samples, counts.late, counts.dropped
        );
    }
    session.close().await?;
    Ok(())
}
