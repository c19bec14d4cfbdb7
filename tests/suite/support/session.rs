//! Sessions as a player makes them.

use futures::StreamExt;
use portcullis::engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis::{
    Event, EventKind, EventStream, Input, MediaSession, NodeObject, OpenPolicy, Pacing, Result,
    Settings,
};

use super::Place;

/// A session that may open one input, and the URL under which it does.
pub(crate) async fn session_of(
    place: Place,
    pacing: Pacing,
    input: impl Into<Input>,
) -> (MediaSession, String) {
    let mut policy = OpenPolicy::new();
    let url = policy.grant(input);
    let builder = portcullis::session(place.placement())
        .pacing(pacing)
        .policy(policy);
    (builder.start().await.unwrap(), url)
}

/// A topology with a null sink behind every stream of a source, and what it refers to.
pub(crate) async fn sunk(
    session: &MediaSession,
    place: Place,
    url: &str,
) -> Result<(Topology, Vec<(ObjectId, NodeObject)>)> {
    let source = session.resolve(url, place.side()).await?;
    let (mut topology, id) = (Topology::new(), ObjectId(0));
    for stream in &source.presentation.streams {
        let from = topology.add_node(NodeKind::described(
            ObjectRef::Object(id),
            stream.id,
            source.presentation.clone(),
        ));
        let to = topology.add_node(NodeKind::output(
            ObjectRef::activation("sink.null"),
            stream.id.0,
        ));
        topology.connect(from, 0, to, 0)?;
    }
    Ok((topology, vec![(id, NodeObject::Source(source))]))
}

/// One pattern source, a transform behind it, and a null sink.
pub(crate) fn pattern(count: u64, transform: Option<ObjectRef>) -> Topology {
    let mut topology = Topology::new();
    let settings = Settings::of(&serde_json::json!({ "count": count, "size": 1000 })).unwrap();
    let source = ObjectRef::with_settings("synthetic.pattern", settings);
    let mut from = topology.add_node(NodeKind::source(source, portcullis::StreamId(0)));
    if let Some(transform) = transform {
        let through = topology.add_node(NodeKind::transform(transform));
        topology.connect(from, 0, through, 0).unwrap();
        from = through;
    }
    let to = topology.add_node(NodeKind::output(ObjectRef::activation("sink.null"), 0));
    topology.connect(from, 0, to, 0).unwrap();
    topology
}

/// All events up to the first that is wanted, with it.
pub(crate) async fn events_until(
    events: &mut EventStream,
    wanted: impl Fn(&Event) -> bool,
) -> Vec<Event> {
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        let last = wanted(&event);
        seen.push(event);
        if last {
            return seen;
        }
    }
    panic!("the events end without it: {seen:#?}");
}

pub(crate) fn is_ended(event: &Event) -> bool {
    matches!(event.kind, EventKind::SessionEnded { .. })
}

pub(crate) fn names(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| event.name().to_owned()).collect()
}
