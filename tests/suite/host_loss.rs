//! A host may die at any moment: what its application sees, and that nothing is left.

use std::fs;
use std::process::{Command, Stdio};

use futures::{StreamExt, TryStreamExt};
use portcullis::engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis::{
    EventKind, MajorType, MediaTime, NodeObject, OpenPolicy, Pacing, Settings, StreamSelector,
};

use crate::support::{Place, example, media, process, run, until};

const ISOLATED: [Place; 2] = [Place::IsolatedSourceInHost, Place::IsolatedSourceInApp];

async fn playing(place: Place) -> (portcullis::MediaSession, portcullis::EventStream) {
    let mut policy = OpenPolicy::new();
    let url = policy.grant(media::clip());
    let session = portcullis::session(place.placement())
        .policy(policy)
        .pacing(Pacing::Presentation)
        .start()
        .await
        .unwrap();
    let events = session.events();
    let source = session.resolve(&url, place.side()).await.unwrap();
    let stream = source.presentation.nth_of(MajorType::Video, 0).unwrap().id;
    let mut topology = Topology::new();
    let kind = NodeKind::described(
        ObjectRef::Object(ObjectId(0)),
        stream,
        source.presentation.clone(),
    );
    let from = topology.add_node(kind);
    let to = topology.add_node(NodeKind::output(ObjectRef::activation("sink.null"), 0));
    topology.connect(from, 0, to, 0).unwrap();
    let objects = vec![(ObjectId(0), NodeObject::Source(source))];
    session.set_topology(topology, objects).await.unwrap();
    session.start(Some(MediaTime::ZERO)).await.unwrap();
    (session, events)
}

#[test]
fn killed_host_fails_the_session_and_only_it() {
    run(async {
        for place in ISOLATED {
            let (session, mut events) = playing(place).await;
            let (other, mut other_events) = playing(place).await;
            let pid = session.host().pid();
            process::kill(pid);
            let mut last = None;
            while let Some(event) = events.next().await {
                last = Some(event);
            }
            let last = last.unwrap();
            assert_eq!(last.kind, EventKind::Error, "{place:?}");
            let error = last.status.unwrap_err();
            assert_eq!(
                error.host_exit().unwrap().signal,
                Some(9),
                "{place:?}: {error}"
            );
            assert_eq!(error.host_exit().unwrap().pid, pid);
            assert!(error.is_retryable());

            let later = session.start(None).await.unwrap_err();
            assert_eq!(
                later.host_exit().unwrap().signal,
                Some(9),
                "{place:?}: {later}"
            );
            until("the killed host is reaped", || !process::exists(pid)).await;

            // The neighbour plays to its end.
            while let Some(event) = other_events.next().await {
                assert!(event.status.is_ok(), "{place:?}: {event}");
                if matches!(event.kind, EventKind::SessionEnded { .. }) {
                    break;
                }
            }
            other.close().await.unwrap();
        }
    });
}

#[test]
fn a_reader_of_a_killed_host_gets_an_error_that_says_so() {
    run(async {
        for place in ISOLATED {
            let reader = place.open(media::clip()).open().await.unwrap();
            let mut pictures = reader.samples(StreamSelector::FIRST_VIDEO).await.unwrap();
            pictures.try_next().await.unwrap().unwrap();
            process::kill(reader.session().host().pid());
            let error = loop {
                match pictures.try_next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{place:?}: the stream ended as if it were complete"),
                    Err(error) => break error,
                }
            };
            assert_eq!(
                error.host_exit().unwrap().signal,
                Some(9),
                "{place:?}: {error}"
            );
        }
    });
}

#[test]
fn nothing_is_left_of_hosts_that_were_killed() {
    run(async {
        // What the process keeps for good is there after the first time.
        drop(playing(Place::IsolatedSourceInHost).await);
        until("the first host is gone", || process::children().is_empty()).await;
        let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
        let shared = || fs::read_dir("/dev/shm").map(Iterator::count).unwrap_or(0);
        let (before, shared_before) = (descriptors(), shared());
        for place in ISOLATED.into_iter().cycle().take(8) {
            let (session, _events) = playing(place).await;
            process::kill(session.host().pid());
        }
        until("every host is gone", || process::children().is_empty()).await;
        // Tests beside this one open and close descriptors too: it is enough that the number comes down again.
        until("descriptors are closed", || descriptors() <= before + 2).await;
        assert_eq!(shared(), shared_before, "nothing is named in shared memory");
    });
}

#[test]
fn a_host_ends_with_its_application_also_when_that_is_killed() {
    run(async {
        let mut application = Command::new(example("play_file"))
            .arg(media::clip())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = application.id();
        let mut hosts = Vec::new();
        until("the application has its host", || {
            hosts = process::children_of(pid);
            !hosts.is_empty()
        })
        .await;
        process::kill(pid);
        application.wait().unwrap();
        until("the host is gone too", || {
            hosts.iter().all(|host| !process::exists(*host))
        })
        .await;
    });
}

#[test]
fn a_component_that_ends_its_host_is_an_error_of_its_session() {
    run(async {
        for (kind, signal, code) in [
            ("abort", Some(6), None),
            ("exit", None, Some(())),
            ("stack-overflow", Some(6), None),
        ] {
            let error = faulty(Place::IsolatedSourceInHost, kind).await;
            let exit = error
                .host_exit()
                .unwrap_or_else(|| panic!("{kind}: {error}"));
            assert_eq!(exit.signal, signal, "{kind}: {error}");
            assert_eq!(exit.code.is_some(), code.is_some(), "{kind}: {error}");
        }
    });
}

#[test]
fn a_component_that_panics_is_an_error_in_every_placement() {
    run(async {
        for place in Place::ALL {
            let error = faulty(place, "panic").await;
            let kind = error.kind();
            assert!(
                matches!(kind, portcullis::ErrorKind::Panicked { .. }),
                "{place:?}: {error}"
            );
            assert!(error.place().node.is_some(), "{place:?}: {error}");
        }
    });
}

/// What a session says whose transform does this after a few samples.
async fn faulty(place: Place, kind: &str) -> portcullis::Error {
    let mut policy = OpenPolicy::new();
    let url = policy.grant(media::clip());
    let session = portcullis::session(place.placement())
        .policy(policy)
        .pacing(Pacing::Free)
        .start()
        .await
        .unwrap();
    let mut events = session.events();
    let source = session.resolve(&url, place.side()).await.unwrap();
    let stream = source.presentation.nth_of(MajorType::Audio, 0).unwrap().id;
    let settings = Settings::from_json(format!(r#"{{"kind":"{kind}","after":3}}"#));
    let mut topology = Topology::new();
    let described = NodeKind::described(
        ObjectRef::Object(ObjectId(0)),
        stream,
        source.presentation.clone(),
    );
    let from = topology.add_node(described);
    let through = topology.add_node(NodeKind::transform(ObjectRef::with_settings(
        "synthetic.fault",
        settings,
    )));
    let to = topology.add_node(NodeKind::output(ObjectRef::activation("sink.null"), 0));
    topology.connect(from, 0, through, 0).unwrap();
    topology.connect(through, 0, to, 0).unwrap();
    let objects = vec![(ObjectId(0), NodeObject::Source(source))];
    let set = session.set_topology(topology, objects).await;
    let started = match set {
        Ok(_) => session.start(None).await,
        Err(error) => Err(error),
    };
    // The host may be gone before the start is complete; then that is the error.
    let early = started.err();
    while let Some(event) = events.next().await {
        if let Err(error) = event.status {
            return error;
        }
    }
    early.unwrap_or_else(|| panic!("{kind}: no error"))
}
