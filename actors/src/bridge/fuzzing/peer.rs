//! The side that says what the script says.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::Bytes;
use portcullis_engine::media::{PayloadPort, PayloadRef, with_payload_port};
use portcullis_engine::{Error, ErrorKind, MediaTime, Payload, Sample};
use portcullis_transport::{
    Endpoint, FrameHeader, Hello, Lender, LenderLimits, LinkLimits, LinkReceiver, LinkSender, Pool,
    PoolLimits, PoolNews, TransportError,
};

use super::script::Script;
use super::toy::{Echo, Many, Show, Stop, Swap, Toy, Wait};
use crate::bridge::link::kind;
use crate::bridge::{Interface, Remote};

/// Bytes that wait for the other side before the script has to wait too.
const MOST_QUEUED: usize = 256 << 10;

/// A peer of which only the frames are made here.
pub(super) struct RawPeer {
    sender: LinkSender,
    receiver: LinkReceiver,
    /// Calls that the other side has made: ids, methods, bodies.
    calls: Vec<(u64, u32, Bytes)>,
    last: Option<(FrameHeader, Vec<u8>)>,
    lender: Lender,
    lent: Vec<Bytes>,
}

impl RawPeer {
    /// `None` on a machine that is too busy to shake hands in time.
    pub(super) async fn connect(
        endpoint: Endpoint,
        limits: LinkLimits,
        table: u64,
    ) -> Option<Self> {
        let hello = Hello {
            interface_table: table,
            limits,
            host_id: 1,
            ..Hello::default()
        };
        let link = match endpoint.connect(hello).await {
            Ok(link) => link,
            Err(TransportError::Timeout { .. } | TransportError::Closed) => return None,
            Err(error) => panic!("both sides fit: {error}"),
        };
        actix_rt::spawn(link.writer);
        let pool = Pool::new(PoolLimits {
            max_bytes: 256 << 10,
        });
        Some(Self {
            sender: link.sender,
            receiver: link.receiver,
            calls: Vec::new(),
            last: None,
            lender: Lender::new(pool, LenderLimits::alone(256 << 10)),
            lent: Vec::new(),
        })
    }

    pub(super) fn close(&self) {
        self.sender.close();
    }

    /// Reads what the other side has said.
    pub(super) fn listen(&mut self) {
        let mut frames = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        // Its end is the other side's to tell.
        let _ = self.receiver.poll_receive(&mut context, &mut frames);
        for frame in frames {
            if frame.header.kind == kind::CALL && self.calls.len() < 64 {
                let header = frame.header;
                self.calls.push((header.call, header.method, frame.body));
            }
        }
    }

    pub(super) fn act(&mut self, script: &mut Script<'_>) {
        let mut descriptors = Vec::new();
        let (header, body) = match script.byte() % 16 {
            0..3 => (self.header(kind::CALL, script), body(script)),
            3 | 4 => (self.header(kind::REPLY, script), body(script)),
            5 | 6 => match self.honest_reply(script) {
                Some(reply) => reply,
                None => return,
            },
            7 => (self.header(kind::CANCEL, script), Vec::new()),
            8 => (self.header(kind::RELEASE, script), Vec::new()),
            9 => (self.header(kind::SLOTS, script), slots(script)),
            10 => match self.segment(script) {
                Some((header, file)) => {
                    descriptors.push(file);
                    (header, Vec::new())
                }
                None => (self.header(kind::SEGMENT, script), Vec::new()),
            },
            11 => (self.header(kind::PING, script), Vec::new()),
            12 => (self.header(kind::DEATH, script), body(script)),
            13 => match self.last.clone() {
                Some(last) => last,
                None => return,
            },
            _ => {
                let any = u16::from(script.byte());
                (self.header(any, script), body(script))
            }
        };
        if script.byte() > 250 {
            descriptors.extend(std::fs::File::open("/dev/null").map(OwnedFd::from));
        }
        if self.sender.queued_bytes() < MOST_QUEUED {
            // A link that has ended, or that carries no descriptors, takes nothing.
            let _ = self.sender.push(header, &[&body], descriptors);
        }
        self.last = Some((header, body));
    }

    /// A header with ids that exist, or nearly do.
    fn header(&self, kind: u16, script: &mut Script<'_>) -> FrameHeader {
        const METHODS: [u32; 6] = [Echo::ID, Wait::ID, Swap::ID, Show::ID, Many::ID, Stop::ID];
        let heard = &self.calls;
        let call = match script.byte() {
            at @ ..128 if !heard.is_empty() => heard[usize::from(at) % heard.len()].0,
            _ => script.number(),
        };
        let method = match script.byte() {
            at @ ..240 => METHODS[usize::from(at) % METHODS.len()],
            _ => script.number() as u32,
        };
        FrameHeader {
            kind,
            flags: match script.byte() {
                ..150 => 0,
                flags => u16::from(flags % 8) << 13,
            },
            object: script.number() as u32,
            generation: script.number() as u32,
            call,
            method,
            ..FrameHeader::default()
        }
    }

    /// What an honest peer would answer one of the calls.
    fn honest_reply(&mut self, script: &mut Script<'_>) -> Option<(FrameHeader, Vec<u8>)> {
        if self.calls.is_empty() {
            return None;
        }
        let (call, method, asked) = self.calls.remove(script.below(self.calls.len()));
        let reply = match method {
            method if method == Wait::ID || method == Stop::ID => Vec::new(),
            method if method == Swap::ID => encode(&Some(handle(script))),
            // As it came: numbers mean the other side's objects there and back.
            _ => asked.to_vec(),
        };
        let header = FrameHeader {
            kind: kind::REPLY,
            call,
            ..FrameHeader::default()
        };
        Some((header, reply))
    }

    /// A sound segment of memory, announced as it is or nearly so.
    fn segment(&mut self, script: &mut Script<'_>) -> Option<(FrameHeader, OwnedFd)> {
        let len = script.below(20_000) + 1;
        let slot = self.lender.pool().allocate(len).ok()?.freeze();
        self.lender.lease(&slot).ok()??;
        self.lent.push(slot);
        let news = self.lender.take_news();
        let added = news.into_iter().find_map(|news| match news {
            PoolNews::Added {
                segment,
                slot_size,
                slots,
                descriptor,
            } => Some((segment, slot_size, slots, descriptor)),
            _ => None,
        });
        let (segment, slot_size, slots, descriptor) = added?;
        let mut header = FrameHeader {
            kind: kind::SEGMENT,
            object: segment,
            call: u64::from(slot_size),
            method: slots,
            ..FrameHeader::default()
        };
        match script.byte() {
            ..200 => {}
            200..220 => header.object = script.number() as u32,
            220..240 => header.call = script.number(),
            _ => header.method = script.number() as u32,
        }
        Some((header, descriptor))
    }
}

impl Drop for RawPeer {
    fn drop(&mut self) {
        // Its writer is a task, which waits for more to write.
        self.sender.abort(TransportError::Closed);
    }
}

/// A handle as it is on the wire.
fn handle(script: &mut Script<'_>) -> (u64, u32, u32, u32) {
    let host = match script.byte() {
        0..100 => 0,
        100..240 => 1,
        _ => script.number(),
    };
    let (id, generation) = (script.number() as u32, script.number() as u32);
    let interface = match script.byte() {
        ..245 => Toy::ID,
        _ => script.number() as u32,
    };
    (host, id, generation, interface)
}

/// A body of some message or reply, perhaps damaged.
fn body(script: &mut Script<'_>) -> Vec<u8> {
    let mut body = match script.byte() % 10 {
        0 => Vec::new(),
        1 => {
            let len = script.below(200);
            script.bytes(len).to_vec()
        }
        2 => encode(&vec![5_u8; script.below(10_000)]),
        3 | 4 => encode(&Some(handle(script))),
        5 => sample(PayloadRef::Inline(vec![6; script.below(3000)].into())),
        6 | 7 => sample(PayloadRef::Slot([0; 5].map(|_| script.number() as u32))),
        8 => {
            let count = script.below(24);
            encode(&(0..count).map(|_| handle(script)).collect::<Vec<_>>())
        }
        _ => encode(&Error::new(ErrorKind::ActorStopped)),
    };
    if script.byte() > 220 && !body.is_empty() {
        let at = script.below(body.len());
        body[at] ^= 1 << (script.byte() % 8);
    }
    if script.byte() > 240 {
        body.truncate(script.below(body.len() + 1));
    }
    body
}

fn slots(script: &mut Script<'_>) -> Vec<u8> {
    let words = script.below(3) * 4 + usize::from(script.byte() > 240);
    let words = (0..words).map(|_| script.number() as u32);
    words.flat_map(u32::to_le_bytes).collect()
}

/// A sample whose payload is said to be there.
fn sample(at: PayloadRef) -> Vec<u8> {
    struct Said(PayloadRef);
    impl PayloadPort for Said {
        fn export(&mut self, _: &Payload) -> Result<PayloadRef, String> {
            Ok(self.0.clone())
        }
        fn import(&mut self, _: PayloadRef) -> Result<Payload, String> {
            Err("nothing is read here".to_owned())
        }
    }
    let sample = Sample::new(MediaTime::ZERO, MediaTime::ZERO, vec![0; 8]);
    let port: Rc<RefCell<dyn PayloadPort>> = Rc::new(RefCell::new(Said(at)));
    with_payload_port(&port, || encode(&sample))
}

fn encode(value: &impl serde::Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain values have a form")
}
