//! The indices and the sleep of a ring under every order in which two processors may see each other's writes, as far as
//! loom explores them (`LOOM_MAX_PREEMPTIONS`, 3 unless set).
//!
//! What is modelled is the file that the wire uses, included as it is; here its words are loom's atomics, and an alarm is a
//! flag that is waited for. If one side could miss the other, it would sleep for ever, which loom reports.

#![allow(clippy::unwrap_used)]

use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};

#[path = "../src/wire/rings/index.rs"]
#[allow(dead_code, unreachable_pub)]
mod index;

use index::{Consumer, Producer, Sleeper, Word, Words};

const CAPACITY: usize = 2;

/// What one side writes: words and bytes. And its alarm, which the other rings.
#[derive(Default)]
struct Side {
    words: [AtomicU64; 5],
    bytes: [AtomicU8; CAPACITY],
    is_rung: Mutex<bool>,
    alarm: Condvar,
}

impl Side {
    fn ring(&self) {
        *self.is_rung.lock().unwrap() = true;
        self.alarm.notify_one();
    }

    fn wait(&self) {
        let mut is_rung = self.is_rung.lock().unwrap();
        while !*is_rung {
            is_rung = self.alarm.wait(is_rung).unwrap();
        }
        *is_rung = false;
    }
}

/// Both sides, seen from one of them.
#[derive(Clone)]
struct View {
    own: Arc<Side>,
    peer: Arc<Side>,
    /// Without the fence it must go wrong, or the models show nothing.
    has_fence: bool,
}

impl View {
    fn pair(has_fence: bool) -> (Self, Self) {
        let (one, two) = (Arc::<Side>::default(), Arc::<Side>::default());
        let view = |own: &Arc<Side>, peer: &Arc<Side>| Self {
            own: Arc::clone(own),
            peer: Arc::clone(peer),
            has_fence,
        };
        (view(&one, &two), view(&two, &one))
    }

    /// The writing half of the wire, of which this is the order of steps.
    fn write(&self, producer: &mut Producer, sleeper: &mut Sleeper, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = producer.room(self, rest.len()).expect("honest indices");
            if room == 0 {
                if sleeper.is_asleep() {
                    self.own.wait();
                    sleeper.wake_up(self);
                } else {
                    sleeper.fall_asleep(self);
                }
                continue;
            }
            sleeper.wake_up(self);
            let (now, later) = rest.split_at(room.min(rest.len()));
            let mut now = now.iter();
            for (at, len) in producer.claim(now.len()) {
                for (place, byte) in self.own.bytes[at..at + len].iter().zip(&mut now) {
                    place.store(*byte, Ordering::Relaxed);
                }
            }
            if producer.publish(self) {
                self.peer.ring();
            }
            rest = later;
        }
    }

    /// The reading half: so many bytes.
    fn read(&self, consumer: &mut Consumer, sleeper: &mut Sleeper, count: usize) -> Vec<u8> {
        let mut read = Vec::new();
        while read.len() < count {
            let available = consumer.available(self).expect("honest indices");
            if available == 0 {
                if !sleeper.is_asleep() {
                    sleeper.fall_asleep(self);
                } else if self.look(Word::Finished) != 0 {
                    if consumer.available(self) == Ok(0) {
                        break;
                    }
                } else {
                    self.own.wait();
                    sleeper.wake_up(self);
                }
                continue;
            }
            sleeper.wake_up(self);
            for (at, len) in consumer.take(available) {
                let places = &self.peer.bytes[at..at + len];
                read.extend(places.iter().map(|place| place.load(Ordering::Relaxed)));
            }
            if consumer.release(self) {
                self.peer.ring();
            }
        }
        read
    }
}

impl Words for View {
    fn publish(&self, word: Word, value: u64) {
        self.own.words[word as usize].store(value, Ordering::Release);
    }

    fn look(&self, word: Word) -> u64 {
        let value = self.peer.words[word as usize].load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        value
    }

    fn fence(&self) {
        if self.has_fence {
            fence(Ordering::SeqCst);
        }
    }
}

fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(run);
}

fn producer() -> (Producer, Sleeper) {
    (Producer::new(CAPACITY), Sleeper::new(Word::RoomSleep))
}

fn consumer() -> (Consumer, Sleeper) {
    (Consumer::new(CAPACITY), Sleeper::new(Word::DataSleep))
}

fn every_byte_arrives(has_fence: bool, pieces: &'static [&'static [u8]]) {
    model(move || {
        let (near, far) = View::pair(has_fence);
        let writing = loom::thread::spawn(move || {
            let (mut producer, mut sleeper) = producer();
            for piece in pieces {
                near.write(&mut producer, &mut sleeper, piece);
            }
        });
        let (mut consumer, mut sleeper) = consumer();
        let expected = pieces.concat();
        let read = far.read(&mut consumer, &mut sleeper, expected.len());
        assert_eq!(read, expected);
        writing.join().unwrap();
    });
}

#[test]
fn a_reader_that_sleeps_is_woken_and_reads_what_was_written() {
    every_byte_arrives(true, &[&[1], &[2]]);
}

#[test]
fn a_writer_that_sleeps_is_woken_when_there_is_room() {
    every_byte_arrives(true, &[&[1, 2, 3]]);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fence_one_would_sleep_for_ever() {
    every_byte_arrives(false, &[&[1]]);
}

#[test]
fn the_end_is_heard_and_nothing_before_it_is_lost() {
    model(|| {
        let (near, far) = View::pair(true);
        let writing = loom::thread::spawn(move || {
            let (mut producer, mut sleeper) = producer();
            near.write(&mut producer, &mut sleeper, &[7]);
            if producer.finish(&near) {
                near.peer.ring();
            }
        });
        let (mut consumer, mut sleeper) = consumer();
        assert_eq!(far.read(&mut consumer, &mut sleeper, 2), [7]);
        writing.join().unwrap();
    });
}

#[test]
fn a_question_is_answered() {
    model(|| {
        let (near, far) = View::pair(true);
        let answering = loom::thread::spawn(move || {
            let (mut consumer, mut sleeper) = consumer();
            let question = far.read(&mut consumer, &mut sleeper, 1);
            let (mut producer, mut sleeper) = producer();
            far.write(&mut producer, &mut sleeper, &question);
        });
        let (mut producer, mut waits) = producer();
        near.write(&mut producer, &mut waits, &[5]);
        let (mut consumer, mut sleeper) = consumer();
        assert_eq!(near.read(&mut consumer, &mut sleeper, 1), [5]);
        answering.join().unwrap();
    });
}
