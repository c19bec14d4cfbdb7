//! Readers and sessions deliver everything once and in order, and say what happened to what they did not.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use portcullis_actors::client::{Placement, SourceReader, SourceReaderBuilder, StreamSelector};
use portcullis_actors::pipeline::byte_stream::Input;
use portcullis_engine::event::EventKind;
use portcullis_engine::{ErrorKind, MediaTime, Sample};

use super::{components, placements, session, topology, within_deadline};

pub(crate) fn claims(run: &mut impl FnMut(&str, fn())) {
    run(
        "every_sample_comes_once_and_in_order",
        every_sample_comes_once,
    );
    run(
        "after_a_seek_no_older_sample_comes",
        no_older_sample_after_a_seek,
    );
    run(
        "a_paused_reader_of_a_killed_host_gets_an_error",
        a_killed_host_is_an_error,
    );
    run(
        "a_host_that_hangs_is_lost_and_the_error_says_so",
        a_stopped_host_is_lost,
    );
    run("a_seek_flood_ends_at_the_last_position", a_seek_flood);
    run(
        "two_sessions_share_a_host_and_one_ends",
        two_sessions_in_a_host,
    );
    run("a_session_plays_to_its_end_twice", plays_to_its_end_twice);
}

async fn open(placement: &Placement, count: u64) -> SourceReader {
    let registry = Arc::new(components::registry());
    let input = Input::from(format!("TEST{count}").into_bytes());
    let reader = SourceReaderBuilder::new(registry, placement.clone(), input);
    reader.open().await.expect("opens")
}

fn number(sample: &Sample) -> u64 {
    let bytes = sample.payload.to_bytes();
    assert_eq!(bytes.len(), components::SAMPLE_BYTES);
    u64::from_le_bytes(*bytes.first_chunk().expect("is long enough"))
}

fn every_sample_comes_once() {
    within_deadline(async {
        for placement in placements() {
            let reader = open(&placement, 5000).await;
            let samples = reader
                .samples(StreamSelector::FIRST_AUDIO)
                .await
                .expect("starts");
            let numbers: Vec<_> = samples
                .map_ok(|sample| number(&sample))
                .try_collect()
                .await
                .expect("intact");
            assert!(numbers.into_iter().eq(0..5000));
        }
    });
}

fn no_older_sample_after_a_seek() {
    within_deadline(async {
        for placement in placements() {
            let reader = open(&placement, 1_000_000).await;
            let mut samples = reader
                .samples(StreamSelector::FIRST_AUDIO)
                .await
                .expect("starts");
            // Also before the first sample was taken.
            for target in [700_u64, 3, 90_000] {
                let position = MediaTime::from_millis(target as i64);
                samples.seek(position).await.expect("seeks");
                for expected in target..target + 50 {
                    let sample = samples.next().await.expect("many").expect("intact");
                    assert_eq!(number(&sample), expected);
                }
            }
        }
    });
}

fn a_killed_host_is_an_error() {
    within_deadline(async {
        let reader = open(&Placement::isolated(), 1_000_000).await;
        let mut samples = reader
            .samples(StreamSelector::FIRST_AUDIO)
            .await
            .expect("starts");
        samples.next().await.expect("many").expect("intact");
        reader.session().pause().await.expect("pauses");
        let mut events = reader.session().events();
        reader.session().host().kill();
        let error = loop {
            match samples.next().await.expect("an error comes before the end") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.host_exit().expect("the host is lost").signal, Some(9));
        assert!(samples.next().await.is_none());
        while let Some(event) = events.next().await {
            if event.kind == EventKind::Error {
                return assert!(event.error().expect("failed").host_exit().is_some());
            }
        }
        panic!("no event says that the host is lost");
    });
}

fn a_stopped_host_is_lost() {
    within_deadline(async {
        let session = session(&Placement::isolated()).await;
        let mut events = session.events();
        let pid = session.host().pid().to_string();
        let stopped = std::process::Command::new("kill")
            .args(["-STOP", &pid])
            .status();
        assert!(stopped.expect("there is a `kill`").success());
        // Nobody has asked for anything but events, and they have no deadline.
        let event = events.next().await.expect("an event says so");
        let error = event.error().expect("failed");
        assert!(error.host_exit().is_some(), "{error}");
        assert!(error.to_string().contains("does not answer"), "{error}");
        assert!(events.next().await.is_none());
    });
}

fn a_seek_flood() {
    within_deadline(async {
        for placement in placements() {
            let session = session(&placement).await;
            session
                .set_topology(topology(1_000_000), Vec::new())
                .await
                .expect("resolves");
            session.start(None).await.expect("starts");
            let seeks = (0..200).map(|n| session.start(Some(MediaTime::from_secs(n))));
            futures::future::try_join_all(seeks)
                .await
                .expect("all are done");
            let clock = session.clock().await.expect("is open");
            let time = clock.time_at(portcullis_actors::system_time::now());
            assert!(time >= MediaTime::from_secs(199), "{time}");
            session.stop().await.expect("stops");
            session.close().await.expect("closes");
        }
    });
}

fn two_sessions_in_a_host() {
    within_deadline(async {
        let first = session(&Placement::isolated()).await;
        let second = super::builder(&Placement::isolated())
            .host(first.host().clone())
            .start()
            .await
            .expect("in the same host");
        assert_eq!(first.host().pid(), second.host().pid());
        for session in [&first, &second] {
            session
                .set_topology(topology(1_000_000), Vec::new())
                .await
                .expect("resolves");
            session.start(None).await.expect("starts");
        }
        first.shutdown().await.expect("the first");
        let error = first.pause().await.expect_err("is shut down");
        assert!(matches!(error.kind(), ErrorKind::Shutdown { .. }));
        drop(first);
        second.pause().await.expect("goes on");
        second.start(None).await.expect("goes on");
    });
}

fn plays_to_its_end_twice() {
    within_deadline(async {
        for placement in placements() {
            let session = session(&placement).await;
            let mut events = session.events();
            session
                .set_topology(topology(30), Vec::new())
                .await
                .expect("resolves");
            for _ in 0..2 {
                session.start(None).await.expect("starts");
                let mut seen = Vec::new();
                loop {
                    let event = events.next().await.expect("the end comes");
                    assert!(event.status.is_ok(), "{event}");
                    seen.push(event.name());
                    if event.kind.name() == "SessionEnded" {
                        break;
                    }
                }
                let of = |name| seen.iter().filter(|seen| **seen == name).count();
                assert_eq!(
                    (of("EndOfStream"), of("StreamSinkMarker")),
                    (1, 1),
                    "{seen:?}"
                );
            }
            let statistics = session.statistics().await.expect("counts");
            assert_eq!(
                statistics[0].counts.samples + statistics[0].counts.dropped,
                60
            );
        }
    });
}
