//! A transform between a neighbour on each side.

use std::sync::Arc;

use portcullis_engine::media::HeapAllocator;
use portcullis_engine::{ContentLimits, ErrorKind, Output, Transform};

use super::*;
use crate::pipeline::events::{NextNodeEvents, NodeEvent};
use crate::pipeline::transform::*;
use crate::worker::Worker;

/// Holds one sample back; fails at the time of 13 ms, and panics at 66 ms.
#[derive(Default)]
struct OneBehind(Option<Sample>);

impl Transform for OneBehind {
    fn allocation(&self) -> AllocationRequirements {
        AllocationRequirements {
            alignment: 64,
            count: 1,
            ..AllocationRequirements::default()
        }
    }
    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        match input.time.ticks() / 10_000 {
            13 => return Err(Error::malformed(13, "unlucky")),
            66 => panic!("a bug"),
            _ => {}
        }
        if let Some(before) = self.0.replace(input) {
            output.push(before);
        }
        Ok(())
    }
    fn drain(&mut self, output: &mut Output) -> Result<()> {
        output.push(self.0.take().ok_or_else(Error::cancelled)?);
        Ok(())
    }
    fn flush(&mut self) {
        self.0 = None;
    }
}

async fn transform() -> (Script, TransformObject) {
    let script = Script::default();
    let worker = Worker::spawn("test", || Ok(OneBehind::default()))
        .await
        .expect("builds");
    let (limits, usage) = (ContentLimits::default(), Default::default());
    let object = TransformActor::create(worker, Arc::new(HeapAllocator), limits, usage);
    let upstream = script.upstream();
    object
        .control
        .send(ConnectInput { upstream })
        .await
        .expect("is connected");
    (script, object)
}

#[test]
fn what_a_component_asks_of_memory_reaches_its_neighbour() {
    run(async {
        let (script, object) = transform().await;
        let asked = script.0.borrow().required.clone();
        assert_eq!(asked.len(), 1);
        assert_eq!((asked[0].alignment, asked[0].count), (64, 1));
        let wrong = AllocationRequirements {
            alignment: 3,
            ..AllocationRequirements::default()
        };
        let require = |memory| object.port.send(Require { output: 0, memory });
        assert!(require(wrong).await.is_err());
        require(asked[0]).await.expect("is taken");
    });
}

async fn all(object: &TransformObject, epoch: u64) -> Vec<FlowItem> {
    let mut items = Vec::new();
    while items.last() != Some(&FlowItem::End) {
        items.extend(
            object
                .port
                .send(pull(2, epoch))
                .await
                .expect("goes on")
                .items,
        );
    }
    items
}

#[test]
fn a_sample_that_fails_is_a_fault_in_its_place() {
    run(async {
        let (script, object) = transform().await;
        script.say(1, vec![item(1), item(2), item(13), item(3)]);
        script.say(1, vec![item(4), FlowItem::End]);
        let fault = FlowItem::Error(Error::malformed(13, "unlucky"));
        let expected = [item(1), fault, item(2), item(3), item(4), FlowItem::End];
        assert_eq!(all(&object, 1).await, expected);
        let events = object.control.send(NextNodeEvents).await.expect("has one");
        let fault = NodeEvent::Fault(Error::malformed(13, "unlucky"));
        assert_eq!(events, [(Epoch(1), fault)]);
    });
}

#[test]
fn a_new_flow_forgets_what_was_held_back_and_cancels_what_was_asked() {
    run(async {
        let (script, object) = transform().await;
        script.say(1, vec![item(1), item(2)]);
        let first = object.port.send(pull(1, 1)).await.expect("has one");
        assert_eq!(first.items, [item(1)]);
        let old = object.port.send(pull(1, 1));
        settle().await;
        object
            .control
            .send(FlushTransform { epoch: Epoch(2) })
            .await
            .expect("is flushed");
        assert_eq!(old.await.expect("is answered").items, []);
        script.say(2, vec![item(7), item(8), FlowItem::End]);
        assert_eq!(all(&object, 2).await, [item(7), item(8), FlowItem::End]);
        // The same flow again: a stop. It waits for the next one.
        object
            .control
            .send(FlushTransform { epoch: Epoch(2) })
            .await
            .expect("is flushed");
        settle().await;
        assert_eq!(script.asked().1, 0);
        script.say(3, vec![item(9), FlowItem::End]);
        assert_eq!(all(&object, 3).await, [item(9), FlowItem::End]);
    });
}

#[test]
fn a_panic_ends_the_transform_with_its_text() {
    run(async {
        let (script, object) = transform().await;
        script.say(1, vec![item(1), item(66)]);
        let items = all(&object, 1).await;
        let [.., FlowItem::Error(error), FlowItem::End] = &items[..] else {
            panic!("an error: {items:?}")
        };
        assert!(
            matches!(error.kind(), ErrorKind::Panicked { message, .. } if message == "a bug"),
            "{error}"
        );
        let events = object.control.send(NextNodeEvents).await.expect("has one");
        assert!(matches!(&events[..], [(_, NodeEvent::Failed(_))]));
        assert_eq!(script.0.borrow().disconnects, [Epoch(1)]);
        // There is nothing to flush; the next flow fails too.
        let flushed = object
            .control
            .send(FlushTransform { epoch: Epoch(2) })
            .await;
        assert_eq!(
            flushed.expect_err("it is gone").kind(),
            &ErrorKind::ActorStopped
        );
        script.say(2, vec![item(1), FlowItem::End]);
        assert!(matches!(
            &all(&object, 2).await[..],
            [FlowItem::Error(_), FlowItem::End]
        ));
    });
}

#[test]
fn nothing_is_made_for_a_consumer_that_wants_nothing_more() {
    run(async {
        let (script, object) = transform().await;
        script.say(1, vec![item(1), item(2)]);
        let first = object.port.send(pull(1, 1)).await.expect("has one");
        assert_eq!(first.items, [item(1)]);
        let (output, epoch) = (0, Epoch(1));
        object
            .port
            .send(Disconnect { output, epoch })
            .await
            .expect("is told");
        settle().await;
        assert_eq!(script.asked().1, 0, "what it had asked is cancelled");
        assert_eq!(script.0.borrow().disconnects, [Epoch(1)]);
        // Until the next flow.
        script.say(2, vec![item(7), item(8), FlowItem::End]);
        assert_eq!(all(&object, 2).await, [item(7), item(8), FlowItem::End]);
    });
}

/// Blocks in its first sample until it is let go, and cannot flush after it.
struct Stubborn(Option<std::sync::mpsc::Receiver<()>>);

impl Transform for Stubborn {
    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        let _ = self.0.take().map(|wait| wait.recv());
        output.push(input);
        Ok(())
    }
    fn flush(&mut self) {
        assert!(self.0.is_some(), "cannot");
    }
}

#[test]
fn a_flush_that_is_lost_fails_the_flow_that_it_began() {
    run(async {
        let (go, wait) = std::sync::mpsc::channel();
        let script = Script::default();
        let worker = Worker::spawn("test", || Ok(Stubborn(Some(wait))))
            .await
            .expect("builds");
        let (limits, usage) = (ContentLimits::default(), Default::default());
        let object = TransformActor::create(worker, Arc::new(HeapAllocator), limits, usage);
        let upstream = script.upstream();
        object
            .control
            .send(ConnectInput { upstream })
            .await
            .expect("is connected");
        script.say(1, vec![item(1)]);
        let stale = object.port.send(pull(1, 1));
        settle().await;
        // Nobody has told it: the pull of the new flow does.
        let next = object.port.send(pull(1, 2));
        settle().await;
        drop(go);
        let items = next.await.expect("is answered").items;
        assert!(
            matches!(&items[..], [FlowItem::Error(_), FlowItem::End]),
            "{items:?}"
        );
        assert_eq!(stale.await.expect("is answered").items, []);
    });
}

#[test]
fn it_ends_with_its_last_handle_although_it_waits() {
    run(async {
        let (script, object) = transform().await;
        let waiting = object.port.send(pull(1, 1));
        settle().await;
        assert_eq!(script.asked().1, 2);
        drop(object);
        waiting.await.expect_err("nobody is there");
        settle().await;
        assert_eq!(script.asked().1, 0, "what it had asked is cancelled");
    });
}
