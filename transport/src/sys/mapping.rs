//! Mapped shared memory, and reads from memory that another process may be writing.
//!
//! The other process's writes are outside this program's memory model, so nothing here ever makes a plain reference to
//! memory that it can write: words are read atomically, and blocks by an instruction that the compiler cannot look into
//! (elsewhere: by atomic words). Whatever the other side does, a read gives some bytes, and each is read once.

use std::ffi::c_void;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes of the word that blocks are copied by.
const WORD: usize = size_of::<u64>();

/// A shared mapping of a whole file, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to no thread; it is plain memory that stays mapped until the drop.
unsafe impl Send for Mapping {}
// SAFETY: through `&Mapping` memory is only read, and only atomically or by opaque instructions; whoever makes plain
// references (`sys::segment`) says there why nobody writes at the same time.
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
        Ok(Self { start, len })
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
