//! The wire format, byte by byte: one frame of each kind as an exchange of two links puts it on the wire, against a file.
//!
//! A change of the format makes application and host programs of two builds unable to talk: raise the protocol's version in
//! `transport/src/handshake.rs`, or `SCHEMA` in `table.rs`, and write the file anew with
//! `PORTCULLIS_GOLDEN=write cargo test -p portcullis-actors --lib golden`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;

use portcullis_transport::{Frame, FrameHeader, Hello, LinkReceiver, LinkSender};

use super::super::link::kind;
use super::super::trace::Carried;
use super::super::{Heartbeat, InterfaceTable, TraceContext};
use super::hostile::raw;
use super::life::{Begin, Mortal, MortalActor, Stop};
use super::*;

const FILE: &str = include_str!("golden/wire.txt");

/// The number that the application gives its host.
const HOST: u64 = 7;

/// What passed, by name; of each only the first.
type Passed = Rc<RefCell<BTreeMap<String, String>>>;

fn name(direction: &str, header: &FrameHeader) -> String {
    let kind = match header.kind {
        kind::CALL => "call",
        kind::REPLY => "reply",
        kind::CANCEL => "cancel",
        kind::RELEASE => "release",
        kind::SLOTS => "slots",
        kind::SEGMENT => "segment",
        kind::PING => "ping",
        kind::PONG => "pong",
        kind::DEATH => "death",
        kind::TABLE => "table",
        unknown => panic!("a new kind, {unknown}: put it in here and in the exchange"),
    };
    format!(
        "{kind} {direction} flags {:04x} method {:08x}",
        header.flags,
        match header.kind {
            kind::CALL => header.method,
            _ => 0,
        }
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("is memory");
        text
    })
}

/// The process id that errors carry, as on the wire.
fn pid() -> String {
    hex(&postcard::to_allocvec(&Some(std::process::id())).expect("fits"))
}

/// The hash of this crate's version, as on the wire.
fn version() -> String {
    hex(&postcard::to_allocvec(&super::super::table::version()).expect("fits"))
}

fn note(passed: &Passed, direction: &str, frame: &Frame) {
    let whole = hex(&frame.body);
    let body = match frame.header.kind {
        kind::DEATH | kind::REPLY => whole.replace(&pid(), "[process]"),
        kind::TABLE => whole.replace(&version(), "[version]"),
        _ => whole.clone(),
    };
    let header = FrameHeader {
        // What is left out has no length of its own.
        len: if body == whole { frame.header.len } else { 0 },
        ..frame.header
    };
    let text = format!("{} | {body}", hex(&header.to_bytes()));
    let name = name(direction, &frame.header);
    passed.borrow_mut().entry(name).or_insert(text);
}

fn pass(passed: &Passed, direction: &'static str, mut from: LinkReceiver, to: LinkSender) {
    let passed = Rc::clone(passed);
    actix_rt::spawn(async move {
        let mut frames = Vec::new();
        while from.receive(&mut frames).await.is_ok() {
            for frame in frames.drain(..) {
                note(&passed, direction, &frame);
                let descriptors = frame.descriptors.into_iter();
                let descriptors = descriptors.map(|descriptor| descriptor.into_owned());
                let body: &[u8] = &frame.body;
                if to
                    .push(frame.header, &[body], descriptors.collect())
                    .is_err()
                {
                    return;
                }
            }
        }
        to.close();
    });
}

/// Everything that a link carries, one after the other.
async fn exchange(passed: &Passed) {
    let (near, before) = Endpoint::unix_pair().expect("a socket pair");
    let (behind, far) = Endpoint::unix_pair().expect("a socket pair");
    let (root, seen) = desk();
    let near = Link::builder()
        .names_peer(HOST)
        .root(Handle::<Mortal>::start(MortalActor::default()))
        .heartbeat(
            Heartbeat::default()
                .interval(Duration::from_millis(20))
                .never_lost(),
        )
        .connect(near);
    let far = Link::builder()
        .as_host()
        .interface::<Mortal>()
        .any_root(Some(root.into_any()))
        .connect(far);
    let middle = async {
        let (before, behind) = tokio::join!(raw(before, 1, 0), raw(behind, 0, HOST));
        actix_rt::spawn(before.writer);
        actix_rt::spawn(behind.writer);
        pass(passed, "to host", before.receiver, behind.sender);
        pass(passed, "to application", behind.receiver, before.sender);
    };
    let (near, far, ()) = tokio::join!(near, far, middle);
    let (near, far) = (near.expect("connects"), far.expect("connects"));
    let root = near.root::<Desk>().expect("a root");

    root.send(Add(2, 3)).await.expect("adds");
    root.send(Add(u64::MAX, 3)).await.expect_err("too large");
    // A handle there and back, and released.
    root.send(Keep(desk().0)).await.expect("kept");
    drop(root.send(Give).await.expect("given"));
    drop(root.send(Fresh).await.expect("made"));
    // A descriptor, and payloads of both kinds both ways.
    let file = std::fs::File::open("/dev/null").expect("is there");
    let lent = root.send(Lend(FileDescriptor::new(file.into())));
    lent.await.expect("is lent");
    for len in [5, 10_000] {
        let sample = Sample::new(
            MediaTime::from_millis(3),
            MediaTime::from_millis(1),
            vec![9; len],
        );
        drop(root.send(Show(sample)).await.expect("shown"));
    }
    // A call that is given up, and one within a trace.
    let waiting = root.send(Wait);
    root.send(Add(0, 1)).await.expect("adds");
    drop(waiting);
    until(&seen, |seen| seen.waits_dropped.load(Ordering::SeqCst) == 1).await;
    {
        let _subscriber = tracing::subscriber::set_default(tracing_subscriber::registry());
        let trace = TraceContext {
            trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
            span_id: 1,
        };
        let carried = Carried::arrived(trace, 1, "golden").expect("is traced");
        let within = carried.enter();
        let traced = root.send(Note(1));
        drop(within);
        traced.await.expect("notes");
    }
    // An actor of the application ends to which the host has a handle.
    let mortal = far.root::<Mortal>().expect("a root").send(Begin).await;
    let mortal = mortal.expect("begins");
    mortal.send(Stop).await.expect("stops");
    mortal.watch().await;
    // The host says nothing for a while that is waited for.
    let waiting = root.send(Wait);
    for name in ["ping to host", "pong to application", "slots", "release"] {
        until_passed(passed, name).await;
    }
    drop(waiting);
}

async fn until_passed(passed: &Passed, name: &str) {
    while !passed.borrow().keys().any(|key| key.starts_with(name)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn the_wire_format_is_as_it_was() {
    run(async {
        let passed = Passed::default();
        exchange(&passed).await;
        let mut hello = Hello {
            interface_table: 0x1122_3344_5566_7788,
            names_peer: HOST,
            ..Hello::default()
        }
        .to_bytes();
        // The process id.
        hello[48..52].fill(0);
        let mut text = format!("hello | {}\n", hex(&hello));
        for (name, frame) in passed.borrow().iter() {
            writeln!(text, "{name} | {frame}").expect("is memory");
        }
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/bridge/tests/golden/wire.txt"
        );
        if std::env::var_os("PORTCULLIS_GOLDEN").is_some_and(|value| value == "write") {
            std::fs::write(file, &text).expect("writes");
            return;
        }
        for (ours, golden) in text.lines().zip(FILE.lines()) {
            assert_eq!(ours, golden, "see the head of this file");
        }
        assert_eq!(text.lines().count(), FILE.lines().count());
    });
}

#[test]
fn names_have_the_wire_ids_that_they_had() {
    for (name, id) in [
        ("", 0x811c_9dc5),
        ("portcullis.PmpHost", 0x066203a3),
        ("test.Desk", 0xccf036b4),
    ] {
        assert_eq!(super::super::wire_id(name), id, "{name}");
    }
    assert_ne!(InterfaceTable::new().hash(), 0);
}
