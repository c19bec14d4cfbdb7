//! Remote-source mode in the four steps of the original: `cargo run --example remote_source -- clip.mp4`.
//!
//! The source is made in the host by class id; nothing of the input is parsed in the application. Only asynchronous calls
//! exist: a thread that blocks on another process could be waited for by it.

use futures::StreamExt;
use portcullis::engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis::host::{CreateObject, CreatedObject, SOURCE_RESOLVER};
use portcullis::pipeline::resolver::ResolveUrl;
use portcullis::pipeline::session::GetPmpHost;
use portcullis::{EventKind, NodeObject, OpenPolicy, Pacing, Placement, Settings};

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

    // 1. The mode is chosen when the session is made.
    let session = portcullis::session(Placement::isolated())
        .pacing(Pacing::Free)
        .policy(policy)
        .start()
        .await?;
    let mut events = session.events();
    // 2. The session gives its PMP host.
    let pmp_host = session.control().send(GetPmpHost).await?;
    // 3. A source resolver is created in the host by its class id.
    let create = CreateObject {
        class: SOURCE_RESOLVER.into(),
        settings: Settings::default(),
        opener: None,
        limits: session.limits(),
    };
    let CreatedObject::Resolver(resolver) = pmp_host.send(create).await? else {
        anyhow::bail!("the host made something else");
    };
    // 4. The source is made by an asynchronous call; what has to be opened, the application's opener opens.
    let request = ResolveUrl {
        url,
        opener: session.opener().clone(),
        limits: session.limits(),
    };
    let refused = resolver
        .resolve_url_blocking(request.clone())
        .map(|source| source.presentation.format);
    println!("the blocking call: {refused:?}");
    let source = resolver.send(request).await?;
    println!(
        "{} with {} streams, remote: {}",
        source.presentation.format,
        source.presentation.streams.len(),
        source.control.is_remote()
    );

    let mut topology = Topology::new();
    let stream = source.presentation.streams[0].id;
    let object = ObjectRef::Object(ObjectId(0));
    let from = topology.add_node(NodeKind::described(
        object,
        stream,
        source.presentation.clone(),
    ));
    let to = topology.add_node(NodeKind::output(ObjectRef::activation("sink.null"), 0));
    topology.connect(from, 0, to, 0)?;
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
    println!("{} samples", session.statistics().await?[0].counts.samples);
    Ok(())
}
