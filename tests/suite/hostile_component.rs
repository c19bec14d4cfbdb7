//! A component that turns against everybody during a real decode: what its session says, and that nobody else notices.
//!
//! The component is in the host program `examples/traitor_host.rs`, behind the decoder of a clip's sound.

use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt};
use portcullis::engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis::host::{Host, HostQuotas};
use portcullis::{
    ContentLimits, Error, ErrorKind, EventKind, EventStream, MajorType, MediaSession, MediaTime,
    NodeObject, OpenPolicy, Pacing, SampleStream, Settings, SourceReader, StreamSelector,
};

use crate::support::{Place, example, media, process, run_for, until};

/// Where a host can be traitor; what it does is the same in each.
const IN_HOST: [Place; 3] = [
    Place::IsolatedSourceInHost,
    Place::IsolatedSourceInApp,
    Place::Protected,
];

/// How long all the deeds of a test may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(180);

/// How long one may go without an error of its session.
const NOTICED: Duration = Duration::from_secs(30);

/// Hundredths of a second of processor time by which a host is known to spin: far more than it takes to start.
const SPINNING_TICKS: u64 = 60;

fn traitor() -> Host {
    Host::program(example("traitor_host"))
}

/// A session that decodes a clip's sound, with the traitor behind the decoder.
async fn prepared(
    place: Place,
    host: Host,
    limits: ContentLimits,
    deed: &str,
) -> (MediaSession, EventStream) {
    let mut policy = OpenPolicy::new();
    let url = policy.grant(media::clip());
    let session = portcullis::session(place.placement_in(host))
        .policy(policy)
        .limits(limits)
        .pacing(Pacing::Free)
        .start()
        .await
        .unwrap();
    let events = session.events();
    let source = session.resolve(&url, place.side()).await.unwrap();
    let stream = source.presentation.nth_of(MajorType::Audio, 0).unwrap().id;
    let mut topology = Topology::new();
    let described = NodeKind::described(
        ObjectRef::Object(ObjectId(0)),
        stream,
        source.presentation.clone(),
    );
    let settings = Settings::of(&serde_json::json!({ "deed": deed, "after": 3 })).unwrap();
    let from = topology.add_node(described);
    let through = topology.add_node(NodeKind::transform(ObjectRef::with_settings(
        "example.traitor",
        settings,
    )));
    let to = topology.add_node(NodeKind::output(ObjectRef::activation("sink.null"), 0));
    topology.connect(from, 0, through, 0).unwrap();
    topology.connect(through, 0, to, 0).unwrap();
    let objects = vec![(ObjectId(0), NodeObject::Source(source))];
    session.set_topology(topology, objects).await.unwrap();
    (session, events)
}

/// The first error of the session.
async fn error_of(place: Place, host: Host, limits: ContentLimits, deed: &str) -> Error {
    let outcome = outcome_of(place, host, limits, deed).await;
    outcome.unwrap_or_else(|| panic!("{deed} in {place:?}: the session ends well"))
}

/// The first error of the session, if it does not end well.
async fn outcome_of(place: Place, host: Host, limits: ContentLimits, deed: &str) -> Option<Error> {
    let (session, mut events) = prepared(place, host, limits, deed).await;
    let first = async {
        while let Some(event) = events.next().await {
            if let Err(error) = event.status {
                return Some(error);
            }
            if matches!(event.kind, EventKind::SessionEnded { .. }) {
                return None;
            }
        }
        None
    };
    // A start is complete when samples flow: with some components never.
    let both = futures::future::join(first, session.start(Some(MediaTime::ZERO)));
    let found = tokio::time::timeout(NOTICED, both).await;
    let (first, _started) = found.unwrap_or_else(|_| panic!("{deed} in {place:?}: no end in time"));
    first
}

/// A reader of another host, which must not notice anything.
struct Bystander {
    _reader: SourceReader,
    pictures: SampleStream,
    seen: usize,
}

impl Bystander {
    async fn start() -> Self {
        let reader = Place::IsolatedSourceInHost
            .open(media::clip())
            .open()
            .await
            .unwrap();
        let pictures = reader.samples(StreamSelector::FIRST_VIDEO).await.unwrap();
        Self {
            _reader: reader,
            pictures,
            seen: 0,
        }
    }

    async fn looks(&mut self) {
        if self.pictures.try_next().await.unwrap().is_some() {
            self.seen += 1;
        }
    }

    async fn ends_well(mut self) {
        while self.pictures.try_next().await.unwrap().is_some() {
            self.seen += 1;
        }
        assert_eq!(self.seen, 90);
    }
}

#[test]
fn a_traitor_that_makes_a_forbidden_call_is_named_with_it() {
    run_for(DEADLINE, async {
        let mut bystander = Bystander::start().await;
        for (deed, call) in [
            ("tcp", "socket"),
            ("udp", "socket"),
            ("unix", "socket"),
            ("execute", "execve"),
            ("signal", "kill"),
            ("dumpable", "prctl"),
            ("chroot", "chroot"),
        ] {
            for place in IN_HOST {
                let error = error_of(place, traitor(), ContentLimits::default(), deed).await;
                let exit = error.host_exit();
                let exit = exit.unwrap_or_else(|| panic!("{deed} in {place:?}: {error}"));
                let blocked = exit.blocked.as_deref();
                let blocked = blocked.unwrap_or_else(|| panic!("{deed} in {place:?}: {error}"));
                let named = format!("system call {call}");
                assert!(blocked.starts_with(&named), "{deed} in {place:?}: {error}");
                assert!(error.to_string().contains(blocked), "{error}");
                bystander.looks().await;
            }
        }
        bystander.ends_well().await;
    });
}

#[test]
fn a_traitor_that_opens_files_is_refused_as_anybody_and_plays_on() {
    run_for(DEADLINE, async {
        for deed in ["file", "create", "start"] {
            for place in IN_HOST {
                let error = error_of(place, traitor(), ContentLimits::default(), deed).await;
                assert!(
                    matches!(error.kind(), ErrorKind::Undecodable { .. }),
                    "{deed} in {place:?}: {error}"
                );
                let text = error.to_string();
                let refused = [
                    "refused: Permission denied",
                    "refused: Operation not permitted",
                ];
                assert!(refused.iter().any(|by| text.contains(by)), "{text}");
            }
        }
    });
}

#[test]
fn a_component_that_misbehaves_is_an_error_of_its_session_that_says_how() {
    run_for(DEADLINE, async {
        let mut bystander = Bystander::start().await;
        let default = HostQuotas::default();
        let little = HostQuotas {
            memory: 256 << 20,
            ..default
        };
        let a_second_of_work = HostQuotas {
            cpu_time: Some(Duration::from_secs(1)),
            ..default
        };
        let some_seconds = HostQuotas {
            wall_time: Some(Duration::from_secs(2)),
            ..default
        };
        for (deed, quotas, says) in [
            ("abort", default, "was ended by signal 6"),
            ("exit", default, "exited with code 0"),
            ("overflow", default, "stack overflow"),
            (
                "spin",
                a_second_of_work,
                "beyond its quota of processor time",
            ),
            ("sleep", some_seconds, "beyond its quota of wall time"),
            ("hoard", little, "beyond its quota of memory"),
            ("flood", little, "beyond its quota of memory"),
        ] {
            let tried = IN_HOST.map(async |place| {
                let host = traitor().quotas(quotas);
                let error = error_of(place, host, ContentLimits::default(), deed).await;
                let text = error.to_string();
                assert!(error.host_exit().is_some(), "{deed} in {place:?}: {text}");
                assert!(text.contains(says), "{deed} in {place:?}: {text}");
            });
            futures::future::join_all(tried).await;
            bystander.looks().await;
        }
        bystander.ends_well().await;
    });
}

#[test]
fn a_component_that_lies_is_an_error_of_its_session_and_its_host_goes_on() {
    let limits = ContentLimits {
        max_samples: 1000,
        ..ContentLimits::default()
    };
    run_for(DEADLINE, async {
        for place in IN_HOST {
            let error = error_of(place, traitor(), limits, "panic").await;
            assert!(
                matches!(error.kind(), ErrorKind::Panicked { .. }),
                "{place:?}: {error}"
            );
            for deed in ["multiply", "eternity", "giant"] {
                let error = error_of(place, traitor(), limits, deed).await;
                assert!(
                    matches!(error.kind(), ErrorKind::LimitExceeded { .. }),
                    "{deed} in {place:?}: {error}"
                );
                assert!(error.place().node.is_some(), "{deed} in {place:?}: {error}");
            }
            // Bytes that are no whole values are what they are.
            let outcome = outcome_of(place, traitor(), limits, "odd").await;
            assert!(outcome.is_none(), "{place:?}: {outcome:?}");
        }
    });
}

#[test]
fn a_component_that_ignores_a_cancel_keeps_nobody() {
    run_for(DEADLINE, async {
        for place in IN_HOST {
            let (session, _events) =
                prepared(place, traitor(), ContentLimits::default(), "spin").await;
            let pid = session.host().pid();
            let mut starting = Box::pin(session.start(Some(MediaTime::ZERO)));
            until("it computes for nothing", || {
                // The start is complete when samples flow, which they never do.
                let started = starting.as_mut().now_or_never();
                assert!(started.is_none(), "{place:?}: {started:?}");
                process::cpu_ticks(pid) > SPINNING_TICKS
            })
            .await;
            drop(starting);
            let ends = async {
                session.stop().await.unwrap();
                session.close().await.unwrap();
                session.shutdown().await.unwrap();
            };
            let ended = tokio::time::timeout(NOTICED, ends).await;
            ended.unwrap_or_else(|_| panic!("{place:?}: the session waits for its component"));
            drop(session);
            until("the host is gone though a thread of it spins", || {
                !process::exists(pid)
            })
            .await;
        }
    });
}
