//! Sessions: the same trace in every placement, and what commands do.

mod commands;
mod load;

use futures::StreamExt;
use portcullis::engine::event::normalise;
use portcullis::engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis::{
    ErrorKind, Event, EventKind, EventStream, MediaSession, MediaTime, NodeObject, OpenPolicy,
    Pacing, Settings,
};

use crate::support::{Place, media, run};

/// A session in a placement with its events, and a clip of it set as the topology: every stream into a counting sink.
async fn with_clip(place: Place, clip: &str, pacing: Pacing) -> (MediaSession, EventStream) {
    let mut policy = OpenPolicy::new();
    let url = policy.grant(clip);
    let session = portcullis::session(place.placement())
        .policy(policy)
        .pacing(pacing)
        .start()
        .await
        .unwrap();
    let events = session.events();
    let source = session.resolve(&url, place.side()).await.unwrap();
    let mut topology = Topology::new();
    for stream in &source.presentation.streams {
        let kind = NodeKind::described(
            ObjectRef::Object(ObjectId(0)),
            stream.id,
            source.presentation.clone(),
        );
        let from = topology.add_node(kind);
        let sink = ObjectRef::with_settings("sink.null", Settings::default());
        let to = topology.add_node(NodeKind::output(sink, stream.id.0));
        topology.connect(from, 0, to, 0).unwrap();
    }
    let objects = vec![(ObjectId(0), NodeObject::Source(source))];
    session.set_topology(topology, objects).await.unwrap();
    (session, events)
}

/// The events up to the last one that is of interest.
async fn until(events: &mut EventStream, last: impl Fn(&EventKind) -> bool) -> Vec<Event> {
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        let is_last = last(&event.kind);
        seen.push(event);
        if is_last {
            break;
        }
    }
    seen
}

fn ended(kind: &EventKind) -> bool {
    matches!(kind, EventKind::SessionEnded { .. })
}

fn clip() -> String {
    media::clip().display().to_string()
}

#[test]
fn the_trace_of_a_file_is_the_same_in_every_placement() {
    run(async {
        let mut traces = Vec::new();
        for place in Place::ALL {
            let (session, mut events) = with_clip(place, &clip(), Pacing::Free).await;
            session.start(None).await.unwrap();
            let mut trace = until(&mut events, ended).await;
            session.close().await.unwrap();
            trace.extend(until(&mut events, |kind| *kind == EventKind::SessionClosed).await);
            let pid = session.host().pid();
            assert_eq!(pid != std::process::id(), place.is_in_host());
            assert!(trace.iter().all(|event| event.pid == Some(pid)));
            assert!(trace.iter().all(|event| event.status.is_ok()), "{trace:?}");
            traces.push(normalise(&trace));
        }
        assert_eq!(traces[0], traces[1]);
        assert_eq!(traces[0], traces[2]);
        let names: Vec<_> = traces[0].iter().map(Event::name).collect();
        let order = [
            "SessionTopologySet",
            "SessionStarted",
            "EndOfPresentation",
            "SessionEnded",
            "SessionClosed",
        ];
        let mut at = 0;
        for name in order {
            at += names[at..]
                .iter()
                .position(|n| *n == name)
                .unwrap_or_else(|| panic!("{name} in {names:?}"));
        }
    });
}

#[test]
fn a_session_counts_every_sample_and_plays_again() {
    run(async {
        for place in Place::ALL {
            let (session, mut events) = with_clip(place, &clip(), Pacing::Free).await;
            for round in 1..=2 {
                session.start(None).await.unwrap();
                until(&mut events, ended).await;
                let counts = session.statistics().await.unwrap();
                let pictures = counts
                    .iter()
                    .map(|output| output.counts.samples)
                    .min()
                    .unwrap();
                assert_eq!(pictures % 90, 0, "{place:?} round {round}: {counts:?}");
            }
        }
    });
}

#[test]
fn seek_pause_and_stop_complete_in_every_placement() {
    run(async {
        for place in Place::ALL {
            let (session, mut events) = with_clip(place, &clip(), Pacing::Presentation).await;
            session.start(None).await.unwrap();
            session.start(Some(MediaTime::from_secs(1))).await.unwrap();
            let now = portcullis::system_time::now();
            let position = session.clock().await.unwrap().time_at(now);
            assert!(position >= MediaTime::from_secs(1), "{place:?}: {position}");

            let beyond = session
                .start(Some(MediaTime::from_secs(100)))
                .await
                .unwrap_err();
            assert!(
                matches!(beyond.kind(), ErrorKind::InvalidPosition { .. }),
                "{place:?}: {beyond}"
            );

            session.pause().await.unwrap();
            let again = session.pause().await.unwrap_err();
            assert!(
                matches!(again.kind(), ErrorKind::InvalidRequest(_)),
                "{place:?}: {again}"
            );
            session.start(None).await.unwrap();
            session.stop().await.unwrap();
            let stopped = session.pause().await.unwrap_err();
            assert_eq!(stopped.kind(), &ErrorKind::PauseWhileStopped, "{place:?}");
            session.close().await.unwrap();
            let closed = session.start(None).await.unwrap_err();
            assert!(
                matches!(closed.kind(), ErrorKind::InvalidRequest(_)),
                "{place:?}: {closed}"
            );
            let seen = until(&mut events, |kind| *kind == EventKind::SessionClosed).await;
            let completed = |name: &str| seen.iter().filter(|e| e.name() == name).count();
            assert_eq!(completed("SessionStarted"), 4, "{place:?}");
            assert_eq!(completed("SessionPaused"), 3, "{place:?}");
        }
    });
}

#[test]
fn a_paced_session_keeps_time() {
    run(async {
        let (session, mut events) =
            with_clip(Place::IsolatedSourceInHost, &clip(), Pacing::Presentation).await;
        let before = portcullis::system_time::now();
        session
            .start(Some(MediaTime::from_millis(2500)))
            .await
            .unwrap();
        until(&mut events, ended).await;
        // Half a second of the clip is left: rendering it cannot take less.
        let took = portcullis::system_time::now() - before;
        assert!(took >= MediaTime::from_millis(400), "{took}");
    });
}

#[test]
fn after_shutdown_everything_is_refused_at_once() {
    run(async {
        for place in Place::ALL {
            let (session, _events) = with_clip(place, &clip(), Pacing::Free).await;
            session.shutdown().await.unwrap();
            for refused in [
                session.start(None).await,
                session.pause().await,
                session.clear_topologies().await,
                session.shutdown().await,
                session.clock().await.map(drop),
            ] {
                assert!(
                    matches!(refused.unwrap_err().kind(), ErrorKind::Shutdown { .. }),
                    "{place:?}"
                );
            }
        }
    });
}

#[test]
fn a_node_that_asks_for_another_placement_is_refused() {
    use portcullis::engine::topology::Placement;
    run(async {
        for (place, other) in [
            (Place::InProcess, Placement::Isolated),
            (Place::IsolatedSourceInHost, Placement::InProcess),
        ] {
            let (session, _events) = with_clip(place, &clip(), Pacing::Free).await;
            let mut topology = session.full_topology().await.unwrap();
            let node = topology.nodes()[0].id;
            topology.node_mut(node).unwrap().placement = Some(other);
            let error = session
                .set_topology(topology, Vec::new())
                .await
                .unwrap_err();
            assert_eq!(
                error.kind(),
                &ErrorKind::NodePlacementUnsupported,
                "{place:?}: {error}"
            );
        }
    });
}
