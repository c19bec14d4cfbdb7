//! Mapped shared memory, and reads from memory that another process may be writing.
//!
//! The other process's writes are outside this program's memory model, so nothing here ever makes a plain reference to
//! memory that it can write: words are read atomically, and blocks by an instruction that the compiler cannot look into
//! (elsewhere: by atomic words). Whatever the other side does, a read gives some bytes, and each is read once.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// Bytes of the word that blocks are copied by.
const WORD: usize = size_of::<u64>();

/// From this size on a mapping asks for huge pages: half of a picture's time is page faults otherwise, at first.
const HUGE: usize = 2 << 20;

/// The promise that a peer leaves a slot as it is while it is lent.
///
/// Whoever has it may see such a slot as plain bytes (`&[u8]`, `Bytes`), which in Rust must not change. A peer that breaks
/// the promise causes undefined behaviour here, so it takes `unsafe` to make one: there is none for a peer that an attacker
/// may have taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedPeer(());

impl TrustedPeer {
    /// Promises it.
    ///
    /// # Safety
    /// It holds of every peer with which it is used. For as long as this process has anything of that peer's slots, the peer's
    /// process must write no slot that it has lent and not got back. A peer that runs this crate's [`Pool`](crate::Pool) does so, unless it is compromised or something
    /// else in it writes through stray pointers. It must also not give back to its pool what it lent when the link ends: a
    /// host of `portcullis-actors` does not, it ends.
    pub const unsafe fn promise() -> Self {
        Self(())
    }

    /// For tests whose peer is this very process.
    #[cfg(test)]
    pub(crate) fn this_process() -> Self {
        // SAFETY: a pool of this process leaves leased slots as they are, and the tests give none of them back by force.
        unsafe { Self::promise() }
    }
}

/// A shared mapping of a whole file, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to no thread; it is plain memory that stays mapped until the drop.
unsafe impl Send for Mapping {}
// SAFETY: what is here reads through `&Mapping`, atomically or by opaque instructions, and writes nothing. `plain` makes
// references by the promise that it is given. Whoever takes the address to write (`sys::segment`, `sys::ring`) says there why
// nobody else reads or writes the same bytes at the same time.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of a file for reading and writing.
    pub(super) fn writable(file: impl AsFd, len: usize) -> Result<Self, Errno> {
        Self::map(file, len, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Maps the first `len` bytes of a file for reading. The file must be that long and sealed against shrinking, or a
    /// read may end in a signal: the caller checks.
    pub(crate) fn read_only(file: impl AsFd, len: usize) -> Result<Self, Errno> {
        Self::map(file, len, ProtFlags::READ)
    }

    fn map(file: impl AsFd, len: usize, protection: ProtFlags) -> Result<Self, Errno> {
        // SAFETY: without MAP_FIXED and with no address asked for, the kernel chooses addresses that nothing uses.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                protection,
                MapFlags::SHARED,
                file,
                0,
            )?
        };
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        let mapping = Self { start, len };
        if len >= HUGE {
            // SAFETY: these are the pages just mapped; the advice changes how they are backed, not what they hold.
            // Where the system gives none it is as before.
            let _ = unsafe { madvise(start.as_ptr().cast(), len, Advice::LinuxHugepage) };
        }
        Ok(mapping)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address of the first byte.
    pub(crate) fn address(&self) -> usize {
        self.start.as_ptr().addr()
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The eight bytes at `offset` as they are in memory at this moment.
    pub(crate) fn read_word(&self, offset: usize) -> Option<[u8; WORD]> {
        self.check(offset, WORD)?;
        // SAFETY: `check` says that the eight bytes lie within the mapping, so the sum does too.
        let at = unsafe { self.start.as_ptr().add(offset) };
        if at.addr().is_multiple_of(WORD) {
            // SAFETY: in bounds, aligned, mapped as long as `self`; every access of this process to memory that the peer
            // may write is atomic or opaque. A relaxed load is allowed on memory that is mapped for reading only.
            let word = unsafe { AtomicU64::from_ptr(at.cast()) };
            return Some(word.load(Ordering::Relaxed).to_ne_bytes());
        }
        let mut bytes = [0; WORD];
        for (index, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: as above; a byte is always aligned.
            *byte = unsafe { AtomicU8::from_ptr(at.add(index)) }.load(Ordering::Relaxed);
        }
        Some(bytes)
    }

    /// Fills `into` with the little-endian words at `offset` and every `step` bytes behind it; `None`, with `into` untouched,
    /// if they do not all lie in the mapping.
    pub(crate) fn read_words(&self, offset: usize, step: usize, into: &mut [u64]) -> Option<()> {
        let Some(last) = into.len().checked_sub(1) else {
            return Some(());
        };
        let last = last.checked_mul(step)?.checked_add(offset)?;
        self.check(last, WORD)?;
        // SAFETY: `last` is the largest of the offsets that are read, and its eight bytes lie within the mapping.
        let first = unsafe { self.start.as_ptr().add(offset) };
        if !first.addr().is_multiple_of(WORD) || !step.is_multiple_of(WORD) {
            for (index, word) in into.iter_mut().enumerate() {
                *word = u64::from_le_bytes(self.read_word(offset + index * step)?);
            }
            return Some(());
        }
        for (index, word) in into.iter_mut().enumerate() {
            // SAFETY: in bounds, as above, and aligned, for the first is and so is each step.
            let at = unsafe { AtomicU64::from_ptr(first.add(index * step).cast()) };
            *word = u64::from_le(at.load(Ordering::Relaxed));
        }
        Some(())
    }

    /// The bytes from `offset` on as a slice; `None` if they are not all there.
    pub(crate) fn plain(&self, offset: usize, len: usize, _: TrustedPeer) -> Option<&[u8]> {
        self.check(offset, len)?;
        // SAFETY: in bounds by `check`, initialised (a file has bytes everywhere) and mapped as long as `self`. Nobody here
        // writes a read-only mapping, and that the peer does not is promised by the `TrustedPeer`, for what it has lent: the
        // caller holds the lease as long as the slice.
        Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(offset), len) })
    }

    /// Fills `into` with the bytes from `offset` on; `None`, with `into` untouched, if they are not all there.
    pub(crate) fn copy_to(&self, offset: usize, into: &mut [u8]) -> Option<()> {
        self.check(offset, into.len())?;
        // SAFETY: the source is in bounds by `check`; the target is `into`, which is private memory of the same length
        // and cannot overlap the mapping, of which no `&mut` to readers' ranges is ever given out.
        unsafe {
            copy_shared(
                self.start.as_ptr().add(offset),
                into.as_mut_ptr(),
                into.len(),
            )
        };
        Some(())
    }

    /// Fills `into`, whatever was in it, with the bytes from `offset` on; `None`, with `into` untouched, if they are not
    /// all there.
    pub(super) fn copy_to_uninit(&self, offset: usize, into: &mut [MaybeUninit<u8>]) -> Option<()> {
        self.check(offset, into.len())?;
        // SAFETY: as in `copy_to`; the target need not be initialised, for it is only written.
        unsafe {
            copy_shared(
                self.start.as_ptr().add(offset),
                into.as_mut_ptr().cast(),
                into.len(),
            )
        };
        Some(())
    }

    /// A private copy of `len` bytes from `offset` on.
    pub(crate) fn copy_out(&self, offset: usize, len: usize) -> Option<Vec<u8>> {
        self.check(offset, len)?;
        let mut copy = Vec::with_capacity(len);
        // SAFETY: the source is in bounds by `check`; the target has room for `len` bytes, which are all written before
        // they become part of the vector.
        unsafe {
            copy_shared(self.start.as_ptr().add(offset), copy.as_mut_ptr(), len);
            copy.set_len(len);
        }
        Some(copy)
    }

    fn check(&self, offset: usize, len: usize) -> Option<()> {
        (offset.checked_add(len)? <= self.len).then_some(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: these are exactly the pages that `map` got, and whoever could use them holds the mapping alive.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), self.len) };
        debug_assert!(unmapped.is_ok(), "the range is a mapping of ours");
    }
}

/// Copies bytes that another process may be writing.
///
/// # Safety
/// `from` must be readable and `to` writable for `len` bytes, without overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn copy_shared(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the instruction reads `len` bytes at `from` and writes them at `to`, which the caller vouches for; the
    // direction flag is clear by the platform's convention.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Copies bytes that another process may be writing.
///
/// # Safety
/// `from` must be readable and `to` writable for `len` bytes, without overlap.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
unsafe fn copy_shared(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the same conditions.
    unsafe { copy_by_words(from, to, len) }
}

/// The portable way: each word is loaded atomically, once.
///
/// # Safety
/// `from` must be readable and `to` writable for `len` bytes, without overlap.
#[cfg(any(test, not(all(target_arch = "x86_64", not(miri)))))]
unsafe fn copy_by_words(from: *const u8, to: *mut u8, len: usize) {
    let mut done = 0;
    while done < len {
        // SAFETY: `done < len`, so both addresses lie in what the caller vouches for.
        let (from, to) = unsafe { (from.add(done), to.add(done)) };
        if from.addr().is_multiple_of(WORD) && len - done >= WORD {
            // SAFETY: eight bytes are left on both sides, and `from` is aligned; the target may be unaligned.
            unsafe {
                let word = AtomicU64::from_ptr(from.cast_mut().cast()).load(Ordering::Relaxed);
                to.cast::<u64>().write_unaligned(word);
            }
            done += WORD;
        } else {
            // SAFETY: one byte is left on both sides.
            unsafe { to.write(AtomicU8::from_ptr(from.cast_mut()).load(Ordering::Relaxed)) };
            done += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_at_every_step_and_only_within() {
        let file = rustix::fs::memfd_create(c"test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let bytes: Vec<u8> = (0..4096_u32).map(|index| (index % 251) as u8).collect();
        rustix::io::pwrite(&file, &bytes, 0).unwrap();
        let mapping = Mapping::read_only(&file, bytes.len()).unwrap();
        for (offset, step) in [
            (0_usize, 8_usize),
            (0, 64),
            (8, 64),
            (3, 64),
            (0, 13),
            (4088, 0),
        ] {
            let count = (4096 - 8 - offset)
                .checked_div(step)
                .map_or(1, |more| more + 1);
            let mut words = vec![0; count];
            mapping.read_words(offset, step, &mut words).unwrap();
            for (index, word) in words.iter().enumerate() {
                let at = offset + index * step;
                assert_eq!(word.to_le_bytes(), bytes[at..at + 8], "{at}");
            }
            words.push(0);
            assert_eq!(
                mapping.read_words(offset, step, &mut words).is_some(),
                step == 0
            );
        }
        assert!(mapping.read_words(0, usize::MAX, &mut [0, 0, 0]).is_none());
        assert!(mapping.read_words(usize::MAX, 0, &mut []).is_some());
    }

    #[test]
    fn copying_by_words_copies_every_byte_at_every_alignment() {
        let source: Vec<u8> = (0..64).collect();
        for start in 0..9 {
            for len in 0..=(source.len() - start) {
                let mut target = vec![0xff; len + 2];
                // SAFETY: `start + len` is within `source`, `1 + len` within `target`.
                unsafe {
                    copy_by_words(source.as_ptr().add(start), target.as_mut_ptr().add(1), len)
                };
                assert_eq!(target[1..=len], source[start..start + len]);
                assert_eq!(
                    (target[0], target[len + 1]),
                    (0xff, 0xff),
                    "nothing beside it"
                );
            }
        }
    }
}
