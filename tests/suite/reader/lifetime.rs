//! What starts ends: with the reader, with the future, and with the caller's patience.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use portcullis::pipeline::resolver::ResolveUrl;
use portcullis::{
    ErrorKind, Input, MediaTime, OpenPolicy, Placement, StreamOutput, StreamSelector,
};

use super::{expected, pictures};
use crate::support::{Place, media, process, run, until};

fn is_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn futures_and_streams_are_send() {
    run(async {
        let reader = is_send(is_send(Place::InProcess.open(media::clip())).open())
            .await
            .unwrap();
        let samples = is_send(
            is_send(reader.samples(StreamSelector::FIRST_VIDEO))
                .await
                .unwrap(),
        );
        drop(is_send(samples.into_future()));
        is_send(reader);
        is_send(
            is_send(portcullis::session(Place::InProcess.placement()).start())
                .await
                .unwrap(),
        );
    });
}

#[test]
fn readers_work_in_spawned_tasks_side_by_side() {
    run(async {
        let tasks: Vec<_> = (0..2)
            .flat_map(|_| Place::ALL)
            .map(|place| {
                tokio::spawn(async move {
                    let reader = place.open(media::clip()).open().await?;
                    pictures(&reader).await
                })
            })
            .collect();
        let expected = expected();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap(), expected);
        }
    });
}

#[test]
fn readers_need_no_executor_at_all() {
    for place in Place::ALL {
        let pictures = futures::executor::block_on(async {
            let reader = place.open(media::clip()).open().await?;
            pictures(&reader).await
        });
        assert_eq!(pictures.unwrap(), expected(), "{place:?}");
    }
}

#[test]
fn dropping_the_reader_ends_its_host() {
    run(async {
        for place in Place::ALL.into_iter().filter(|place| place.is_in_host()) {
            let reader = place.open(media::clip()).open().await.unwrap();
            let pid = reader.session().host().pid();
            assert_ne!(pid, std::process::id());
            let mut samples = reader.samples(StreamSelector::FIRST_VIDEO).await.unwrap();
            assert!(samples.try_next().await.unwrap().is_some());
            drop(reader);
            assert!(
                samples.try_next().await.unwrap().is_some(),
                "the stream keeps what it needs"
            );
            assert!(process::exists(pid));
            drop(samples);
            until("the host is gone, not even a zombie", || {
                !process::exists(pid)
            })
            .await;
        }
    });
}

/// A body that never gives anything and says whether it was looked at and whether it is gone.
#[derive(Default)]
struct Stalled {
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    polled: AtomicBool,
    dropped: AtomicBool,
}

impl Stream for Stalled {
    type Item = io::Result<Bytes>;
    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.seen.polled.store(true, Ordering::SeqCst);
        Poll::Pending
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.seen.dropped.store(true, Ordering::SeqCst);
    }
}

#[test]
fn giving_up_a_stalled_open_gives_up_the_input() {
    run(async {
        for place in Place::ALL {
            let body = Stalled::default();
            let seen = Arc::clone(&body.seen);
            let connection = match place.placement() {
                Placement::Isolated(host) => Some(host.start().await.unwrap()),
                Placement::Protected(host) => Some(host.start().await.unwrap()),
                _ => None,
            };
            let mut builder = place.open(Input::stream(body));
            if let Some(connection) = &connection {
                builder = builder.host(connection.clone());
            }
            let opening = tokio::spawn(builder.open());
            until("the input is read", || seen.polled.load(Ordering::SeqCst)).await;
            assert!(!opening.is_finished());
            opening.abort();
            until("the input is gone", || seen.dropped.load(Ordering::SeqCst)).await;
            if let Some(connection) = connection {
                // The host goes on for others.
                let reader = place
                    .open(media::clip())
                    .host(connection.clone())
                    .open()
                    .await
                    .unwrap();
                assert_eq!(pictures(&reader).await.unwrap(), expected());
                drop(reader);
                let pid = connection.pid();
                drop(connection);
                until("the host is gone", || !process::exists(pid)).await;
            }
        }
    });
}

#[test]
fn a_cancelled_resolution_in_the_host_ends_there_too() {
    run(async {
        let (mut policy, body) = (OpenPolicy::new(), Stalled::default());
        let seen = Arc::clone(&body.seen);
        let url = policy.grant(Input::stream(body));
        let session = portcullis::session(Place::IsolatedSourceInHost.placement())
            .policy(policy)
            .start()
            .await
            .unwrap();
        let resolver = session.create_resolver().await.unwrap();
        let (opener, limits) = (session.opener().clone(), session.limits());
        let mut call = Box::pin(resolver.send(ResolveUrl {
            url,
            opener,
            limits,
        }));
        let waiting = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending()));
        assert!(waiting.await);
        until("the input is read", || seen.polled.load(Ordering::SeqCst)).await;
        drop(call);
        until("the input is gone", || seen.dropped.load(Ordering::SeqCst)).await;
        assert!(
            session.create_resolver().await.unwrap().is_remote(),
            "the host still answers"
        );
    });
}

#[test]
fn the_blocking_call_is_refused_at_once_across_the_wall_and_opens_nothing() {
    run(async {
        let (mut policy, body) = (OpenPolicy::new(), Stalled::default());
        let seen = Arc::clone(&body.seen);
        let url = policy.grant(Input::stream(body));
        let session = portcullis::session(Place::IsolatedSourceInHost.placement())
            .policy(policy)
            .start()
            .await
            .unwrap();
        let resolver = session.create_resolver().await.unwrap();
        let (opener, limits) = (session.opener().clone(), session.limits());
        let refused = resolver
            .resolve_url_blocking(ResolveUrl {
                url,
                opener,
                limits,
            })
            .expect_err("another process");
        assert!(
            matches!(refused.kind(), ErrorKind::NotRemotable { .. }),
            "{refused}"
        );
        // The next answer comes behind whatever the refused call had sent.
        session.create_resolver().await.unwrap();
        assert!(!seen.polled.load(Ordering::SeqCst));
    });
}

#[test]
fn the_blocking_call_works_within_one_process() {
    run(async {
        let mut policy = OpenPolicy::new();
        let url = policy.grant(media::clip());
        let session = portcullis::session(Place::InProcess.placement())
            .policy(policy)
            .start()
            .await
            .unwrap();
        let resolver = session.create_resolver().await.unwrap();
        let (opener, limits) = (session.opener().clone(), session.limits());
        let source = tokio::task::spawn_blocking(move || {
            resolver.resolve_url_blocking(ResolveUrl {
                url,
                opener,
                limits,
            })
        });
        assert_eq!(source.await.unwrap().unwrap().presentation.streams.len(), 2);
    });
}

#[test]
fn a_seek_wakes_the_streams_that_have_ended() {
    run(async {
        for place in Place::ALL {
            let reader = place.open(media::clip()).open().await.unwrap();
            let outputs = [StreamSelector::FIRST_VIDEO, StreamSelector::FIRST_AUDIO];
            let outputs = outputs.map(StreamOutput::compressed).to_vec();
            let mut streams = reader.streams(outputs, None).await.unwrap();
            let mut counts = Vec::new();
            for _ in 0..2 {
                for stream in &mut streams {
                    counts.push(
                        stream
                            .by_ref()
                            .try_fold(0, async |n, _| Ok(n + 1))
                            .await
                            .unwrap(),
                    );
                }
                streams[0].seek(MediaTime::ZERO).await.unwrap();
            }
            assert_eq!((counts[0], &counts[..2]), (90, &counts[2..]), "{place:?}");
        }
    });
}

#[test]
fn a_read_that_was_given_up_does_not_misplace_the_next() {
    run(async {
        for place in Place::ALL {
            let reader = place.open(media::clip()).open().await.unwrap();
            for polls in 1..4 {
                let mut given_up = Box::pin(reader.samples(StreamSelector::FIRST_AUDIO));
                for _ in 0..polls {
                    assert!(futures::poll!(given_up.as_mut()).is_pending());
                    tokio::task::yield_now().await;
                }
            }
            assert_eq!(pictures(&reader).await.unwrap(), expected(), "{place:?}");
        }
    });
}
