//! The bytes of a sample: private memory, or a view of memory that another process can still write.
//!
//! A payload that another process may write is never a slice: a Rust `&[u8]` promises that nobody
//! changes it. A [`SharedView`] therefore offers its length, reads of words, and copies.
//!
//! Payloads are written to a process wall through a [`PayloadPort`]: the bridge sets one for the time in
//! which it encodes or decodes a message, so that large payloads travel as slots of a shared pool instead of
//! inside the message.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::allocation::AllocationRequirements;
use crate::error::Error;

/// Memory that another process may be writing while it is read.
pub trait SharedView: Any + Send + Sync + fmt::Debug {
    /// Bytes in the view.
    fn len(&self) -> usize;
    /// Whether the view is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The little-endian word at byte `offset`, or `None` if it does not lie wholly in the view.
    fn read_u64(&self, offset: usize) -> Option<u64>;
    /// The little-endian words at `offset` and every `step` bytes behind it, as many as fit in `into` and lie wholly in the
    /// view; answers how many. Cheaper than one by one.
    fn read_u64s(&self, offset: usize, step: usize, into: &mut [u64]) -> usize {
        let mut at = offset;
        for (count, word) in into.iter_mut().enumerate() {
            let Some(found) = self.read_u64(at) else {
                return count;
            };
            *word = found;
            at = at.saturating_add(step);
        }
        into.len()
    }
    /// Copies the whole view into `target`, whose length must be the view's.
    fn copy_to(&self, target: &mut [u8]);
    /// Copies the view into private memory.
    fn to_bytes(&self) -> Bytes {
        let mut copy = vec![0; self.len()];
        self.copy_to(&mut copy);
        copy.into()
    }
}

/// The bytes of a sample.
#[derive(Clone)]
pub enum Payload {
    /// Memory that nobody writes any more.
    Bytes(Bytes),
    /// Memory that another process may still write.
    View(Arc<dyn SharedView>),
}

impl Payload {
    /// Bytes in the payload.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::View(view) => view.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in memory that nobody else writes: free for `Bytes`, one copy for a `View`.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::View(view) => view.to_bytes(),
        }
    }

    /// The same payload in memory that nobody else writes.
    #[must_use]
    pub fn into_private(self) -> Self {
        match self {
            Self::View(view) => Self::Bytes(view.to_bytes()),
            private => private,
        }
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<SampleBuffer> for Payload {
    fn from(buffer: SampleBuffer) -> Self {
        Self::Bytes(buffer.freeze())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Bytes(_) => "Bytes",
            Self::View(_) => "View",
        };
        write!(out, "{kind}({} bytes)", self.len())
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.to_bytes() == other.to_bytes()
    }
}

/// A payload's form inside a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PayloadRef {
    /// The bytes themselves.
    Inline(Bytes),
    /// A place in shared memory, in the words of the bridge that wrote it.
    Slot([u32; 5]),
}

/// Turns payloads into what a message carries, and back.
pub trait PayloadPort {
    /// The form in which `payload` leaves this process; an error text fails the message.
    fn export(&mut self, payload: &Payload) -> Result<PayloadRef, String>;
    /// The payload behind a form that arrived; an error text marks the peer's message as malformed.
    fn import(&mut self, form: PayloadRef) -> Result<Payload, String>;
}

thread_local! {
    static PORT: RefCell<Option<Rc<RefCell<dyn PayloadPort>>>> = const { RefCell::new(None) };
}

/// Runs `body` with `port` as the way in which payloads are serialised on this thread.
///
/// Without a port payloads are written inline. The port before this one is put back also when `body` panics.
pub fn with_payload_port<R>(port: &Rc<RefCell<dyn PayloadPort>>, body: impl FnOnce() -> R) -> R {
    struct Restore(Option<Rc<RefCell<dyn PayloadPort>>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            PORT.set(self.0.take());
        }
    }
    let _restore = Restore(PORT.replace(Some(Rc::clone(port))));
    body()
}

fn current_port() -> Option<Rc<RefCell<dyn PayloadPort>>> {
    PORT.with_borrow(Clone::clone)
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let form = match current_port() {
            Some(port) => port.borrow_mut().export(self).map_err(S::Error::custom)?,
            None => PayloadRef::Inline(self.to_bytes()),
        };
        form.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = PayloadRef::deserialize(deserializer)?;
        match (current_port(), form) {
            (Some(port), form) => port.borrow_mut().import(form).map_err(D::Error::custom),
            (None, PayloadRef::Inline(bytes)) => Ok(Self::Bytes(bytes)),
            (None, PayloadRef::Slot(_)) => Err(D::Error::custom("a shared slot outside of a link")),
        }
    }
}

/// Writable memory for one payload: from the heap, or a slot of a shared pool.
pub struct SampleBuffer(Memory);

enum Memory {
    Heap(BytesMut),
    Other(Box<dyn WritableMemory>),
}

/// Memory that a [`SampleAllocator`] hands out.
pub trait WritableMemory: Send {
    /// The memory to fill.
    fn as_mut_slice(&mut self) -> &mut [u8];
    /// The memory as filled so far.
    fn as_slice(&self) -> &[u8];
    /// Ends writing: nobody can change the bytes any more.
    fn freeze(self: Box<Self>) -> Bytes;
}

impl WritableMemory for Vec<u8> {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        self
    }
    fn as_slice(&self) -> &[u8] {
        self
    }
    fn freeze(self: Box<Self>) -> Bytes {
        Bytes::from(*self)
    }
}

/// Payloads on the heap up to this size are cut from a block: an allocation of its own, which mostly another thread
/// frees, would cost more than what is done with them.
const SMALL: usize = 1 << 10;
/// Bytes of such a block: what a single small payload that somebody keeps holds at most.
const BLOCK: usize = 16 << 10;

thread_local! {
    static SMALL_BLOCK: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

impl SampleBuffer {
    /// A buffer over memory of an allocator.
    pub fn new(memory: impl WritableMemory + 'static) -> Self {
        Self(Memory::Other(Box::new(memory)))
    }

    /// A zeroed buffer on the heap.
    pub fn heap(len: usize) -> Self {
        if len > SMALL {
            return Self(Memory::Heap(BytesMut::zeroed(len)));
        }
        SMALL_BLOCK.with_borrow_mut(|block| {
            if block.len() < len {
                *block = BytesMut::zeroed(BLOCK);
            }
            Self(Memory::Heap(block.split_to(len)))
        })
    }

    /// Ends writing.
    pub fn freeze(self) -> Bytes {
        match self.0 {
            Memory::Heap(bytes) => bytes.freeze(),
            Memory::Other(memory) => memory.freeze(),
        }
    }
}

impl Deref for SampleBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Heap(bytes) => bytes,
            Memory::Other(memory) => memory.as_slice(),
        }
    }
}

impl DerefMut for SampleBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Heap(bytes) => bytes,
            Memory::Other(memory) => memory.as_mut_slice(),
        }
    }
}

impl fmt::Debug for SampleBuffer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SampleBuffer({} bytes)", self.len())
    }
}

/// Where components get memory for what they put out.
///
/// In a host it is the pool that the application maps, so that a decoder writes where the consumer reads.
pub trait SampleAllocator: Send + Sync + fmt::Debug {
    /// Memory of exactly `len` bytes with unspecified content. Where no shared memory is free it is private, and copied
    /// later: whoever makes samples waits for [`room`](Self::room) before.
    fn allocate(&self, len: usize) -> SampleBuffer;

    /// Memory of exactly `len` bytes that is as the consumer asks, where such memory can be had.
    fn allocate_as(&self, len: usize, asked: AllocationRequirements) -> SampleBuffer {
        let _ = asked;
        self.allocate(len)
    }

    /// Refuses what can never be had.
    ///
    /// # Errors
    /// `LimitExceeded` for more than there is.
    fn agree(&self, asked: AllocationRequirements) -> Result<(), Error> {
        let _ = asked;
        Ok(())
    }

    /// Whether `len` bytes could be had now from where they should come, or waiting for it is of no use.
    fn has_room(&self, len: usize) -> bool {
        let _ = len;
        true
    }

    /// Resolves when `len` bytes could be had from where they should come, or when waiting for it is of no use. It takes
    /// nothing; dropping it ends the wait.
    fn room(&self, len: usize) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let _ = len;
        Box::pin(std::future::ready(()))
    }
}

/// Allocates on the heap.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeapAllocator;

impl SampleAllocator for HeapAllocator {
    fn allocate(&self, len: usize) -> SampleBuffer {
        SampleBuffer::heap(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Slots(Vec<Bytes>);

    impl PayloadPort for Slots {
        fn export(&mut self, payload: &Payload) -> Result<PayloadRef, String> {
            self.0.push(payload.to_bytes());
            Ok(PayloadRef::Slot([self.0.len() as u32 - 1, 0, 0, 0, 0]))
        }
        fn import(&mut self, form: PayloadRef) -> Result<Payload, String> {
            match form {
                PayloadRef::Slot([index, ..]) => self
                    .0
                    .get(index as usize)
                    .map(|bytes| Payload::Bytes(bytes.clone()))
                    .ok_or_else(|| format!("no slot {index}")),
                PayloadRef::Inline(bytes) => Ok(Payload::Bytes(bytes)),
            }
        }
    }

    #[test]
    fn small_buffers_are_zero_and_apart() {
        let lens = (0..100).map(|n| n * 13 % (SMALL + 200));
        let frozen: Vec<_> = lens
            .map(|len| {
                let mut buffer = SampleBuffer::heap(len);
                assert!(buffer.len() == len && buffer.iter().all(|byte| *byte == 0));
                buffer.fill(len as u8);
                buffer.freeze()
            })
            .collect();
        for bytes in frozen {
            assert!(bytes.iter().all(|byte| *byte == bytes.len() as u8));
        }
    }

    #[test]
    fn a_port_carries_payloads_and_is_gone_after() {
        let port: Rc<RefCell<dyn PayloadPort>> = Rc::new(RefCell::new(Slots(Vec::new())));
        let payload = Payload::from(b"frame".to_vec());
        let text = with_payload_port(&port, || serde_json::to_string(&payload)).expect("encodes");
        assert_eq!(text, r#"{"Slot":[0,0,0,0,0]}"#);
        let back: Payload =
            with_payload_port(&port, || serde_json::from_str(&text)).expect("decodes");
        assert_eq!(back, payload);
        assert!(serde_json::from_str::<Payload>(&text).is_err());
        assert!(
            with_payload_port(&port, || serde_json::from_str::<Payload>(
                r#"{"Slot":[9,0,0,0,0]}"#
            ))
            .is_err()
        );
    }
}
