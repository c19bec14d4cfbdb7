//! The attacks, and how the application ends each: the one list, which the tests read too.

/// An attack of this host on its application.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attack {
    /// Its name.
    pub(crate) name: &'static str,
    /// How it ends.
    pub(crate) ends: Ends,
}

/// How an attack ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// The start of the host fails with an error that says this.
    Refused(&'static str),
    /// The link ends with a `Protocol` error that says this, and so does the call that is pending.
    Broken(&'static str),
    /// The link ends with such an error while no call is pending.
    BrokenIdle(&'static str),
    /// The host counts as lost, and this is among its last words.
    Lost(&'static str),
    /// The link goes on: it does no harm.
    Harmless,
}

use Ends::{Broken, BrokenIdle, Harmless, Lost, Refused};

/// What the program is made of.
const SOURCES: [&str; 9] = [
    include_str!("attacks.rs"),
    include_str!("deeds.rs"),
    include_str!("deeds/hello.rs"),
    include_str!("deeds/memory.rs"),
    include_str!("deeds/rings.rs"),
    include_str!("deeds/talk.rs"),
    include_str!("main.rs"),
    include_str!("objects.rs"),
    include_str!("peer.rs"),
];

/// A hash over its sources: who reads this list and runs the program sees whether both are of one version (FNV-1a).
pub(crate) fn version() -> u64 {
    let bytes = SOURCES.iter().flat_map(|source| source.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

const fn attack(name: &'static str, ends: Ends) -> Attack {
    Attack { name, ends }
}

pub(crate) const ATTACKS: &[Attack] = &[
    // The hello, field by field.
    attack("hello-magic", Refused("handshake: magic does not fit")),
    attack(
        "hello-version",
        Refused("handshake: protocol version does not fit"),
    ),
    attack(
        "hello-length",
        Refused("handshake: hello length does not fit"),
    ),
    attack(
        "hello-table",
        Refused("the peer's interface table did not happen within 2s"),
    ),
    attack(
        "hello-frame-small",
        Refused("handshake: max_frame does not fit"),
    ),
    attack(
        "hello-frame-large",
        Refused("handshake: max_frame does not fit"),
    ),
    attack(
        "hello-objects",
        Refused("handshake: max_objects does not fit"),
    ),
    attack(
        "hello-calls",
        Refused("handshake: call_window does not fit"),
    ),
    attack(
        "hello-bytes",
        Refused("handshake: byte_window does not fit"),
    ),
    attack(
        "hello-pool",
        Refused("handshake: pool_mebibytes does not fit"),
    ),
    attack(
        "hello-descriptor-limit",
        Refused("handshake: max_descriptors does not fit"),
    ),
    attack(
        "hello-object-window",
        Refused("handshake: object_window does not fit"),
    ),
    attack("hello-names", Refused("handshake: names_peer does not fit")),
    attack("hello-features", Harmless),
    attack("hello-reserved", Harmless),
    attack("hello-cut", Refused("the link ended inside the hello")),
    attack(
        "hello-silent",
        Refused("the peer's hello did not happen within 2s"),
    ),
    attack(
        "hello-descriptors",
        Refused("descriptors came with the handshake"),
    ),
    // Rings in shared memory.
    attack(
        "rings-silent",
        Refused("the peer's hello did not happen within 2s"),
    ),
    attack(
        "rings-garbage",
        Refused("rings: what came after the hello is no offer"),
    ),
    attack(
        "rings-format",
        Refused("handshake: ring format does not fit"),
    ),
    attack("rings-huge", Refused("rings: a ring of 2147483648 bytes")),
    attack("rings-odd", Refused("rings: a ring of 65537 bytes")),
    attack(
        "rings-bytes-behind",
        Refused("rings: bytes follow the offer"),
    ),
    attack(
        "rings-cut",
        Refused("rings: the link ended inside of the offer"),
    ),
    attack(
        "rings-one-descriptor",
        Refused("rings: 1 descriptors came, announced are 2"),
    ),
    attack(
        "rings-fifty-descriptors",
        Refused("more than 16 descriptors"),
    ),
    attack(
        "rings-unsealed",
        Refused("rings: the ring's memory: sealed with"),
    ),
    attack(
        "rings-shrinkable",
        Refused("rings: the ring's memory: sealed with"),
    ),
    attack(
        "rings-writable",
        Refused("rings: the ring's memory: sealed with"),
    ),
    attack(
        "rings-short",
        Refused("rings: the ring's memory: 69631 bytes long, announced are 69632"),
    ),
    attack(
        "rings-pipe",
        Refused("rings: the ring's memory: it cannot be sealed"),
    ),
    attack(
        "rings-alarm-pipe",
        Refused("rings: the alarm: not an event counter"),
    ),
    attack(
        "rings-alarm-memory",
        Refused("rings: the alarm: not an event counter"),
    ),
    attack(
        "rings-alarm-blocks",
        Refused("rings: the alarm: it may block"),
    ),
    attack(
        "rings-index-wild",
        Refused("rings: its write index is 18446744073709551615 where 0 bytes were read"),
    ),
    // The table of interfaces.
    attack(
        "table-differs",
        Refused("the sides do not mean the same by: "),
    ),
    attack("table-garbage", Refused("an interface table: ")),
    attack("table-of-megabytes", Refused("an interface table of ")),
    attack("table-late", Refused("a frame of kind 7 before the table")),
    attack("table-unasked", Broken("frame kind 10")),
    // What it says of itself.
    attack(
        "facts-none",
        Refused("the host does not report what confines it"),
    ),
    attack(
        "facts-garbage",
        Refused("reply of portcullis-actors.ConfigureHost"),
    ),
    // Frames that are none.
    attack(
        "frame-oversize",
        Broken("a frame of 16777217 bytes exceeds the limit of 16777216 bytes"),
    ),
    attack(
        "frame-largest",
        Broken("a frame of 4294967295 bytes exceeds the limit"),
    ),
    attack(
        "frame-cut-in-header",
        Broken("the link ended 10 bytes into a frame"),
    ),
    attack(
        "frame-cut-in-body",
        Broken("the link ended 132 bytes into a frame"),
    ),
    attack("frame-unknown", Broken("frame kind 99")),
    attack("frame-zeros", Broken("frame kind 0")),
    attack("frame-noise", Broken("a frame of ")),
    attack("silence", Lost("it does not answer")),
    attack("silence-in-header", Lost("it does not answer")),
    attack("silence-in-body", Lost("it does not answer")),
    attack("drip", Lost("it does not answer")),
    // Replies.
    attack(
        "reply-to-nothing",
        Broken("a reply to a call that was not made"),
    ),
    attack("reply-twice", Broken("a reply to a call that was not made")),
    attack(
        "reply-to-an-old-call",
        Broken("a reply to a call that was not made"),
    ),
    attack("reply-cancelled", Broken("CreateObject was not cancelled")),
    attack(
        "reply-empty",
        Broken("reply of portcullis-actors.CreateObject"),
    ),
    attack(
        "reply-of-another-type",
        Broken("reply of portcullis-actors.CreateObject"),
    ),
    attack(
        "reply-utf8",
        Broken("reply of portcullis-actors.CreateObject"),
    ),
    attack(
        "reply-of-gigabytes",
        Broken("reply of portcullis-actors.CreateObject"),
    ),
    attack(
        "reply-of-a-trillion-streams",
        Broken("reply of portcullis-actors.CreateObject"),
    ),
    attack(
        "reply-with-more-behind",
        Broken("reply of portcullis-actors.CreateObject: 3 bytes behind the message"),
    ),
    attack(
        "reply-error-garbage",
        Broken("error of portcullis-actors.CreateObject"),
    ),
    attack("reply-error-of-megabytes", Harmless),
    // Handles.
    attack("handle-of-a-third-host", Broken("an actor in host 77")),
    attack("handle-never-given", Broken("object 12 does not exist")),
    attack(
        "handle-of-another-interface",
        Broken("an object under another interface"),
    ),
    attack(
        "handle-of-two-interfaces",
        Broken("an object under another interface"),
    ),
    attack(
        "handle-that-is-not-a-source",
        Broken("a handle that is not a"),
    ),
    attack(
        "exports-ten-thousand",
        Broken("more imported objects than agreed"),
    ),
    // Calls.
    attack("call-foreign-object", Broken("object 9 does not exist")),
    attack("call-future-generation", Broken("object 0 does not exist")),
    attack("call-released-object", Harmless),
    attack("call-unknown-method", Harmless),
    attack("call-garbage", Broken("portcullis-actors.OpenUrl: ")),
    attack("call-utf8", Broken("portcullis-actors.OpenUrl: ")),
    attack("call-of-gigabytes", Broken("portcullis-actors.OpenUrl: ")),
    attack(
        "call-with-more-behind",
        Broken("portcullis-actors.OpenUrl: 4 bytes behind the message"),
    ),
    attack("call-same-id", Broken("two calls with one id")),
    attack(
        "call-without-its-trace",
        Broken("a traced call without its trace"),
    ),
    attack("cancel-of-nothing", Harmless),
    // Counts.
    attack(
        "release-of-nothing",
        Broken("a release of what was not given"),
    ),
    attack(
        "release-too-many",
        Broken("a release of what was not given"),
    ),
    attack("release-twice", Broken("a release of what was not given")),
    attack(
        "release-stale-generation",
        Broken("a release of what was not given"),
    ),
    attack("release-none", Harmless),
    attack("release-watched-none", Harmless),
    attack(
        "release-watched-twice",
        Broken("a release of what was not given"),
    ),
    // The end of actors.
    attack("death-of-strangers", Harmless),
    attack("death-garbage", Broken("end of object 1")),
    attack("death-of-the-living", Harmless),
    attack("death-as-another", Harmless),
    // Descriptors.
    attack(
        "descriptors-with-a-ping",
        Broken("descriptors with a frame of kind 7"),
    ),
    attack("descriptors-unannounced", Broken("descriptors")),
    attack(
        "descriptors-missing",
        Broken("a frame announces 3 descriptors, 0 came"),
    ),
    attack(
        "descriptors-thirty",
        Broken("a frame announces 30 descriptors, the limit is 16"),
    ),
    attack(
        "descriptors-at-once",
        Broken("more than 16 descriptors in one message"),
    ),
    attack("descriptors-thousand", Harmless),
    // Segments of shared memory.
    attack("segment-without-seals", Broken("sealed with")),
    attack("segment-shrinkable", Broken("sealed with")),
    attack("segment-writable", Broken("sealed with")),
    attack("segment-socket", Broken("it cannot be sealed")),
    attack("segment-pipe", Broken("it cannot be sealed")),
    attack("segment-event", Broken("it cannot be sealed")),
    attack(
        "segment-short",
        Broken("4096 bytes long, announced are 8192"),
    ),
    attack("segment-twice", Broken("the id is in use")),
    attack(
        "segment-of-gigabytes",
        Broken("of 268435456 bytes in 0 of 1024 segments are mapped"),
    ),
    attack("segment-wild", Broken("with 1 descriptors")),
    attack("segment-of-nothing", Broken("0 slots of 4096 bytes")),
    attack("segment-odd", Broken("1 slots of 4095 bytes")),
    attack("segment-without-descriptor", Broken("with 0 descriptors")),
    attack("segment-two-descriptors", Broken("with 2 descriptors")),
    attack(
        "segment-thousands",
        Broken("in 1024 of 1024 segments are mapped"),
    ),
    attack(
        "segment-retired-unknown",
        Broken("there is no such segment"),
    ),
    attack("segment-retired-in-use", BrokenIdle("it is still lent")),
    // Slots.
    attack(
        "slot-without-segment",
        Broken("a reference outside of the pool"),
    ),
    attack(
        "slot-out-of-range",
        Broken("a reference outside of the pool"),
    ),
    attack("slot-too-long", Broken("a reference outside of the pool")),
    attack("slot-wild", Broken("a reference outside of the pool")),
    attack("slots-not-lent", Broken("release")),
    attack("slots-ragged", Broken("a malformed release of slots")),
    // Too much.
    attack("flood-unread", Broken("the peer does not read")),
    attack("flood-read", Harmless),
    attack(
        "flood-calls",
        Broken("more calls in flight to one object than agreed"),
    ),
    attack("flood-bytes", Broken("more bytes of calls in flight")),
    attack("flood-cancels", Harmless),
    attack("flood-deaths", Harmless),
    attack("flood-cancelled-calls", Harmless),
];
