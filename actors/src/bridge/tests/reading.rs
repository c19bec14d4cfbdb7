//! What cannot be read, or should not be, ends its link and the call it belongs to, and nothing else.

use portcullis_transport::FrameHeader;

use super::super::{Context, link::kind};
use super::hostile::raw;
use super::{
    Actor, Deserialize, Endpoint, ErrorKind, Handle, Handler, Link, Over, Remote, Result,
    Serialize, connect, over_all, run,
};

crate::interface! { Odd = "test.Odd" { Sour, Nest, Units } }

/// Its reply panics when it is read.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = SourReply)]
struct Sour;

#[derive(Debug, Serialize)]
struct SourReply;

impl<'de> Deserialize<'de> for SourReply {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("a reply that cannot be read");
    }
}

/// Contains itself; there and back.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Nest)]
struct Nest(Option<Box<Nest>>);

/// Values without bytes, there and back.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Vec<()>)]
struct Units(Vec<()>);

struct OddActor;

impl Actor for OddActor {
    type Context = Context<Self>;
}

impl Handler<Sour> for OddActor {
    type Result = Result<SourReply>;
    fn handle(&mut self, _: Sour, _: &mut Self::Context) -> Self::Result {
        Ok(SourReply)
    }
}

impl Handler<Nest> for OddActor {
    type Result = Result<Nest>;
    fn handle(&mut self, message: Nest, _: &mut Self::Context) -> Self::Result {
        Ok(message)
    }
}

impl Handler<Units> for OddActor {
    type Result = Result<Vec<()>>;
    fn handle(&mut self, message: Units, _: &mut Self::Context) -> Self::Result {
        Ok(message.0)
    }
}

async fn odd(over: Over) -> (Link, Link, Handle<Odd>) {
    let (near, far) = over.endpoints();
    let root = Handle::<Odd>::start(OddActor).into_any();
    let (near, far) = tokio::join!(connect(near, 0, None), connect(far, 1, Some(root)));
    let root = near.root::<Odd>().expect("a root");
    (near, far, root)
}

fn nest(links: usize) -> Nest {
    let mut nest = Nest(None);
    for _ in 1..links {
        nest = Nest(Some(Box::new(nest)));
    }
    nest
}

/// So many links of a [`Nest`] in the form of the wire.
fn written(links: usize) -> Vec<u8> {
    let mut body = vec![1; links - 1];
    body.push(0);
    body
}

/// A list of more than can be, in ten bytes.
const ENDLESS: [u8; 10] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];

#[test]
fn a_reply_that_panics_when_read_ends_its_call_and_its_link() {
    over_all(|over| async move {
        let (near, _far, root) = odd(over).await;
        let error = root.send(Sour).await.expect_err("cannot be read");
        assert!(matches!(error.kind(), ErrorKind::Protocol(_)), "{error}");
        assert!(error.to_string().contains("cannot be read"), "{error}");
        let end = near.lost().wait().await;
        assert!(end.to_string().contains("panicked"), "{end}");
    });
}

#[test]
fn honest_messages_are_as_deep_as_they_may_be() {
    over_all(|over| async move {
        let (near, far, root) = odd(over).await;
        let mut back = root.send(nest(64)).await.expect("is not too deep");
        let mut links = 1;
        while let Some(next) = back.0 {
            back = *next;
            links += 1;
        }
        assert_eq!(links, 64);
        assert_eq!(root.send(Units(vec![(); 1000])).await, Ok(vec![(); 1000]));
        root.send(nest(65)).await.map(drop).expect_err("too deep");
        let end = far.lost().wait().await;
        assert!(end.to_string().contains("nested deeper than 128"), "{end}");
        near.lost().wait().await;
    });
}

#[test]
fn a_request_that_leads_nowhere_ends_the_link_of_its_peer() {
    let mut behind = written(3);
    behind.extend([7; 4]);
    let cases = [
        (
            <Nest as super::super::Remote>::ID,
            written(1_000_000),
            "nested deeper than 128",
        ),
        (
            <Nest as super::super::Remote>::ID,
            behind,
            "4 bytes behind the message",
        ),
        (
            <Units as super::super::Remote>::ID,
            ENDLESS.to_vec(),
            "more elements than bytes",
        ),
    ];
    for (method, body, why) in cases {
        run(async move {
            let (near, far) = Endpoint::memory_pair(64 << 10);
            let root = Handle::<Odd>::start(OddActor).into_any();
            let (near, far) = tokio::join!(connect(near, 0, Some(root)), raw(far, 1, 0));
            actix_rt::spawn(far.writer);
            let header = FrameHeader {
                kind: kind::CALL,
                method,
                ..FrameHeader::default()
            };
            far.sender
                .push(header, &[&body], Vec::new())
                .expect("is open");
            let error = near.lost().wait().await;
            assert!(error.to_string().contains(why), "{error}");
        });
    }
}

#[test]
fn a_reply_that_leads_nowhere_ends_its_call() {
    let cases = [
        (written(1_000_000), "nested deeper than 128"),
        (vec![0, 0], "1 bytes behind the message"),
    ];
    for (body, why) in cases {
        run(async move {
            let (near, far) = Endpoint::memory_pair(64 << 10);
            let (near, mut far) = tokio::join!(connect(near, 0, None), raw(far, 1, 0));
            actix_rt::spawn(far.writer);
            let root = near.root::<Odd>().expect("a root");
            let asked = root.send(nest(1));
            let mut frames = Vec::new();
            far.receiver.receive(&mut frames).await.expect("is open");
            let header = FrameHeader {
                kind: kind::REPLY,
                call: frames[0].header.call,
                ..FrameHeader::default()
            };
            far.sender
                .push(header, &[&body], Vec::new())
                .expect("is open");
            let error = asked.await.map(drop).expect_err("cannot be read");
            assert!(error.to_string().contains(why), "{error}");
            near.lost().wait().await;
        });
    }
}
