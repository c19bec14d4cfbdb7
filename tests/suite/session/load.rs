//! Very many samples over the wall, as fast as they go, in both directions: none is lost, repeated, moved or damaged, and
//! nothing comes to a halt.
//!
//! `PORTCULLIS_SAMPLES` is how many there are of each size.

use std::time::{Duration, Instant};

use portcullis::codecs::synthetic::{PatternCheckSettings, PatternSettings, Touch};
use portcullis::engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis::host::{CreateObject, CreatedObject, HostConnection, LinkLimits};
use portcullis::pipeline::sink::ReadAhead;
use portcullis::{ContentLimits, MediaTime, NodeObject, Pacing, Placement, Settings, StreamId};

use crate::support::session::{events_until, is_ended};
use crate::support::{host, run_for};

/// A million pictures are more than the usual limits allow.
fn limits() -> ContentLimits {
    ContentLimits {
        max_samples: u64::MAX,
        max_output_bytes: u64::MAX,
        max_duration: MediaTime::MAX,
        ..ContentLimits::default()
    }
}

/// On which side the samples are made; they are taken on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    InHost,
    InApplication,
}

/// Samples of this size, this many of them.
#[derive(Clone, Copy, Debug)]
struct Load {
    size: u32,
    count: u64,
    /// Every byte is written and looked at.
    whole: bool,
    /// One call of each kind on its way over the link and to each object, one sample for each pull.
    one_by_one: bool,
}

impl Load {
    async fn play(self, source: Source) {
        let windows = match self.one_by_one {
            true => LinkLimits {
                call_window: 1,
                object_window: 1,
                ..LinkLimits::default()
            },
            false => LinkLimits::default(),
        };
        let mut builder = portcullis::session(Placement::Isolated(host().link_limits(windows)))
            .pacing(Pacing::Free)
            .limits(limits());
        if self.one_by_one {
            builder = builder.read_ahead(ReadAhead {
                batch: 1,
                ..ReadAhead::default()
            });
        }
        let session = builder.start().await.unwrap();
        let there = session.host().clone();
        let here = there
            .application_side(portcullis::registry())
            .await
            .unwrap();
        let (making, taking) = match source {
            Source::InHost => (&there, &here),
            Source::InApplication => (&here, &there),
        };
        let settings = PatternSettings {
            size: self.size,
            count: self.count,
            touch: if self.whole {
                Touch::All
            } else {
                Touch::Header
            },
            ..PatternSettings::default()
        };
        let created = create(making, "synthetic.pattern", Settings::of(&settings)).await;
        let CreatedObject::Source(pattern) = created else {
            panic!("not a source");
        };
        let settings = PatternCheckSettings {
            size: self.size,
            count: self.count,
            whole: self.whole,
        };
        let created = create(taking, "synthetic.check", Settings::of(&settings)).await;
        let CreatedObject::Sink(check) = created else {
            panic!("not a sink");
        };
        // The session is in the host: whatever is here is remote to it.
        assert_eq!(pattern.control.is_remote(), source == Source::InHost);
        assert_eq!(check.control.is_remote(), source == Source::InApplication);
        let mut topology = Topology::new();
        let from = topology.add_node(NodeKind::described(
            ObjectRef::Object(ObjectId(0)),
            StreamId(0),
            pattern.presentation.clone(),
        ));
        let to = topology.add_node(NodeKind::output(ObjectRef::Object(ObjectId(1)), 0));
        topology.connect(from, 0, to, 0).unwrap();
        let objects = vec![
            (ObjectId(0), NodeObject::Source(pattern)),
            (ObjectId(1), NodeObject::Sink(check)),
        ];
        let mut events = session.events();
        session.set_topology(topology, objects).await.unwrap();

        let start = Instant::now();
        session.start(None).await.unwrap();
        let seen = events_until(&mut events, is_ended).await;
        let took = start.elapsed();
        // The sink has failed if any was not the next one.
        for event in &seen {
            assert!(event.status.is_ok(), "{self:?} {source:?}: {event:?}");
        }
        let counts = session.statistics().await.unwrap();
        let arrived: u64 = counts.iter().map(|output| output.counts.samples).sum();
        assert_eq!(arrived, self.count, "{self:?} {source:?}");
        println!(
            "{self:?}, source {source:?}: {took:.1?}, {:.0} samples a second",
            arrived as f64 / took.as_secs_f64()
        );
        session.shutdown().await.unwrap();
    }
}

async fn create(
    side: &HostConnection,
    class: &str,
    settings: portcullis::Result<Settings>,
) -> CreatedObject {
    let request = CreateObject {
        class: class.to_owned(),
        settings: settings.unwrap(),
        opener: None,
        limits: limits(),
    };
    side.pmp_host().send(request).await.unwrap()
}

/// Plays all of them in both directions.
fn play(loads: &[Load]) {
    let whole_run = std::env::var("PORTCULLIS_SAMPLES").is_ok();
    let deadline = Duration::from_secs(if whole_run { 7200 } else { 60 });
    run_for(deadline, async {
        for load in loads {
            for source in [Source::InHost, Source::InApplication] {
                load.play(source).await;
            }
        }
    });
}

/// So many samples, or as many as the environment says.
fn samples(usual: u64) -> u64 {
    std::env::var("PORTCULLIS_SAMPLES").map_or(usual, |text| text.parse().unwrap())
}

#[test]
fn unpaced_samples_of_each_size_all_arrive_in_order() {
    let load = |size, usual, whole| Load {
        size,
        count: samples(usual),
        whole,
        one_by_one: false,
    };
    play(&[
        load(188, 10_000, true),
        load(4 << 10, 10_000, true),
        load(64 << 10, 10_000, true),
        // A picture: only its number is written, so that a million of them are no terabyte of memory traffic.
        load(1_400_000, 1_000, false),
    ]);
}

#[test]
fn unpaced_samples_one_by_one_through_windows_of_one_all_arrive_in_order() {
    play(&[Load {
        size: 188,
        count: samples(10_000),
        whole: true,
        one_by_one: true,
    }]);
}
