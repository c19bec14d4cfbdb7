//! The source stays in the application, everything else runs in a host: `cargo run --example source_in_app -- clip.mp4`.
//!
//! The session drives the source through a proxy; compressed samples cross the wall, the input does not. For an input that
//! the application trusts, or a source that is the application's own.

use futures::StreamExt;
use portcullis::engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis::{
    EventKind, MajorType, MediaType, NodeObject, OpenPolicy, Pacing, Placement, SourceSide, Subtype,
};

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
        .pacing(Pacing::Free)
        .policy(policy)
        .start()
        .await?;
    let mut events = session.events();

    let source = session.resolve(&url, SourceSide::Application).await?;
    println!("the source is remote: {}", source.control.is_remote());
    println!("the session is remote: {}", session.control().is_remote());
    let mut topology = Topology::new();
    let object = ObjectRef::Object(ObjectId(0));
    let pictures = source.presentation.nth_of(MajorType::Video, 0);
    let stream = pictures
        .ok_or_else(|| anyhow::anyhow!("it has no pictures"))?
        .id;
    let from = topology.add_node(NodeKind::described(
        object,
        stream,
        source.presentation.clone(),
    ));
    let to = topology.add_node(NodeKind::output(ObjectRef::activation("sink.null"), 0));
    topology.connect(from, 0, to, 0)?;
    if let Some(sink) = topology.node_mut(to) {
        // The sink takes everything: it must ask for pictures to be given decoded ones.
        sink.prefer_input(0, MediaType::new(MajorType::Video, Subtype::RAW_VIDEO))?;
    }
    session
        .set_topology(topology, vec![(ObjectId(0), NodeObject::Source(source))])
        .await?;
    session.start(None).await?;
    while let Some(event) = events.next().await {
        if let EventKind::SessionEnded { .. } = event.kind {
            break;
        }
        event.status?;
    }
    println!(
        "{} samples decoded in process {}",
        session.statistics().await?[0].counts.samples,
        session.host().pid()
    );
    Ok(())
}
