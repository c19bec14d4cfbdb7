//! A segment: one sealed anonymous file cut into slots, as its owner maps it.
//!
//! The owner's mapping is the only writable one that can ever exist: it is made first, then the file is sealed against
//! further writable mappings, writes and changes of size, and the seals are sealed. A slot's memory is handed out to one
//! holder at a time; the flag that ensures it lives here, beside the `unsafe` that depends on it.

use std::ffi::CStr;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    FsWord, MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs, ftruncate,
    memfd_create,
};
use rustix::io::Errno;

use super::mapping::Mapping;

/// The seals that make a segment safe to share: its size is fixed, and nobody gets another writable mapping.
pub(crate) const SEGMENT_SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::FUTURE_WRITE)
    .union(SealFlags::SEAL);

/// The file system of anonymous memory in ordinary pages.
const TMPFS_MAGIC: FsWord = 0x0102_1994;

/// A segment in the process that owns it.
#[derive(Debug)]
pub(crate) struct OwnedSegment {
    mapping: Mapping,
    slot_size: usize,
    /// Whether the slot's memory is handed out.
    taken: Box<[AtomicBool]>,
}

impl OwnedSegment {
    /// Makes a segment, and the descriptor by which a peer can map it for reading.
    pub(crate) fn create(slot_size: usize, slots: u32) -> Result<(Self, OwnedFd), Errno> {
        let len = slot_size
            .checked_mul(slots as usize)
            .ok_or(Errno::OVERFLOW)?;
        let file = create_file(c"portcullis-pool")?;
        ftruncate(&file, len as u64)?;
        let mapping = Mapping::writable(file.as_fd(), len)?;
        fcntl_add_seals(&file, SEGMENT_SEALS)?;
        let taken = (0..slots).map(|_| AtomicBool::new(false)).collect();
        let segment = Self {
            mapping,
            slot_size,
            taken,
        };
        Ok((segment, file))
    }

    /// The address of the first slot.
    pub(crate) fn address(&self) -> usize {
        self.mapping.address()
    }

    /// Bytes of all slots.
    pub(crate) fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Hands out a slot's memory; `None` while somebody has it, or if there is no such slot.
    pub(crate) fn take(self: &Arc<Self>, slot: u32) -> Option<SlotMemory> {
        if self.taken.get(slot as usize)?.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(SlotMemory {
            segment: self.clone(),
            slot,
        })
    }
}

/// The memory of one slot, exclusively.
#[derive(Debug)]
pub(crate) struct SlotMemory {
    segment: Arc<OwnedSegment>,
    slot: u32,
}

impl SlotMemory {
    fn start(&self) -> *mut u8 {
        // SAFETY: `take` gave this slot out, so it is below the number of slots, whose total size is the mapping's.
        unsafe {
            self.segment
                .mapping
                .start()
                .as_ptr()
                .add(self.slot as usize * self.segment.slot_size)
        }
    }
}

impl Deref for SlotMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range is in the mapping (see `start`), initialised (a fresh file reads as zeros) and mapped as long
        // as the segment, which `self` holds. Only the holder of the one `SlotMemory` of a slot can write it: other slots
        // do not overlap, and other processes cannot write the file (SEGMENT_SEALS).
        unsafe { std::slice::from_raw_parts(self.start(), self.segment.slot_size) }
    }
}

impl DerefMut for SlotMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` is the only way to it: `take` gives out one `SlotMemory` at a time.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.segment.slot_size) }
    }
}

impl Drop for SlotMemory {
    fn drop(&mut self) {
        if let Some(taken) = self.segment.taken.get(self.slot as usize) {
            taken.store(false, Ordering::Release);
        }
    }
}

/// Whether a peer's file is ordinary memory of exactly `len` bytes that only its owner can ever change.
///
/// # Errors
/// Why it is not.
pub(crate) fn check_sealed(file: BorrowedFd<'_>, len: u64) -> Result<(), String> {
    let told = |error: Errno| error.to_string();
    let seals = fcntl_get_seals(file).map_err(|error| format!("it cannot be sealed: {error}"))?;
    if !seals.contains(SEGMENT_SEALS) {
        return Err(format!(
            "sealed with {seals:?}, needed are {SEGMENT_SEALS:?}"
        ));
    }
    // Seals say that it is anonymous memory; of huge pages there may be too few, and a read a fatal signal.
    let kind = fstatfs(file).map_err(told)?.f_type;
    if kind != TMPFS_MAGIC {
        return Err(format!("not ordinary memory (file system {kind:#x})"));
    }
    let size = fstat(file).map_err(told)?.st_size;
    if u64::try_from(size) != Ok(len) {
        return Err(format!("{size} bytes long, announced are {len}"));
    }
    Ok(())
}

/// An anonymous file that can be sealed; `name` is only for people who look at a process.
pub(super) fn create_file(name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Never executable, where the kernel knows that (6.3); older ones refuse the flag.
    match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(name, flags),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, open};
    use std::os::fd::AsRawFd;

    #[test]
    fn a_slot_is_handed_out_once_at_a_time() {
        let (segment, _file) = OwnedSegment::create(4096, 2).unwrap();
        let segment = Arc::new(segment);
        let mut first = segment.take(0).unwrap();
        assert!(segment.take(0).is_none());
        assert!(segment.take(2).is_none());
        let mut second = segment.take(1).unwrap();
        first.fill(1);
        second.fill(2);
        assert!(first.iter().all(|byte| *byte == 1));
        drop(first);
        assert_eq!(segment.take(0).unwrap()[0], 1);
    }

    #[test]
    fn nobody_else_can_write_or_resize_a_segment() {
        let (segment, file) = OwnedSegment::create(4096, 2).unwrap();
        let again = open(
            format!("/proc/self/fd/{}", file.as_raw_fd()),
            OFlags::RDWR,
            Mode::empty(),
        );
        for other in [Some(file), again.ok()].into_iter().flatten() {
            assert!(
                Mapping::writable(&other, 8192).is_err(),
                "a writable mapping"
            );
            assert!(rustix::io::pwrite(&other, &[1], 0).is_err(), "a write");
            assert!(ftruncate(&other, 0).is_err(), "shrinking");
            assert!(ftruncate(&other, 1 << 20).is_err(), "growing");
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            assert!(fallocate(&other, punch, 0, 4096).is_err(), "a hole");
            assert!(
                fcntl_add_seals(&other, SealFlags::WRITE).is_err(),
                "another seal"
            );
            let mapping = Mapping::read_only(&other, 8192).unwrap();
            let writable = rustix::mm::MprotectFlags::READ | rustix::mm::MprotectFlags::WRITE;
            // SAFETY: if it succeeded (it must not), nothing would use the pages differently.
            let upgraded =
                unsafe { rustix::mm::mprotect(mapping.start().as_ptr().cast(), 8192, writable) };
            assert!(upgraded.is_err(), "making a read-only mapping writable");
        }
        let segment = Arc::new(segment);
        segment.take(0).unwrap().fill(7);
    }

    #[test]
    fn another_mapping_reads_what_the_owner_writes() {
        let (segment, file) = OwnedSegment::create(4096, 2).unwrap();
        let peer = Mapping::read_only(&file, 8192).unwrap();
        let segment = Arc::new(segment);
        let mut slot = segment.take(1).unwrap();
        for (index, byte) in slot.iter_mut().enumerate() {
            *byte = index as u8;
        }
        for len in [0, 1, 7, 8, 9, 100, 4096] {
            for offset in [4096, 4097, 8192 - len] {
                if offset + len > 8192 {
                    continue;
                }
                let mut copy = vec![0xff; len];
                peer.copy_to(offset, &mut copy).unwrap();
                let expected: Vec<u8> = (offset..offset + len).map(|index| index as u8).collect();
                assert_eq!(copy, expected);
                assert_eq!(peer.copy_out(offset, len).unwrap(), expected);
            }
        }
        assert_eq!(peer.read_word(4096).unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(peer.read_word(4099).unwrap(), [3, 4, 5, 6, 7, 8, 9, 10]);
        assert!(peer.read_word(8185).is_none());
        assert!(peer.read_word(usize::MAX - 3).is_none());
        assert!(peer.copy_out(1, 8192).is_none());
        assert!(peer.copy_to(usize::MAX, &mut [0; 2]).is_none());
    }
}
