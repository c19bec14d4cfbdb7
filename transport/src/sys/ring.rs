//! The memory of a ring: what a side writes of its own, and what it reads of the peer's.
//!
//! A file holds a header of words, each on cache lines of its own, and behind it the bytes of the ring. Its creator maps it
//! for writing and seals it, so the peer can only read it. The memory is never made a reference: words are atomic, bytes
//! are copied in by plain writes (nobody else writes them) and out by reads that no write of the peer can upset.

use std::cell::Cell;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use bytes::BufMut;
use rustix::fs::{fcntl_add_seals, ftruncate};
use rustix::io::Errno;

use super::mapping::Mapping;
use super::segment::{SEGMENT_SEALS, create_file};

/// Bytes before the first of the ring: a page, so that a ring that is never used costs no more than this.
pub(crate) const HEADER: usize = 4096;

/// A ring in the process that writes it. One thread at a time has it (it is not `Sync`), as bytes are written plainly.
#[derive(Debug)]
pub(crate) struct OwnRing {
    mapping: Mapping,
    one_writer: PhantomData<Cell<()>>,
}

impl OwnRing {
    /// Makes the memory of a ring of `capacity` bytes, and the descriptor by which a peer can map it for reading.
    pub(crate) fn create(capacity: usize) -> Result<(Self, OwnedFd), Errno> {
        let len = HEADER.checked_add(capacity).ok_or(Errno::OVERFLOW)?;
        let file = create_file(c"portcullis-ring")?;
        ftruncate(&file, len as u64)?;
        let mapping = Mapping::writable(file.as_fd(), len)?;
        fcntl_add_seals(&file, SEGMENT_SEALS)?;
        let ring = Self {
            mapping,
            one_writer: PhantomData,
        };
        Ok((ring, file))
    }

    /// Bytes of the ring.
    pub(crate) fn capacity(&self) -> usize {
        self.mapping.len() - HEADER
    }

    /// Writes a word of the header after all writes before.
    pub(crate) fn store(&self, at: usize, value: u64) {
        assert!(at.is_multiple_of(8) && at < HEADER, "a word of the header");
        // SAFETY: aligned and in bounds, as just checked (a mapping begins at a page and is longer than its header);
        // mapped for writing as long as `self`; this process uses the header's words only by atomic stores.
        let word = unsafe { AtomicU64::from_ptr(self.mapping.start().as_ptr().add(at).cast()) };
        word.store(value, Ordering::Release);
    }

    /// Copies bytes to a place in the ring; what does not fit is a fault of this program.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        let end = at.checked_add(bytes.len());
        assert!(
            end.is_some_and(|end| end <= self.capacity()),
            "within the ring"
        );
        // SAFETY: in bounds, as just checked; the target is mapped for writing as long as `self`, nothing in this process
        // reads it or holds a reference to it, nobody else writes it (this is the one mapping for writing, its one `OwnRing`
        // is of one thread at a time, not being `Sync`, and no other process can), and `bytes` is private memory that
        // cannot overlap it.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.mapping.start().as_ptr().add(HEADER + at),
                bytes.len(),
            );
        }
    }
}

/// A ring that the peer writes.
#[derive(Debug)]
pub(crate) struct PeerRing {
    mapping: Mapping,
}

impl PeerRing {
    /// Maps a peer's ring of `capacity` bytes. The caller has checked that the file is sealed and that long.
    pub(crate) fn map(file: impl AsFd, capacity: usize) -> Result<Self, Errno> {
        let len = HEADER.checked_add(capacity).ok_or(Errno::OVERFLOW)?;
        let mapping = Mapping::read_only(file, len)?;
        Ok(Self { mapping })
    }

    /// Bytes of the ring.
    pub(crate) fn capacity(&self) -> usize {
        self.mapping.len() - HEADER
    }

    /// Reads a word of the header, once, before all reads after.
    pub(crate) fn load(&self, at: usize) -> u64 {
        assert!(at.is_multiple_of(8) && at < HEADER, "a word of the header");
        // SAFETY: aligned and in bounds, as just checked; mapped as long as `self`. On memory that is mapped for reading
        // only, no more than a relaxed load is allowed: the fence makes it an acquire.
        let word = unsafe { AtomicU64::from_ptr(self.mapping.start().as_ptr().add(at).cast()) };
        let value = word.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        value
    }

    /// Appends a private copy of bytes of the ring; what is not there is a fault of this program.
    pub(crate) fn append_to(&self, at: usize, len: usize, into: &mut Vec<u8>) {
        let end = at.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.capacity()),
            "within the ring"
        );
        into.reserve(len);
        let target = &mut into.spare_capacity_mut()[..len];
        let copied = self.mapping.copy_to_uninit(HEADER + at, target);
        assert!(copied.is_some(), "within the mapping, as the ring is");
        // SAFETY: `len` bytes behind the filled part are there (they were sliced) and were just written.
        unsafe { into.advance_mut(len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_reads_what_the_owner_writes() {
        let (own, file) = OwnRing::create(4096).unwrap();
        let peer = PeerRing::map(&file, 4096).unwrap();
        assert_eq!((own.capacity(), peer.capacity()), (4096, 4096));
        own.write(4090, b"behind");
        own.write(0, b"before");
        own.store(128, 7);
        assert_eq!((peer.load(128), peer.load(0)), (7, 0));
        let mut read = b"-".to_vec();
        peer.append_to(4090, 6, &mut read);
        peer.append_to(0, 6, &mut read);
        peer.append_to(4096, 0, &mut read);
        assert_eq!(read, b"-behindbefore");
    }

    /// Of two traits that both name a constant for a type that is `Sync` the compiler could choose neither.
    #[test]
    fn a_ring_is_of_one_thread_at_a_time() {
        trait Always<Which> {
            const NAMED: bool = true;
        }
        impl<T> Always<u8> for T {}
        impl<T: Sync> Always<u16> for T {}
        const { assert!(<OwnRing as Always<_>>::NAMED) };
        fn may_move(_: impl Send) {}
        may_move(OwnRing::create(4096).unwrap().0);
    }

    #[test]
    #[should_panic(expected = "within the ring")]
    fn nothing_is_written_beyond_the_ring() {
        let (own, _file) = OwnRing::create(4096).unwrap();
        own.write(4090, b"seven b");
    }

    #[test]
    #[should_panic(expected = "a word of the header")]
    fn only_the_header_has_words() {
        let (own, _file) = OwnRing::create(4096).unwrap();
        own.store(HEADER, 0);
    }
}
