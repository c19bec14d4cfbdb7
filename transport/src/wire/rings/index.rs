//! The indices of a ring: who may write how much, what may be read, and who must be woken.
//!
//! This file knows neither memory nor processes: it says in which order which word is read and written, and checks what
//! the peer wrote. So the loom models (`tests/loom_ring.rs`) and the fuzz target include it as it is.
//!
//! Each word lies in the memory of the one side that writes it. Indices count bytes since the link began and never wrap:
//! that would take centuries. A side that waits says so in a word that is odd while it sleeps and different for each sleep;
//! the other wakes it once for each. Neither can miss the other: both first write their own word, then pass a full fence,
//! then look at the other's.

/// A word in the header of a side's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Bytes that this side has written into its ring.
    Tail,
    /// Bytes of the other side's ring that this side has read.
    Head,
    /// Not zero when no more bytes will be written.
    Finished,
    /// Odd while this side sleeps until there is something to read.
    DataSleep,
    /// Odd while this side sleeps until there is room to write.
    RoomSleep,
}

/// What a process can do with both headers: it writes only its own words, and reads only the peer's.
pub(crate) trait Words {
    /// Writes a word of its own after everything before it.
    fn publish(&self, word: Word, value: u64);
    /// Reads a word of the peer's before everything after it.
    fn look(&self, word: Word) -> u64;
    /// Orders all before it and all after it for everybody (a sequentially consistent fence).
    fn fence(&self);
}

/// What a peer must not do with its indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The count of bytes written went from one value to a smaller one.
    TailBackwards(u64, u64),
    /// More bytes were said to be written than the ring holds: the count, and the bytes read.
    TailWild(u64, u64),
    /// The count of bytes read went from one value to a smaller one.
    HeadBackwards(u64, u64),
    /// More bytes were said to be read than were written: the count, and the bytes written.
    HeadWild(u64, u64),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TailBackwards(was, is) => {
                write!(f, "its write index runs backwards, from {was} to {is}")
            }
            Self::TailWild(is, read) => {
                write!(f, "its write index is {is} where {read} bytes were read")
            }
            Self::HeadBackwards(was, is) => {
                write!(f, "its read index runs backwards, from {was} to {is}")
            }
            Self::HeadWild(is, written) => {
                write!(
                    f,
                    "its read index is {is} where {written} bytes were written"
                )
            }
        }
    }
}

/// Up to two pieces of a ring, each an offset and a length: what is contiguous in the count may wrap in memory.
pub(crate) type Spans = [(usize, usize); 2];

/// The side that writes a ring.
#[derive(Debug)]
pub(crate) struct Producer {
    capacity: u64,
    tail: u64,
    /// The peer's read index when it was last looked at.
    head: u64,
    woken: u64,
}

impl Producer {
    /// Of a new ring of so many bytes, a power of two.
    pub(crate) fn new(capacity: usize) -> Self {
        debug_assert!(capacity.is_power_of_two());
        Self {
            capacity: capacity as u64,
            tail: 0,
            head: 0,
            woken: 0,
        }
    }

    /// Bytes that can be written. The peer's index is looked at only if fewer than `wanted` are known to be free.
    pub(crate) fn room(&mut self, words: &impl Words, wanted: usize) -> Result<usize, Fault> {
        if self.free() < wanted as u64 {
            let head = words.look(Word::Head);
            if head < self.head {
                return Err(Fault::HeadBackwards(self.head, head));
            }
            if head > self.tail {
                return Err(Fault::HeadWild(head, self.tail));
            }
            self.head = head;
        }
        Ok(self.free() as usize)
    }

    /// Where the next `len` bytes go, of which there is room. They are the peer's once they are published.
    pub(crate) fn claim(&mut self, len: usize) -> Spans {
        debug_assert!(len as u64 <= self.free());
        let spans = spans(self.capacity, self.tail, len);
        self.tail += len as u64;
        spans
    }

    /// Gives the peer all that was claimed; says whether it must be woken.
    #[must_use]
    pub(crate) fn publish(&mut self, words: &impl Words) -> bool {
        words.publish(Word::Tail, self.tail);
        must_wake(words, Word::DataSleep, &mut self.woken)
    }

    /// Says that no more will be written; and whether the peer must be woken to hear it.
    #[must_use]
    pub(crate) fn finish(&mut self, words: &impl Words) -> bool {
        words.publish(Word::Finished, 1);
        must_wake(words, Word::DataSleep, &mut self.woken)
    }

    fn free(&self) -> u64 {
        // `head <= tail <= head + capacity` holds from the first: the peer's values are checked and only room is claimed.
        self.capacity - (self.tail - self.head)
    }
}

/// The side that reads a ring.
#[derive(Debug)]
pub(crate) struct Consumer {
    capacity: u64,
    head: u64,
    /// The peer's write index when it was last looked at.
    tail: u64,
    woken: u64,
}

impl Consumer {
    /// Of a new ring of so many bytes, a power of two.
    pub(crate) fn new(capacity: usize) -> Self {
        debug_assert!(capacity.is_power_of_two());
        Self {
            capacity: capacity as u64,
            head: 0,
            tail: 0,
            woken: 0,
        }
    }

    /// Bytes that can be read, as the peer says now.
    pub(crate) fn available(&mut self, words: &impl Words) -> Result<usize, Fault> {
        let tail = words.look(Word::Tail);
        if tail < self.tail {
            return Err(Fault::TailBackwards(self.tail, tail));
        }
        if tail - self.head > self.capacity {
            return Err(Fault::TailWild(tail, self.head));
        }
        self.tail = tail;
        Ok(self.known())
    }

    /// Bytes that can be read, as the peer said when it was last looked at.
    pub(crate) fn known(&self) -> usize {
        (self.tail - self.head) as usize
    }

    /// Where the next `len` bytes are, which are available. The peer may overwrite them once they are released.
    pub(crate) fn take(&mut self, len: usize) -> Spans {
        debug_assert!(len <= self.known());
        let spans = spans(self.capacity, self.head, len);
        self.head += len as u64;
        spans
    }

    /// Gives all that was taken back to the peer; says whether it must be woken.
    #[must_use]
    pub(crate) fn release(&mut self, words: &impl Words) -> bool {
        words.publish(Word::Head, self.head);
        must_wake(words, Word::RoomSleep, &mut self.woken)
    }
}

/// Says to the peer whether this side sleeps.
#[derive(Debug)]
pub(crate) struct Sleeper {
    word: Word,
    epoch: u64,
}

impl Sleeper {
    pub(crate) fn new(word: Word) -> Self {
        Self { word, epoch: 0 }
    }

    pub(crate) fn is_asleep(&self) -> bool {
        !self.epoch.is_multiple_of(2)
    }

    /// From here on the peer wakes this side, once. What was waited for must be looked at again after this.
    pub(crate) fn fall_asleep(&mut self, words: &impl Words) {
        if !self.is_asleep() {
            self.epoch = self.epoch.wrapping_add(1);
            words.publish(self.word, self.epoch);
            words.fence();
        }
    }

    /// Needs no waking any more. Required after a wake-up: the peer does not repeat it for the same sleep.
    pub(crate) fn wake_up(&mut self, words: &impl Words) {
        if self.is_asleep() {
            self.epoch = self.epoch.wrapping_add(1);
            words.publish(self.word, self.epoch);
        }
    }
}

/// Whether the peer sleeps and was not woken for this sleep; from now on it counts as woken.
fn must_wake(words: &impl Words, sleep: Word, woken: &mut u64) -> bool {
    words.fence();
    let epoch = words.look(sleep);
    if epoch.is_multiple_of(2) || epoch == *woken {
        return false;
    }
    *woken = epoch;
    true
}

fn spans(capacity: u64, from: u64, len: usize) -> Spans {
    let start = (from & (capacity - 1)) as usize;
    let first = len.min(capacity as usize - start);
    [(start, first), (0, len - first)]
}
