//! Both ends of rings over shared memory that holds anything and changes at any moment: whatever the peer writes, nothing
//! beyond the ring is touched, nothing is read twice, and a lie is a fault.

use std::cell::{Cell, RefCell};

use portcullis_transport::FrameDecoder;

#[path = "../../transport/src/wire/rings/index.rs"]
#[allow(dead_code, unreachable_pub)]
mod index;

use index::{Consumer, Fault, Producer, Sleeper, Spans, Word, Words};

const MAX_FRAME: u32 = 4096;

/// What the peer wrote, and what it writes while it is looked at.
struct Shared<'a> {
    words: [Cell<u64>; 5],
    own: [Cell<u64>; 5],
    /// Values that the next looks find, whichever word they look at.
    ambush: RefCell<&'a [u8]>,
}

impl Words for Shared<'_> {
    fn publish(&self, word: Word, value: u64) {
        self.own[word as usize].set(value);
    }

    fn look(&self, word: Word) -> u64 {
        let mut ambush = self.ambush.borrow_mut();
        match ambush.split_first_chunk::<8>() {
            Some((value, rest)) => {
                *ambush = rest;
                u64::from_le_bytes(*value)
            }
            None => self.words[word as usize].get(),
        }
    }

    fn fence(&self) {}
}

/// Steps, each a byte that says what and one or more that say how.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn word(&mut self) -> u64 {
        let mut value = [0; 8];
        let taken = self.bytes(8);
        value[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(value)
    }
}

/// The first byte says how large the ring is.
pub(crate) fn run(data: &[u8]) {
    let mut script = Script(data);
    let Some(size) = script.byte() else {
        return;
    };
    let capacity = 1 << (6 + size % 6);
    let mut memory = vec![0; capacity];
    let shared = Shared {
        words: Default::default(),
        own: Default::default(),
        ambush: RefCell::new(&[]),
    };
    let mut consumer = Consumer::new(capacity);
    let mut producer = Producer::new(capacity);
    let mut sleepers = [Sleeper::new(Word::DataSleep), Sleeper::new(Word::RoomSleep)];
    let mut decoder = FrameDecoder::new(MAX_FRAME);
    let (mut read, mut written) = (0, 0);
    while let Some(step) = script.byte() {
        match step % 8 {
            0 => {
                let word = usize::from(script.byte().unwrap_or_default()) % 5;
                shared.words[word].set(script.word());
            }
            1 | 2 => {
                let word = &shared.words[usize::from(step % 8) - 1];
                let by = script.byte().unwrap_or_default();
                word.set(word.get().wrapping_add(by.into()));
            }
            3 => {
                let at = usize::from(script.byte().unwrap_or_default());
                let len = usize::from(script.byte().unwrap_or_default());
                for (index, byte) in script.bytes(len).iter().enumerate() {
                    memory[(at + index) % capacity] = *byte;
                }
            }
            4 => {
                let len = usize::from(script.byte().unwrap_or_default() % 4) * 8;
                shared.ambush.replace(script.bytes(len));
            }
            5 => {
                let most = usize::from(script.byte().unwrap_or_default());
                let Some(available) = sound(consumer.available(&shared)) else {
                    break;
                };
                assert!(available <= capacity);
                let len = available.min(most);
                let mut fed = decoder.buffered();
                for (at, len) in checked(consumer.take(len), read, len, capacity) {
                    decoder.feed(&memory[at..at + len]);
                    fed += len;
                }
                read += len as u64;
                let _ = consumer.release(&shared);
                assert_eq!(shared.own[Word::Head as usize].get(), read);
                while let Ok(Some(frame)) = decoder.next_frame() {
                    assert!(frame.body.len() <= MAX_FRAME as usize);
                }
                assert!(decoder.buffered() <= fed);
            }
            6 => {
                let wanted = usize::from(script.byte().unwrap_or_default());
                let Some(room) = sound(producer.room(&shared, wanted)) else {
                    break;
                };
                assert!(room <= capacity);
                let len = room.min(wanted);
                checked(producer.claim(len), written, len, capacity);
                written += len as u64;
                let _ = producer.publish(&shared);
                assert_eq!(shared.own[Word::Tail as usize].get(), written);
            }
            _ => {
                let sleeper = &mut sleepers[usize::from(step >> 7)];
                match sleeper.is_asleep() {
                    true => sleeper.wake_up(&shared),
                    false => sleeper.fall_asleep(&shared),
                }
            }
        }
    }
}

/// A fault is told and ends the link.
fn sound(outcome: Result<usize, Fault>) -> Option<usize> {
    outcome
        .inspect_err(|fault| assert!(fault.to_string().contains("index")))
        .ok()
}

/// The pieces are those that the count means, and within the ring.
fn checked(spans: Spans, from: u64, len: usize, capacity: usize) -> Spans {
    let [(start, first), (again, second)] = spans;
    assert_eq!(first + second, len);
    assert_eq!(start as u64, from % capacity as u64);
    assert!(again == 0 && start + first <= capacity && second <= start);
    spans
}
