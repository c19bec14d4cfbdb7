//! What both sides compare when they connect: their types' ids and what they mean by an interface.

use super::super::LinkBuilder;
use super::*;

crate::interface! { Same = "test.connect.Same" { Add } }
crate::interface! { Shifty = "test.connect.Shifty" { Add, Note } }
crate::interface! { Twin = "test.connect.Same" { Note } }

mod elsewhere {
    use super::*;
    crate::interface! { pub(super) Shifty = "test.connect.Shifty" { Add, Fresh } }
}

async fn both(over: Over, near: LinkBuilder, far: LinkBuilder) -> (Result<Link>, Result<Link>) {
    let (one, two) = over.endpoints();
    tokio::join!(near.connect(one), far.as_host().connect(two))
}

#[test]
fn an_interface_of_which_the_sides_mean_different_things_is_named_on_both() {
    over_all(|over| async move {
        let near = Link::builder().interface::<Same>().interface::<Shifty>();
        let far = Link::builder()
            .interface::<Same>()
            .interface::<elsewhere::Shifty>();
        let (near, far) = both(over, near, far).await;
        for side in [near, far] {
            let error = side.expect_err("they differ");
            assert!(matches!(error.kind(), ErrorKind::Protocol(_)));
            let error = error.to_string();
            assert!(error.contains("test.connect.Shifty"), "{error}");
            assert!(!error.contains("test.connect.Same"), "{error}");
        }
    });
}

#[test]
fn an_interface_that_only_one_side_knows_does_no_harm() {
    over_all(|over| async move {
        let (root, _) = desk();
        let near = Link::builder().interface::<Same>().interface::<Desk>();
        let far = Link::builder().interface::<Shifty>().root(root);
        let (near, far) = both(over, near, far).await;
        let (near, _far) = (near.expect("connects"), far.expect("connects"));
        let desk = near.root::<Desk>().expect("a root");
        assert_eq!(desk.send(Add(2, 2)).await, Ok(4));
    });
}

#[test]
fn two_types_with_one_wire_id_refuse_the_connection_by_both_names() {
    run(async {
        let (one, _two) = Over::Bytes.endpoints();
        let builder = Link::builder().interface::<Same>().interface::<Twin>();
        let error = builder.connect(one).await.expect_err("twins");
        let error = error.to_string();
        for name in ["connect::Same ", "connect::Twin ", "wire id"] {
            assert!(error.contains(name), "{error}");
        }
    });
}

#[test]
fn a_peer_that_tells_no_table_where_the_hashes_differ_is_refused() {
    run(async {
        let (one, two) = Over::Bytes.endpoints();
        let near = Link::builder().interface::<Same>().connect(one);
        let (near, _raw) = tokio::join!(near, async {
            let link = hostile::raw(two, 1, 0).await;
            let header = portcullis_transport::FrameHeader {
                kind: super::super::link::kind::PING,
                ..Default::default()
            };
            link.sender.push(header, &[], Vec::new()).expect("is open");
            actix_rt::spawn(link.writer);
            (link.sender, link.receiver)
        });
        let error = near.expect_err("no table").to_string();
        assert!(error.contains("before the table"), "{error}");
    });
}
