//! A sink, and whoever takes what it grabs.

use portcullis_engine::{ErrorKind, MediaType, Subtype};

use super::*;
use crate::pipeline::events::{NextNodeEvents, NodeEvent};
use crate::pipeline::sink::*;

struct Sink {
    script: Script,
    sink: SinkObject,
    items: tokio::sync::mpsc::Receiver<GrabbedItem>,
}

async fn sink(ahead: ReadAhead) -> Sink {
    let script = Script::default();
    let Grabber { sink, items, .. } = SampleGrabber::start(ahead, Accept::Any);
    let connect = ConnectSink {
        stream: 0,
        upstream: script.upstream(),
        ahead: None,
    };
    sink.control.send(connect).await.expect("is connected");
    Sink {
        script,
        sink,
        items,
    }
}

impl Sink {
    async fn start(&self, epoch: u64) {
        let preroll = PrerollSink {
            epoch: Epoch(epoch),
        };
        self.sink.control.send(preroll).await.expect("prerolls");
        self.run().await;
    }

    async fn run(&self) {
        let start = StartSink {
            clock: clock(),
            rateless: true,
        };
        self.sink.control.send(start).await.expect("starts");
    }

    async fn next(&mut self) -> Grabbed {
        self.items.recv().await.expect("goes on").what
    }
}

#[test]
fn a_neighbour_that_answers_more_than_was_asked_fails_the_sink() {
    run(async {
        let many = (0..17).map(item).collect();
        let others = vec![FlowItem::Format(MediaType::audio(Subtype::PCM_S16, 1, 1)); 100];
        for items in [many, others, Vec::new()] {
            let mut sink = sink(ReadAhead::default()).await;
            sink.script.say(1, vec![item(0)]);
            sink.start(1).await;
            assert_eq!(sink.next().await, Grabbed::Sample(sample(0)));
            sink.script.say(1, items);
            let Grabbed::Fault(error) = sink.next().await else {
                panic!("a fault")
            };
            assert!(matches!(error.kind(), ErrorKind::Protocol(_)), "{error}");
            assert_eq!(sink.next().await, Grabbed::End);
            let events = sink
                .sink
                .control
                .send(NextNodeEvents)
                .await
                .expect("has some");
            assert!(matches!(&events[..], [(Epoch(1), NodeEvent::Failed(_))]));
            settle().await;
            assert_eq!(sink.script.asked().1, 0, "asks no more");
        }
    });
}

#[test]
fn a_lost_neighbour_is_an_error_behind_what_came_before() {
    run(async {
        let mut sink = sink(ReadAhead::default()).await;
        sink.script.say(1, vec![item(0), item(1)]);
        sink.script.answer(Err(lost()));
        let preroll = sink.sink.control.send(PrerollSink { epoch: Epoch(1) });
        preroll.await.expect("has its first");
        settle().await;
        sink.run().await;
        let mut seen = Vec::new();
        while seen.last() != Some(&Grabbed::End) {
            seen.push(sink.next().await);
        }
        assert_eq!(seen[seen.len() - 2], Grabbed::Fault(lost()));
    });
}

#[test]
fn a_stop_ends_a_preroll_and_nothing_is_asked_until_the_next_flow() {
    run(async {
        let mut sink = sink(ReadAhead::default()).await;
        let preroll = sink.sink.control.send(PrerollSink { epoch: Epoch(1) });
        settle().await;
        assert_eq!(sink.script.asked().1, 2);
        sink.sink.control.send(StopSink).await.expect("stops");
        assert!(preroll.await.expect_err("was ended").is_cancelled());
        settle().await;
        assert_eq!(sink.script.asked().1, 0, "the pulls were cancelled");
        sink.script.say(2, vec![item(5), FlowItem::End]);
        sink.start(2).await;
        assert_eq!(sink.next().await, Grabbed::Sample(sample(5)));
        assert_eq!(sink.next().await, Grabbed::End);
        let events = sink
            .sink
            .control
            .send(NextNodeEvents)
            .await
            .expect("has some");
        assert_eq!(events, [(Epoch(2), NodeEvent::StreamRendered(0))]);
    });
}

#[test]
fn what_was_needed_for_decoding_only_is_no_preroll() {
    run(async {
        let mut sink = sink(ReadAhead::default()).await;
        let mut needed = sample(0);
        needed.flags.preroll = true;
        sink.script.say(1, vec![FlowItem::Sample(needed)]);
        let preroll = sink.sink.control.send(PrerollSink { epoch: Epoch(1) });
        tokio::pin!(preroll);
        settle().await;
        assert!(futures::poll!(&mut preroll).is_pending());
        sink.script.say(1, vec![item(3)]);
        preroll.await.expect("has its first");
        sink.run().await;
        assert_eq!(sink.next().await, Grabbed::Sample(sample(3)));
    });
}

#[test]
fn a_timer_of_an_old_position_does_not_delay_a_new_one() {
    run(async {
        let script = Script::default();
        let settings = Grabbing::default();
        let items = settings.0.clone();
        let sink = SinkActor::create(settings, ReadAhead::default(), system_time::now);
        let connect = ConnectSink {
            stream: 0,
            upstream: script.upstream(),
            ahead: None,
        };
        sink.control.send(connect).await.expect("is connected");
        for (epoch, first) in [(1, 3_600_000), (2, 0)] {
            let preroll = sink.control.send(PrerollSink {
                epoch: Epoch(epoch),
            });
            settle().await;
            script.say(epoch, vec![item(first)]);
            preroll.await.expect("prerolls");
            let start = StartSink {
                clock: clock(),
                rateless: false,
            };
            sink.control.send(start).await.expect("starts");
        }
        while items.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(*items.borrow(), [sample(0)]);
    });
}

/// A sink that asks for one sample at a time and runs; both of its first pulls, which promise half of its bytes each, have
/// brought a small one.
async fn one_by_one() -> Sink {
    let mut sink = sink(ReadAhead {
        batch: 1,
        ..ReadAhead::default()
    })
    .await;
    sink.script.say(1, vec![item(0)]);
    sink.start(1).await;
    assert_eq!(sink.next().await, Grabbed::Sample(sample(0)));
    sink.script.say(1, vec![item(1)]);
    assert_eq!(sink.next().await, Grabbed::Sample(sample(1)));
    settle().await;
    sink
}

fn heavy() -> Vec<FlowItem> {
    let time = MediaTime::ZERO;
    vec![FlowItem::Sample(Sample::new(time, time, vec![0; 1 << 20]))]
}

#[test]
fn small_samples_that_are_asked_for_one_by_one_have_many_pulls_under_way() {
    run(async {
        let mut sink = one_by_one().await;
        assert_eq!(sink.script.asked().1, 16);
        for waiting in (2..16).rev().chain([2, 2]) {
            sink.script.say(1, heavy());
            assert!(matches!(sink.next().await, Grabbed::Sample(_)));
            settle().await;
            assert_eq!(sink.script.asked().1, waiting);
        }
        // No more than can all be answered with the largest so far.
        sink.script.say(1, vec![item(2)]);
        assert_eq!(sink.next().await, Grabbed::Sample(sample(2)));
        sink.script.say(1, vec![item(3)]);
        assert_eq!(sink.next().await, Grabbed::Sample(sample(3)));
        settle().await;
        assert_eq!(sink.script.asked().1, 8);
    });
}

#[test]
fn what_waits_is_at_most_the_bytes_that_were_set_and_one_sample_of_each_pull() {
    run(async {
        let sink = one_by_one().await;
        sink.sink.control.send(PauseSink).await.expect("pauses");
        let before = sink.script.asked();
        assert_eq!(before.1, 16);
        let promised: u64 = before.0[before.0.len() - 16..]
            .iter()
            .map(|credit| credit.max_bytes)
            .sum();
        assert!(promised <= ReadAhead::default().bytes, "{promised}");
        for _ in 0..17 {
            sink.script.say(1, heavy());
        }
        settle().await;
        let after = sink.script.asked();
        assert_eq!(
            (after.0.len(), after.1),
            (before.0.len(), 0),
            "asks no more"
        );
    });
}

#[test]
fn a_session_that_asks_for_anything_gets_what_is_bounded() {
    run(async {
        let sink = sink(ReadAhead::default()).await;
        for stream in 0..200 {
            let connect = ConnectSink {
                stream,
                upstream: sink.script.upstream(),
                ahead: Some(ReadAhead {
                    batch: u32::MAX,
                    bytes: u64::MAX,
                }),
            };
            let connected = sink.sink.control.send(connect).await;
            assert_eq!(connected.is_ok(), stream < 64);
        }
        let _preroll = sink.sink.control.send(PrerollSink { epoch: Epoch(1) });
        settle().await;
        let (asked, _) = sink.script.asked();
        let most = asked
            .iter()
            .map(|credit| (credit.max_samples, credit.max_bytes))
            .max();
        // Two pulls of each stream share its bytes; how many samples they ask for grows.
        assert_eq!((asked.len(), most), (128, Some((16, 32 << 20))));
    });
}

/// Keeps what is rendered; takes its time from the clock.
#[derive(Default)]
struct Grabbing(Rc<RefCell<Vec<Sample>>>);

impl Renderer for Grabbing {
    fn set_type(&mut self, _: u32, _: MediaType) -> Rendered {
        done()
    }
    fn render(&mut self, _: u32, samples: Vec<Sample>) -> Rendered {
        self.0.borrow_mut().extend(samples);
        done()
    }
    fn fault(&mut self, _: u32, _: Error) -> Rendered {
        done()
    }
    fn end_of_stream(&mut self, _: u32) -> Rendered {
        done()
    }
    fn fail(&mut self, _: u32, _: Error) -> Rendered {
        done()
    }
    fn finalize(&mut self) -> Rendered {
        done()
    }
    fn flush(&mut self, _: Epoch) {}
    fn is_rateless(&self) -> bool {
        false
    }
}

type Rendered = futures::future::LocalBoxFuture<'static, Result<()>>;

fn done() -> Rendered {
    Box::pin(std::future::ready(Ok(())))
}
