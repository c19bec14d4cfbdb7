//! What bounds a link, each limit at its edge: what is just allowed crosses, one more is refused by name, costs nothing, and
//! the link goes on.

use std::cell::Cell;
use std::rc::Rc;

use portcullis_transport::LinkLimits;

use super::super::Context;
use super::{
    Actor, Deserialize, Duration, ErrorKind, FileDescriptor, Handle, Handler, Link, Over, Remote,
    ReplyFuture, Result, Serialize, run,
};

crate::interface! { Bounded = "test.Bounded" { Bytes, Files, Make, Take, Slow } }

/// Bytes there and back.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Vec<u8>)]
struct Bytes(Vec<u8>);

#[derive(Serialize, Deserialize, Remote)]
struct Files(Vec<FileDescriptor>);

/// Makes another one.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Handle<Bounded>)]
struct Make;

#[derive(Serialize, Deserialize, Remote)]
struct Take(Vec<Handle<Bounded>>);

/// Lasts for some turns; answers how many did so at a time.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = u32)]
struct Slow;

#[derive(Default)]
struct BoundedActor(Rc<Cell<u32>>);

impl Actor for BoundedActor {
    type Context = Context<Self>;
}

impl Handler<Bytes> for BoundedActor {
    type Result = Result<Vec<u8>>;
    fn handle(&mut self, message: Bytes, _: &mut Self::Context) -> Self::Result {
        Ok(message.0)
    }
}

impl Handler<Files> for BoundedActor {
    type Result = Result<()>;
    fn handle(&mut self, _: Files, _: &mut Self::Context) -> Self::Result {
        Ok(())
    }
}

impl Handler<Make> for BoundedActor {
    type Result = Result<Handle<Bounded>>;
    fn handle(&mut self, _: Make, _: &mut Self::Context) -> Self::Result {
        Ok(Handle::start(Self::default()))
    }
}

impl Handler<Take> for BoundedActor {
    type Result = Result<()>;
    fn handle(&mut self, _: Take, _: &mut Self::Context) -> Self::Result {
        Ok(())
    }
}

impl Handler<Slow> for BoundedActor {
    type Result = ReplyFuture<u32>;
    fn handle(&mut self, _: Slow, _: &mut Self::Context) -> Self::Result {
        let running = Rc::clone(&self.0);
        ReplyFuture::new(async move {
            running.set(running.get() + 1);
            let mut most = 0;
            for _ in 0..20 {
                most = most.max(running.get());
                tokio::task::yield_now().await;
            }
            running.set(running.get() - 1);
            Ok(most)
        })
    }
}

/// A link with these limits: the far side leaves them to this one.
async fn linked(over: Over, limits: LinkLimits) -> (Link, Link, Handle<Bounded>) {
    let (near, far) = over.endpoints();
    let root = Handle::<Bounded>::start(BoundedActor::default());
    let (near, far) = tokio::join!(
        Link::builder()
            .limits(limits)
            .interface::<Bounded>()
            .connect(near),
        Link::builder()
            .limits(LinkLimits::MOST)
            .as_host()
            .root(root)
            .connect(far),
    );
    let (near, far) = (near.expect("connects"), far.expect("connects"));
    assert_eq!(near.core.agreed.limits, limits, "the smaller of each pair");
    assert_eq!(far.core.agreed.limits, limits);
    let root = near.root::<Bounded>().expect("a root");
    (near, far, root)
}

fn over_links<F: Future<Output = ()> + 'static>(test: impl Fn(Over) -> F) {
    for over in Over::ALL {
        run(test(over));
    }
}

#[test]
fn a_frame_may_be_as_large_as_agreed_and_not_larger() {
    let limits = LinkLimits {
        max_frame: 4096,
        ..LinkLimits::default()
    };
    over_links(move |over| async move {
        let (near, _far, root) = linked(over, limits).await;
        // Its length takes two bytes.
        let largest = root.send(Bytes(vec![1; 4094])).await;
        assert_eq!(largest.map(|bytes| bytes.len()), Ok(4094));
        let error = root.send(Bytes(vec![1; 4095])).await.expect_err("larger");
        let said = "content limit message bytes: 4097 is more than 4096";
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(root.send(Bytes(vec![2])).await, Ok(vec![2]));
        assert!(near.lost().now().is_none());
    });
}

#[test]
fn a_request_may_have_as_many_bytes_as_the_window_and_not_more() {
    let limits = LinkLimits {
        byte_window: 2048,
        ..LinkLimits::default()
    };
    over_links(move |over| async move {
        let (_near, _far, root) = linked(over, limits).await;
        // Many of them wait for each other.
        let many = (0..20).map(|_| root.send(Bytes(vec![1; 2046])));
        for answer in futures::future::join_all(many).await {
            assert_eq!(answer.map(|bytes| bytes.len()), Ok(2046));
        }
        let error = root.send(Bytes(vec![1; 2047])).await.expect_err("larger");
        let said = "bytes of a request: 2049 is more than 2048";
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(root.send(Bytes(vec![2])).await, Ok(vec![2]));
    });
}

#[test]
fn so_many_objects_may_be_exported_and_not_one_more() {
    let limits = LinkLimits {
        max_objects: 3,
        ..LinkLimits::default()
    };
    over_links(move |over| async move {
        let (near, far, root) = linked(over, limits).await;
        // The root is one of them.
        let one = root.send(Make).await.expect("the second");
        let two = root.send(Make).await.expect("the third");
        let error = root.send(Make).await.expect_err("the fourth");
        let said = "more exported objects than agreed";
        assert!(error.to_string().contains(said), "{error}");
        drop(one);
        while far.core.census().exports > 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let three = root.send(Make).await.expect("there is room again");
        assert_ne!(two, three);
        // A message that would go beyond it takes nothing.
        let many = (0..10_000).map(|_| Handle::start(BoundedActor::default()));
        let error = root.send(Take(many.collect())).await.expect_err("too many");
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(near.core.census().exports, 0);
        assert_eq!(root.send(Bytes(vec![2])).await, Ok(vec![2]));
    });
}

#[test]
fn so_many_calls_are_in_flight_and_the_others_wait_their_turn() {
    for (call_window, object_window, most) in [(1, 64, 1), (64, 1, 1), (8, 2, 2), (3, 64, 3)] {
        let limits = LinkLimits {
            call_window,
            object_window,
            ..LinkLimits::default()
        };
        over_links(move |over| async move {
            let (_near, _far, root) = linked(over, limits).await;
            let many = (0..40).map(|_| root.send(Slow));
            let at_a_time = futures::future::join_all(many).await;
            let at_a_time: Result<Vec<_>> = at_a_time.into_iter().collect();
            let at_a_time = at_a_time.expect("all are answered");
            assert_eq!(at_a_time.iter().max(), Some(&most), "{limits:?}");
        });
    }
}

#[test]
fn a_message_may_carry_so_many_descriptors_and_not_more() {
    let files = |count| {
        let file = || std::fs::File::open("/dev/null").expect("is there").into();
        Files((0..count).map(|_| FileDescriptor::new(file())).collect())
    };
    for over in [Over::Socket, Over::Rings] {
        for most in [0, 1, 2, 16] {
            let limits = LinkLimits {
                max_descriptors: most,
                ..LinkLimits::default()
            };
            run(async move {
                let (near, _far, root) = linked(over, limits).await;
                assert_eq!(root.send(files(most)).await, Ok(()));
                let error = root.send(files(most + 1)).await.expect_err("one more");
                let said = match most {
                    0 => "this link carries no descriptors".to_owned(),
                    _ => format!("descriptors of a message: {} is more than {most}", most + 1),
                };
                assert!(error.to_string().contains(&said), "{error}");
                assert_eq!(root.send(Bytes(vec![2])).await, Ok(vec![2]));
                assert!(near.lost().now().is_none());
            });
        }
    }
}

#[test]
fn what_is_out_of_its_range_is_refused_by_its_name() {
    run(async {
        let (near, _far) = Over::Bytes.endpoints();
        let limits = LinkLimits {
            max_objects: 0,
            ..LinkLimits::default()
        };
        let refused = Link::builder().limits(limits).connect(near);
        let peer = Link::builder().as_host().connect(_far);
        let (refused, _) = tokio::join!(refused, peer);
        let error = refused.expect_err("no objects");
        assert!(error.to_string().contains("max_objects"), "{error}");
        assert!(matches!(error.kind(), ErrorKind::Protocol(_)));
    });
}
