//! Two rings in shared memory as a wire: each side writes one and reads the other's.
//!
//! A side's memory can be written by nobody else, so the peer can neither scribble on its bytes nor on its indices. What the
//! peer says in its own memory is read once and checked ([`index`]); its bytes are copied once into private memory and
//! parsed there, as if they had come over a socket.
//!
//! The Unix socket of the handshake stays. It is the lifeline: its end is the link's. And it carries descriptors, which
//! memory cannot: right after the first bytes of a frame that announces some, its descriptors follow over the socket with a
//! running number. A reader that has such a frame before it waits for them; descriptors for which no frame has begun are
//! refused. So there is never more than one such message to keep, and neither the number nor the count is a choice.
//!
//! A side without anything to read spins for a while where that pays ([`spin`]), then says that it sleeps, looks once more,
//! and waits for its alarm.

mod index;
mod lifeline;
mod offer;
mod spin;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::task::coop;

use super::{Wire, WireReader, WireWriter};
use crate::error::TransportError;
use crate::frame::{FrameDecoder, HEADER_LEN};
use crate::handshake::Features;
use crate::sys::alarm::{Alarm, Bell};
use crate::sys::ring::{OwnRing, PeerRing};
use index::{Consumer, Fault, Producer, Sleeper, Word, Words};
use lifeline::{Half, Lifeline};
use spin::Spinner;

pub(crate) use offer::Offer;

/// Most bytes read at once, so that frames keep no more alive than with a socket.
const MAX_READ: usize = 64 << 10;
/// How many reads there are between two looks at the socket, if there is always something in the ring.
const READS_PER_LOOK: u32 = 32;
/// How often the peer's index is looked at before other tasks of the thread have their turn.
const LOOKS_PER_TURN: usize = 2;
/// How many such turns there are before other threads have the processor, if they wait for it: asking costs as much as several.
const TURNS_PER_YIELD: u32 = 4;

/// What both halves share.
struct Rings {
    own: OwnRing,
    peer: PeerRing,
    alarm: Alarm,
    bell: Bell,
    lifeline: Lifeline,
}

impl Rings {
    fn new(
        own: OwnRing,
        peer: PeerRing,
        alarm: Alarm,
        bell: Bell,
        socket: Arc<UnixStream>,
    ) -> Self {
        Self {
            own,
            peer,
            alarm,
            bell,
            lifeline: Lifeline::new(socket),
        }
    }

    fn into_wire(self, may_spin: bool, features: Features) -> Wire {
        let rings = Rc::new(self);
        Wire {
            writer: Box::new(RingWriter {
                producer: Producer::new(rings.own.capacity()),
                sleeper: Sleeper::new(Word::RoomSleep),
                owed: None,
                rings: Rc::clone(&rings),
            }),
            reader: Box::new(RingReader {
                consumer: Consumer::new(rings.peer.capacity()),
                sleeper: Sleeper::new(Word::DataSleep),
                spinner: Spinner::new(may_spin),
                wait: None,
                reads: 0,
                ends: false,
                rings,
            }),
            features,
            rings: None,
        }
    }

    /// Whether the alarm was rung. Rung for one half it is a reason to look for both.
    fn poll_alarm(&self, half: Half, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        let rung = self
            .lifeline
            .as_half(half, cx, |cx| self.alarm.poll_rung(cx));
        if rung.is_ready() {
            self.lifeline.wake_other(half);
        }
        rung
    }

    fn ring_if(&self, must_wake: bool) -> Result<(), TransportError> {
        if must_wake {
            self.bell.ring()?;
        }
        Ok(())
    }
}

impl Words for Rings {
    fn publish(&self, word: Word, value: u64) {
        self.own.store(place(word), value);
    }

    fn look(&self, word: Word) -> u64 {
        self.peer.load(place(word))
    }

    fn fence(&self) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }
}

/// Where a word is in the header: each on two cache lines of its own, which processors fetch in pairs.
const fn place(word: Word) -> usize {
    match word {
        Word::Tail => 0,
        Word::Head => 128,
        Word::DataSleep => 256,
        Word::RoomSleep => 384,
        Word::Finished => 512,
    }
}

fn broken(fault: Fault) -> TransportError {
    TransportError::protocol(format!("rings: {fault}"))
}

struct RingWriter {
    rings: Rc<Rings>,
    producer: Producer,
    sleeper: Sleeper,
    /// Bytes of the current write that are in the ring while their descriptors are still to go.
    owed: Option<usize>,
}

impl WireWriter for RingWriter {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        descriptors: &[OwnedFd],
    ) -> Poll<Result<usize, TransportError>> {
        let rings = &*self.rings;
        rings.lifeline.poll(Half::Writer, cx)?;
        if rings.lifeline.has_ended() {
            return Poll::Ready(Err(TransportError::Closed));
        }
        if self.owed.is_none() {
            let written = ready!(self.poll_bytes(cx, bytes, descriptors.is_empty()))?;
            if descriptors.is_empty() {
                return Poll::Ready(Ok(written));
            }
            self.owed = Some(written);
        }
        // The caller comes back with the same bytes and descriptors until they have gone.
        ready!(self.rings.lifeline.poll_send(cx, descriptors))?;
        Poll::Ready(Ok(self.owed.take().unwrap_or_default()))
    }

    fn poll_shutdown(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        let must_wake = self.producer.finish(&*self.rings);
        Poll::Ready(self.rings.ring_if(must_wake))
    }

    fn abort(&mut self) {
        self.rings.lifeline.shut();
    }
}

impl RingWriter {
    fn poll_bytes(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        may_split: bool,
    ) -> Poll<Result<usize, TransportError>> {
        let rings = &*self.rings;
        // Whoever reads a frame's header knows what follows over the socket: it must be whole.
        let least = if may_split {
            1
        } else {
            HEADER_LEN.min(bytes.len())
        };
        let room = loop {
            let room = self.producer.room(rings, bytes.len()).map_err(broken)?;
            if room >= least {
                self.sleeper.wake_up(rings);
                break room;
            }
            if !self.sleeper.is_asleep() {
                // Once more: room that was made before the peer could see this is not announced.
                self.sleeper.fall_asleep(rings);
                continue;
            }
            ready!(rings.poll_alarm(Half::Writer, cx))?;
            self.sleeper.wake_up(rings);
        };
        let len = room.min(bytes.len());
        let mut rest = bytes;
        for (at, len) in self.producer.claim(len) {
            let (piece, behind) = rest.split_at(len);
            rings.own.write(at, piece);
            rest = behind;
        }
        let must_wake = self.producer.publish(rings);
        rings.ring_if(must_wake)?;
        Poll::Ready(Ok(len))
    }
}

struct RingReader {
    rings: Rc<Rings>,
    consumer: Consumer,
    sleeper: Sleeper,
    spinner: Spinner,
    wait: Option<Wait>,
    reads: u32,
    /// The peer has gone: what it had written by then is all that there is.
    ends: bool,
}

/// Since when there is nothing to read.
struct Wait {
    since: Instant,
    /// How long it spins.
    window: Duration,
    has_slept: bool,
    /// How often the other tasks of the thread have had their turn.
    turns: u32,
}

impl WireReader for RingReader {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut FrameDecoder,
    ) -> Poll<Result<usize, TransportError>> {
        // A peer that always has more must not keep this thread from other tasks.
        let budget = ready!(coop::poll_proceed(cx));
        let read = ready!(self.poll_some(cx, into));
        budget.made_progress();
        Poll::Ready(read)
    }
}

impl RingReader {
    fn poll_some(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut FrameDecoder,
    ) -> Poll<Result<usize, TransportError>> {
        loop {
            let due = into.descriptors_due();
            if due > 0 {
                if let Some(received) = self.rings.lifeline.take(due)? {
                    into.feed_descriptors(received);
                    return Poll::Ready(Ok(due));
                }
                if self.rings.lifeline.has_ended() {
                    return Poll::Ready(Ok(0));
                }
                if self.rings.lifeline.poll(Half::Reader, cx)? {
                    continue;
                }
                return Poll::Pending;
            }
            let available = self.available()?;
            if available > 0 {
                self.reads = self.reads.wrapping_add(1);
                if self.reads.is_multiple_of(READS_PER_LOOK) && !self.ends {
                    self.rings.lifeline.poll(Half::Reader, cx)?;
                }
                return Poll::Ready(self.read(available.min(MAX_READ), into));
            }
            if self.rings.lifeline.is_holding() {
                // The bytes of a frame are there before its descriptors.
                return Poll::Ready(Err(TransportError::protocol(
                    "rings: descriptors that no frame announces",
                )));
            }
            if self.ends {
                return Poll::Ready(Ok(0));
            }
            if !ready!(self.poll_more(cx))? {
                return Poll::Ready(Ok(0));
            }
        }
    }

    /// Bytes to read.
    fn available(&mut self) -> Result<usize, TransportError> {
        if self.ends {
            return Ok(self.consumer.known());
        }
        self.ends = self.rings.lifeline.has_ended();
        self.consumer.available(&*self.rings).map_err(broken)
    }

    fn read(&mut self, len: usize, into: &mut FrameDecoder) -> Result<usize, TransportError> {
        if let Some(wait) = self.wait.take() {
            self.sleeper.wake_up(&*self.rings);
            if !wait.window.is_zero() {
                self.spinner.end(wait.since.elapsed(), wait.has_slept);
            }
        }
        for (at, len) in self.consumer.take(len) {
            into.feed_with(|buffer| self.rings.peer.append_to(at, len, buffer));
        }
        let must_wake = self.consumer.release(&*self.rings);
        self.rings.ring_if(must_wake)?;
        Ok(len)
    }

    /// Waits until there may be something new; `false` when there will be nothing any more.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, TransportError>> {
        let rings = &*self.rings;
        let wait = self.wait.get_or_insert_with(|| Wait {
            since: Instant::now(),
            window: self.spinner.begin().unwrap_or_default(),
            has_slept: false,
            turns: 0,
        });
        if !wait.has_slept && !wait.window.is_zero() {
            for _ in 0..LOOKS_PER_TURN {
                std::hint::spin_loop();
                if self.consumer.available(rings).map_err(broken)? > 0 {
                    return Poll::Ready(Ok(true));
                }
            }
            if wait.since.elapsed() < wait.window {
                wait.turns = wait.turns.wrapping_add(1);
                if wait.turns.is_multiple_of(TURNS_PER_YIELD) {
                    // Whom the peer's answer depends on may wait for this processor.
                    std::thread::yield_now();
                }
                // After the other tasks of this thread.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        wait.has_slept = true;
        if !self.sleeper.is_asleep() {
            // Once more: what was written before the peer could see this is not announced.
            self.sleeper.fall_asleep(rings);
            return Poll::Ready(Ok(true));
        }
        if rings.look(Word::Finished) != 0 {
            // What it wrote last it wrote before.
            let last = self.consumer.available(rings).map_err(broken)?;
            return Poll::Ready(Ok(last > 0));
        }
        if rings.poll_alarm(Half::Reader, cx)?.is_ready() {
            self.sleeper.wake_up(rings);
            return Poll::Ready(Ok(true));
        }
        if rings.lifeline.poll(Half::Reader, cx)? {
            return Poll::Ready(Ok(true));
        }
        Poll::Pending
    }
}
