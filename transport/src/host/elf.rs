//! The head of a program's file, in the form of ELF: whatever it says may be a lie.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// `PT_INTERP`
const INTERPRETER: u32 = 3;
/// Bytes of a 64-bit ELF header.
const HEADER: usize = 64;
/// Bytes of one of its program headers.
const PROGRAM_HEADER: u16 = 56;
/// More program headers than any linker makes.
const MAX_PROGRAM_HEADERS: u16 = 256;

/// What the head of a program says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Elf {
    /// `e_machine`
    pub(super) machine: u16,
    /// Whether it asks for no interpreter.
    pub(super) is_static: bool,
}

impl Elf {
    /// Reads only what is there, whatever the file of `size` bytes says of itself.
    pub(super) fn read(file: &File, size: u64) -> Result<Self, String> {
        let mut header = [0; HEADER];
        let read = file.read_exact_at(&mut header, 0);
        if read.is_err() || !header.starts_with(b"\x7fELF") {
            return Err("it is not an ELF program (a script needs its interpreter)".into());
        }
        // Class and byte order: 64 bits, little endian.
        if header.get(4..6) != Some(&[2, 1]) {
            return Err("it is not a program of this architecture".into());
        }
        let machine = field(&header, 18).map_or(0, u16::from_le_bytes);
        let offset = field(&header, 32).map(u64::from_le_bytes);
        let entry = field(&header, 54).map(u16::from_le_bytes);
        let count = field(&header, 56).map(u16::from_le_bytes);
        let (Some(offset), Some(PROGRAM_HEADER), Some(count)) = (offset, entry, count) else {
            return Err("its program headers have an unknown size".into());
        };
        if count == 0 || count > MAX_PROGRAM_HEADERS {
            return Err(format!("it has {count} program headers"));
        }
        let end = offset.checked_add(u64::from(count) * u64::from(PROGRAM_HEADER));
        if end.is_none_or(|end| end > size) {
            return Err("its program headers lie outside the file".into());
        }
        let mut is_static = true;
        for index in 0..count {
            let mut kind = [0; 4];
            let at = offset + u64::from(index) * u64::from(PROGRAM_HEADER);
            file.read_exact_at(&mut kind, at)
                .map_err(|error| error.to_string())?;
            if u32::from_le_bytes(kind) == INTERPRETER {
                is_static = false;
            }
        }
        Ok(Self { machine, is_static })
    }
}

fn field<const N: usize>(header: &[u8; HEADER], at: usize) -> Option<[u8; N]> {
    header.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    pub(in super::super) fn file(bytes: &[u8]) -> File {
        let memory = memfd_create(c"test", MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(memory);
        file.write_all(bytes).unwrap();
        file
    }

    pub(in super::super) fn elf(kinds: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&62u16.to_le_bytes());
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&PROGRAM_HEADER.to_le_bytes());
        bytes[56..58].copy_from_slice(&(kinds.len() as u16).to_le_bytes());
        for kind in kinds {
            bytes.extend(kind.to_le_bytes());
            bytes.extend([0; 52]);
        }
        bytes
    }

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        let check = |bytes: &[u8]| Elf::read(&file(bytes), bytes.len() as u64);
        let elf_of = |is_static| {
            Ok(Elf {
                machine: 62,
                is_static,
            })
        };
        assert_eq!(check(&elf(&[6, 1, 1])), elf_of(true));
        assert_eq!(check(&elf(&[6, INTERPRETER, 1])), elf_of(false));
    }

    #[test]
    fn a_file_that_lies_is_refused() {
        let check = |bytes: &[u8]| Elf::read(&file(bytes), bytes.len() as u64).unwrap_err();
        assert!(check(b"#!/bin/sh\n").contains("script"));
        let mut bytes = elf(&[1]);
        bytes[56..58].copy_from_slice(&u16::MAX.to_le_bytes());
        assert!(check(&bytes).contains("65535"));
        bytes[56..58].copy_from_slice(&2u16.to_le_bytes());
        assert!(check(&bytes).contains("outside"));
        bytes[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(check(&bytes).contains("outside"));
        bytes[54] = 1;
        assert!(check(&bytes).contains("unknown size"));
        bytes[4] = 1;
        assert!(check(&bytes).contains("architecture"));
        assert!(check(&elf(&[])).contains("0 program headers"));
        for len in 0..HEADER {
            assert!(check(&elf(&[1])[..len]).contains("not an ELF"));
        }
    }
}
