//! A source of the application's own, written as an actor: its session gives it the host before the topology is resolved,
//! and it creates objects there by class id.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use actix::{Actor, Context, Handler};
use portcullis::bridge::ReplyFuture;
use portcullis::engine::credit::FlowItem;
use portcullis::engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis::host::{CreateObject, CreatedObject, DescribeHost};
use portcullis::pipeline::port::{Disconnect, Epoch, Pull, Pulled, Require};
use portcullis::pipeline::source::{
    DescribeSource, NextNodeEvents, NodeEvent, PauseSource, SetPmpHost, ShutdownSource,
    SourceObject, StartSource, StopSource,
};
use portcullis::{
    ContentLimits, Handle, MediaTime, MediaType, NodeObject, Pacing, PresentationDescriptor,
    Result, Sample, Settings, StreamDescriptor, StreamId, Subtype, TimeBase,
};
use tokio::sync::oneshot;

use crate::support::session::{events_until, is_ended, session_of};
use crate::support::{Place, media, run};

/// Samples that the source has.
const SAMPLES: i64 = 40;

/// What happened to the source, in order.
#[derive(Clone, Debug, PartialEq)]
enum Heard {
    /// It was given a host, and created a transform there: the host's process, and whether the object is in another one.
    Host {
        pid: u32,
        is_remote: bool,
    },
    Started,
}

/// A source that makes its samples by itself and lives in the application.
struct Own {
    heard: Arc<Mutex<Vec<Heard>>>,
    presentation: PresentationDescriptor,
    epoch: Epoch,
    next: i64,
    events: VecDeque<(Epoch, NodeEvent)>,
    asker: Option<oneshot::Sender<Vec<(Epoch, NodeEvent)>>>,
}

impl Own {
    /// Starts the source on the arbiter that Portcullis owns.
    async fn start_actor(heard: Arc<Mutex<Vec<Heard>>>) -> SourceObject {
        let made = portcullis::runtime::run(move || async move {
            let media_type = MediaType::audio(Subtype::PCM_S16, 8000, 1);
            let stream = StreamDescriptor::new(StreamId(0), media_type, TimeBase::TICKS);
            let presentation = PresentationDescriptor {
                streams: vec![stream],
                ..PresentationDescriptor::default()
            };
            let own = Self {
                heard,
                presentation: presentation.clone(),
                epoch: Epoch::default(),
                next: 0,
                events: VecDeque::new(),
                asker: None,
            };
            let address = own.start();
            Ok(SourceObject {
                control: Handle::new(&address),
                port: Handle::new(&address),
                presentation,
            })
        });
        made.await.unwrap()
    }

    fn say(&mut self, event: NodeEvent) {
        self.events.push_back((self.epoch, event));
        if let Some(asker) = self.asker.take()
            && let Err(unheard) = asker.send(self.events.drain(..).collect())
        {
            self.events = unheard.into();
        }
    }
}

impl Actor for Own {
    type Context = Context<Self>;
}

impl Handler<SetPmpHost> for Own {
    type Result = ReplyFuture<()>;

    fn handle(&mut self, message: SetPmpHost, _: &mut Self::Context) -> Self::Result {
        let heard = Arc::clone(&self.heard);
        ReplyFuture::new(async move {
            let facts = message.host.send(DescribeHost).await?;
            let created = message.host.send(CreateObject {
                class: "synthetic.gain".into(),
                settings: Settings::from_json(r#"{"factor": 2.0}"#),
                opener: None,
                limits: ContentLimits::default(),
            });
            let CreatedObject::Transform(object, _) = created.await? else {
                panic!("another object");
            };
            heard.lock().unwrap().push(Heard::Host {
                pid: facts.pid,
                is_remote: object.control.is_remote(),
            });
            Ok(())
        })
    }
}

impl Handler<Disconnect> for Own {
    type Result = ReplyFuture<()>;

    fn handle(&mut self, _: Disconnect, _: &mut Self::Context) -> Self::Result {
        ReplyFuture::ready(Ok(()))
    }
}

impl Handler<Require> for Own {
    type Result = ReplyFuture<()>;

    fn handle(&mut self, _: Require, _: &mut Self::Context) -> Self::Result {
        ReplyFuture::ready(Ok(()))
    }
}

impl Handler<Pull> for Own {
    type Result = ReplyFuture<Pulled>;

    fn handle(&mut self, pull: Pull, _: &mut Self::Context) -> Self::Result {
        let mut items = Vec::new();
        if self.next > SAMPLES {
            // Behind the end a pull waits for the next flow.
            return ReplyFuture::new(std::future::pending());
        }
        for _ in 0..pull.credit.max_samples {
            if self.next == SAMPLES {
                self.next += 1;
                items.push(FlowItem::End);
                self.say(NodeEvent::EndOfStream(StreamId(0)));
                break;
            }
            let time = MediaTime::from_millis(self.next);
            let sample = Sample::new(time, MediaTime::from_millis(1), [1, 0].repeat(8));
            items.push(FlowItem::Sample(sample));
            self.next += 1;
        }
        let epoch = self.epoch;
        ReplyFuture::ready(Ok(Pulled { items, epoch }))
    }
}

impl Handler<StartSource> for Own {
    type Result = Result<()>;

    fn handle(&mut self, start: StartSource, _: &mut Self::Context) -> Self::Result {
        self.epoch = start.epoch;
        self.next = 0;
        self.heard.lock().unwrap().push(Heard::Started);
        Ok(())
    }
}

impl Handler<NextNodeEvents> for Own {
    type Result = ReplyFuture<Vec<(Epoch, NodeEvent)>>;

    fn handle(&mut self, _: NextNodeEvents, _: &mut Self::Context) -> Self::Result {
        if !self.events.is_empty() {
            return ReplyFuture::ready(Ok(self.events.drain(..).collect()));
        }
        let (asker, answer) = oneshot::channel();
        self.asker = Some(asker);
        ReplyFuture::new(async move { answer.await.map_err(|_| portcullis::Error::cancelled()) })
    }
}

impl Handler<DescribeSource> for Own {
    type Result = Result<PresentationDescriptor>;

    fn handle(&mut self, _: DescribeSource, _: &mut Self::Context) -> Self::Result {
        Ok(self.presentation.clone())
    }
}

macro_rules! agree {
    ($($message:ty),*) => {
        $(impl Handler<$message> for Own {
            type Result = Result<()>;

            fn handle(&mut self, _: $message, _: &mut Self::Context) -> Self::Result {
                Ok(())
            }
        })*
    };
}

agree!(PauseSource, StopSource, ShutdownSource);

#[test]
fn a_source_of_the_application_is_given_the_host_first_and_creates_objects_in_it() {
    run(async {
        for place in [Place::InProcess, Place::IsolatedSourceInApp] {
            let heard = Arc::new(Mutex::new(Vec::new()));
            let source = Own::start_actor(Arc::clone(&heard)).await;
            let (session, _) = session_of(place, Pacing::Free, media::clip()).await;
            let mut events = session.events();
            let id = ObjectId(0);
            let mut topology = Topology::new();
            let presentation = source.presentation.clone();
            let kind = NodeKind::described(ObjectRef::Object(id), StreamId(0), presentation);
            let from = topology.add_node(kind);
            let sink = ObjectRef::activation("sink.null");
            let to = topology.add_node(NodeKind::output(sink, 0));
            topology.connect(from, 0, to, 0).unwrap();
            let objects = vec![(id, NodeObject::Source(source))];
            session.set_topology(topology, objects).await.unwrap();
            let first = heard.lock().unwrap().clone();
            let host = Heard::Host {
                pid: session.host().pid(),
                is_remote: place.is_in_host(),
            };
            assert_eq!(first, [host], "{place:?}: before anything else");
            session.start(None).await.unwrap();
            events_until(&mut events, is_ended).await;
            let counts = session.statistics().await.unwrap()[0].counts;
            assert_eq!(counts.samples, SAMPLES as u64, "{place:?}");
            assert_eq!(heard.lock().unwrap()[1..], [Heard::Started], "{place:?}");
        }
    });
}

#[test]
fn a_handle_into_the_host_comes_home_as_itself() {
    run(async {
        let (session, _) =
            session_of(Place::IsolatedSourceInHost, Pacing::Free, media::clip()).await;
        let get = || portcullis::pipeline::session::GetPmpHost;
        let (one, two) = (session.control().send(get()), session.control().send(get()));
        let (one, two) = (one.await.unwrap(), two.await.unwrap());
        assert!(one.is_remote());
        assert_eq!(one, two, "one actor, one handle");
        assert_eq!(
            one.send(DescribeHost).await.unwrap().pid,
            session.host().pid()
        );
    });
}
