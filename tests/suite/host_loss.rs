//! A host may die at any moment: what its application sees, and that nothing is left.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use portcullis::engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis::pipeline::resolver::ResolveUrl;
use portcullis::{
    ErrorKind, EventKind, Input, MajorType, MediaTime, NodeObject, OpenPolicy, Pacing, Settings,
    StreamSelector,
};

use crate::support::session::pattern;
use crate::support::{Place, example, host, media, process, run, until};

/// How long a lost host may go unnoticed.
const NOTICED: Duration = Duration::from_secs(1);

const IN_HOST: [Place; 3] = [
    Place::IsolatedSourceInHost,
    Place::IsolatedSourceInApp,
    Place::Protected,
];

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
        for place in IN_HOST {
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
        for place in IN_HOST {
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

#[test]
fn a_component_that_never_returns_stalls_only_its_session() {
    run(async {
        let host = host().start().await.unwrap();
        let pid = host.pid();
        let session = portcullis::session(Place::InProcess.placement())
            .host(host.clone())
            .pacing(Pacing::Free)
            .start()
            .await
            .unwrap();
        let settings = Settings::of(&serde_json::json!({ "kind": "spin", "after": 0 })).unwrap();
        let spin = ObjectRef::with_settings("synthetic.fault", settings);
        session
            .set_topology(pattern(1000, Some(spin)), Vec::new())
            .await
            .unwrap();
        drop(session.start(None));
        // Another session of the same host works.
        let reader = Place::IsolatedSourceInHost
            .open(media::clip())
            .host(host.clone())
            .open()
            .await
            .unwrap();
        let samples = reader.samples(StreamSelector::FIRST_VIDEO).await.unwrap();
        assert_eq!(samples.count().await, 90);
        drop((reader, session, host));
        until("the host is gone though a thread of it spins", || {
            !process::exists(pid)
        })
        .await;
    });
}

#[test]
fn a_killed_host_is_noticed_within_a_second_and_fails_every_pending_call() {
    run(async {
        let mut policy = OpenPolicy::new();
        let url = policy.grant(Input::stream(futures::stream::pending()));
        let builder = portcullis::session(Place::IsolatedSourceInHost.placement());
        let session = builder.policy(policy).start().await.unwrap();
        let mut events = session.events();
        let resolver = session.create_resolver().await.unwrap();
        let calls: Vec<_> = (0..5)
            .map(|_| {
                resolver.send(ResolveUrl {
                    url: url.clone(),
                    opener: session.opener().clone(),
                    limits: session.limits(),
                })
            })
            .collect();
        // A call is answered behind the requests before it.
        session.create_resolver().await.unwrap();
        let pid = session.host().pid();
        process::kill(pid);
        let noticed = tokio::time::timeout(NOTICED, events.next()).await;
        let event = noticed.expect("within a second").unwrap();
        assert_eq!(event.kind, EventKind::Error);
        assert!(event.to_string().contains("signal 9"), "{event}");
        for outcome in futures::future::join_all(calls).await {
            // One of them may have been refused before: the input can be opened once.
            let error = outcome.expect_err("the input never gives anything");
            let refused = matches!(error.kind(), ErrorKind::OpenRefused { .. });
            let signal = error.host_exit().and_then(|exit| exit.signal);
            assert!(refused || signal == Some(9), "{error:?}");
        }
        until("no zombie is left", || !process::exists(pid)).await;
    });
}

/// What a program holds: open descriptors, and what lies in shared memory by name.
fn held(pid: u32) -> (usize, usize) {
    let count = |folder: &str| fs::read_dir(folder).map_or(0, |entries| entries.count());
    (count(&format!("/proc/{pid}/fd")), count("/dev/shm"))
}

/// A program of its own, so that its descriptors are its own.
#[test]
fn many_hosts_that_are_killed_leave_no_descriptor_no_memory_and_no_process() {
    run(async {
        let mut program = tokio::process::Command::new(example("lose_hosts"))
            .arg(env!("CARGO_BIN_EXE_portcullis-host"))
            .arg(media::clip())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = program.id().unwrap();
        let mut input = program.stdin.take().unwrap();
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(
            program.stdout.take().unwrap(),
        ));
        let mut round = async || {
            tokio::io::AsyncWriteExt::write_all(&mut input, b"go\n")
                .await
                .unwrap();
            let line = lines.next_line().await.unwrap().unwrap();
            assert!(line.contains("signal 9"), "{line}");
        };
        // The first rounds start what stays: the launcher, the runtime.
        for _ in 0..3 {
            round().await;
        }
        let shared = held(pid).1;
        until("the first hosts are gone", || {
            process::children_of(pid).is_empty()
        })
        .await;
        let before = held(pid).0;
        for _ in 0..10 {
            round().await;
        }
        until("all hosts are gone", || {
            process::children_of(pid).is_empty()
        })
        .await;
        until("their descriptors are closed", || held(pid).0 <= before).await;
        assert_eq!(held(pid).1, shared, "nothing has a name in shared memory");
    });
}
