//! The same commands give the same events wherever a session runs, and leave it in the same state.

use futures::StreamExt;
use portcullis::engine::event::normalise;
use portcullis::engine::topology::ObjectRef;
use portcullis::{
    ErrorKind, Event, EventKind, MediaSession, MediaTime, Pacing, TopologyStatus, system_time,
};

use crate::support::session::{events_until, is_ended, names, pattern, session_of, sunk};
use crate::support::{Place, media, run};

/// A session of the clip that is ready to start.
async fn ready(place: Place, pacing: Pacing) -> MediaSession {
    let (session, url) = session_of(place, pacing, media::clip()).await;
    let (topology, objects) = sunk(&session, place, &url).await.unwrap();
    session.set_topology(topology, objects).await.unwrap();
    session
}

/// What a session of these steps says, without what may differ.
async fn trace<F: Future<Output = ()>>(
    place: Place,
    pacing: Pacing,
    input: &std::path::Path,
    steps: impl FnOnce(MediaSession) -> F,
) -> Vec<Event> {
    let (session, url) = session_of(place, pacing, input).await;
    let events = session.events();
    let (topology, objects) = sunk(&session, place, &url).await.unwrap();
    session.set_topology(topology, objects).await.unwrap();
    steps(session.clone()).await;
    session.close().await.unwrap();
    let mut events = events;
    let seen = events_until(&mut events, |event| event.kind == EventKind::SessionClosed).await;
    normalise(&seen)
}

/// Events whose number depends on how fast a machine is: none. What a rendering is late by is left out by `normalise`.
fn assert_same(traces: &[(Place, Vec<Event>)]) {
    let (_, first) = &traces[0];
    assert!(first.len() > 5);
    for (place, trace) in &traces[1..] {
        if trace != first {
            let at = trace.iter().zip(first).position(|(a, b)| a != b);
            panic!(
                "{place:?} differs from event {at:?} on:\n{:#?}\n{:#?}",
                names(trace),
                names(first)
            );
        }
    }
}

#[test]
fn playing_to_the_end_gives_the_same_events_in_every_placement() {
    run(async {
        for file in clips() {
            let mut traces = Vec::new();
            for place in Place::ALL {
                let steps = |session: MediaSession| async move {
                    let mut events = session.events();
                    session.start(None).await.unwrap();
                    events_until(&mut events, is_ended).await;
                };
                traces.push((place, trace(place, Pacing::Free, &file, steps).await));
            }
            assert_same(&traces);
        }
    });
}

/// The fixed list of clips whose traces are compared.
fn clips() -> Vec<std::path::PathBuf> {
    let corpus = media::small();
    [
        "mp4/tiny_prog.mp4",
        "mp4/tiny_frag.mp4",
        "mkv/tiny.mkv",
        "audio/opus.opus",
        "audio/wav_s16.wav",
    ]
    .iter()
    .map(|file| corpus.join(file))
    .chain([media::clip()])
    .collect()
}

#[test]
fn commands_give_the_same_events_in_every_placement() {
    run(async {
        let mut traces = Vec::new();
        for place in Place::ALL {
            let steps = |session: MediaSession| async move {
                session.start(None).await.unwrap();
                session.pause().await.unwrap();
                assert_eq!(
                    session.pause().await.expect_err("twice").kind(),
                    session.pause().await.expect_err("twice").kind()
                );
                session.start(Some(MediaTime::from_secs(1))).await.unwrap();
                session.start(Some(MediaTime::from_secs(2))).await.unwrap();
                session.stop().await.unwrap();
                session.stop().await.unwrap();
                let refused = session.pause().await.expect_err("stopped");
                assert_eq!(refused.kind(), &ErrorKind::PauseWhileStopped);
                let refused = session
                    .start(Some(MediaTime::from_secs(1000)))
                    .await
                    .expect_err("beyond the end");
                assert!(
                    matches!(refused.kind(), ErrorKind::InvalidPosition { .. }),
                    "{refused}"
                );
            };
            let mut trace = trace(place, Pacing::Presentation, &media::clip(), steps).await;
            // Whether the source has read to its end when it is stopped is chance.
            trace.retain(|event| {
                !matches!(
                    event.kind,
                    EventKind::EndOfStream | EventKind::EndOfPresentation
                )
            });
            let sources = trace.iter_mut().filter_map(|event| event.source.as_mut());
            sources.for_each(|source| source.sequence = 0);
            traces.push((place, trace));
        }
        assert_same(&traces);
    });
}

#[test]
fn an_ended_session_starts_again_and_ends_the_same_way() {
    run(async {
        for place in Place::ALL {
            let session = ready(place, Pacing::Free).await;
            let mut events = session.events();
            let mut rounds = Vec::new();
            for _ in 0..2 {
                session.start(None).await.unwrap();
                let seen = events_until(&mut events, is_ended).await;
                let count = |wanted: fn(&EventKind) -> bool| {
                    seen.iter()
                        .filter(|event| event.source.is_none() && wanted(&event.kind))
                        .count()
                };
                assert_eq!(
                    count(|kind| *kind == EventKind::EndOfPresentation),
                    1,
                    "{place:?}"
                );
                assert_eq!(
                    count(|kind| matches!(kind, EventKind::SessionStopped { .. })),
                    0,
                    "{place:?}"
                );
                let ended = seen.iter().any(|event| {
                    matches!(
                        event.kind,
                        EventKind::SessionTopologyStatus {
                            topology_status: TopologyStatus::Ended,
                            ..
                        }
                    )
                });
                assert!(ended, "{place:?}");
                rounds.push(
                    session
                        .statistics()
                        .await
                        .unwrap()
                        .iter()
                        .map(|output| output.counts.samples)
                        .collect::<Vec<_>>(),
                );
            }
            assert_eq!(rounds[0][0], 90, "{place:?}: {rounds:?}");
            // Counts go on.
            assert_eq!(rounds[1][0], 180, "{place:?}: {rounds:?}");
        }
    });
}

#[test]
fn the_clock_is_where_the_start_says_and_runs() {
    run(async {
        for place in Place::ALL {
            let session = ready(place, Pacing::Presentation).await;
            session.start(None).await.unwrap();
            session.pause().await.unwrap();
            let paused = session.clock().await.unwrap();
            assert!(!paused.is_running());
            session.start(Some(MediaTime::from_secs(1))).await.unwrap();
            let clock = session.clock().await.unwrap();
            assert!(clock.is_running());
            let time = clock.time_at(system_time::now());
            assert!(
                time >= MediaTime::from_secs(1) && time < MediaTime::from_secs(3),
                "{place:?}: {time}"
            );
            // What the presentation's time is does not depend on who asks when: it grows with the system's.
            let later = portcullis::engine::clock::SystemTime100ns::from_ticks(
                system_time::now().ticks() + 1_000_000,
            );
            assert!(clock.time_at(later) > time, "{place:?}");
        }
    });
}

#[test]
fn a_closed_session_refuses_commands_and_a_shut_down_one_answers_nothing() {
    run(async {
        for place in Place::ALL {
            let session = ready(place, Pacing::Free).await;
            let mut events = session.events();
            session.start(None).await.unwrap();
            session.close().await.unwrap();
            let refused = session.start(None).await.expect_err("closed");
            assert!(
                matches!(refused.kind(), ErrorKind::InvalidRequest(_)),
                "{place:?}: {refused}"
            );
            events_until(&mut events, |event| event.kind == EventKind::SessionClosed).await;
            session.shutdown().await.unwrap();
            let refused = session.shutdown().await.expect_err("twice");
            assert!(
                matches!(refused.kind(), ErrorKind::Shutdown { .. }),
                "{place:?}: {refused}"
            );
            let refused = session.clock().await.expect_err("shut down");
            assert!(
                matches!(refused.kind(), ErrorKind::Shutdown { .. }),
                "{place:?}: {refused}"
            );
        }
    });
}

#[test]
fn a_fresh_session_refuses_to_start_and_is_usable_afterwards() {
    run(async {
        for place in Place::ALL {
            let (session, url) = session_of(place, Pacing::Free, media::clip()).await;
            let mut events = session.events();
            let refused = session.start(None).await.expect_err("no topology");
            assert!(
                matches!(refused.kind(), ErrorKind::InvalidRequest(_)),
                "{place:?}: {refused}"
            );
            session.clear_topologies().await.unwrap();
            session.clear_topologies().await.unwrap();
            let (topology, objects) = sunk(&session, place, &url).await.unwrap();
            session.set_topology(topology, objects).await.unwrap();
            session.start(None).await.unwrap();
            let seen = events_until(&mut events, is_ended).await;
            let cleared = seen
                .iter()
                .filter(|event| event.kind == EventKind::SessionTopologiesCleared)
                .count();
            assert_eq!(cleared, 2, "{place:?}");
        }
    });
}

#[test]
fn events_of_a_host_carry_its_process_id() {
    run(async {
        for place in Place::ALL {
            let session = ready(place, Pacing::Free).await;
            let events = session.events();
            session.start(None).await.unwrap();
            session.shutdown().await.unwrap();
            let own = std::process::id();
            let seen: Vec<Event> = events.collect().await;
            assert!(!seen.is_empty());
            for event in seen {
                assert_eq!(
                    event.pid == Some(own),
                    !place.is_in_host(),
                    "{place:?}: {event:?}"
                );
                assert_eq!(
                    event.pid,
                    Some(session.host().pid()),
                    "{place:?}: {event:?}"
                );
            }
        }
    });
}

#[test]
fn topologies_that_are_refused_say_why_and_leave_the_session_usable() {
    run(async {
        for place in Place::ALL {
            let (session, _) = session_of(place, Pacing::Free, media::clip()).await;
            let unknown = portcullis::engine::topology::ObjectRef::activation("no.such.class");
            let refused = session
                .set_topology(pattern(10, Some(unknown)), Vec::new())
                .await
                .expect_err("unknown class");
            assert!(
                matches!(
                    refused.kind(),
                    ErrorKind::ClassNotInHost { .. } | ErrorKind::ClassNotFound { .. }
                ),
                "{place:?}: {refused}"
            );
            assert!(refused.to_string().contains("no.such.class"), "{refused}");
            let empty = session
                .set_topology(portcullis::Topology::new(), Vec::new())
                .await
                .expect_err("empty");
            assert!(
                matches!(empty.kind(), ErrorKind::Topology(_)),
                "{place:?}: {empty}"
            );
            let mut events = session.events();
            session
                .set_topology(pattern(10, None), Vec::new())
                .await
                .unwrap();
            session.start(None).await.unwrap();
            events_until(&mut events, is_ended).await;
            assert_eq!(
                session.statistics().await.unwrap()[0].counts.samples,
                10,
                "{place:?}"
            );
        }
    });
}

#[test]
fn the_same_topology_plays_again_and_again() {
    run(async {
        for place in Place::ALL {
            let (session, url) = session_of(place, Pacing::Free, media::clip()).await;
            let (topology, objects) = sunk(&session, place, &url).await.unwrap();
            let mut events = session.events();
            for _ in 0..3 {
                let (topology, objects) = (topology.clone(), objects.clone());
                session.set_topology(topology, objects).await.unwrap();
                session.start(Some(MediaTime::ZERO)).await.unwrap();
                events_until(&mut events, is_ended).await;
                let counts = session.statistics().await.unwrap();
                assert_eq!(counts[0].counts.samples, 90, "{place:?}");
            }
            // While it plays.
            session.start(None).await.unwrap();
            session.set_topology(topology, objects).await.unwrap();
            session.stop().await.unwrap();
        }
    });
}

#[test]
fn a_stop_after_a_transforms_panic_succeeds() {
    run(async {
        for place in Place::ALL {
            let settings = serde_json::json!({ "kind": "panic", "after": 3 });
            let settings = portcullis::Settings::of(&settings).unwrap();
            let fault = ObjectRef::with_settings("synthetic.fault", settings);
            let (session, _) = session_of(place, Pacing::Presentation, media::clip()).await;
            let mut events = session.events();
            let topology = pattern(1000, Some(fault));
            session.set_topology(topology, Vec::new()).await.unwrap();
            session.start(None).await.unwrap();
            events_until(&mut events, |event| event.kind == EventKind::Error).await;
            session.stop().await.unwrap();
            session.close().await.unwrap();
        }
    });
}
