//! A host program's file: its digest, and what its head says.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use portcullis_engine::Error;
use portcullis_engine::trust::{ImageDigest, ImageHasher};

use crate::cli::failure::Failure;

/// What a program's file is.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) digest: ImageDigest,
    /// What it runs on, such as `x86_64-linux`.
    pub(super) target: String,
    /// Whether it needs a loader, which a protected host does not have.
    pub(super) is_dynamic: bool,
}

impl Image {
    /// Reads the whole file, a piece at a time.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let failed = |error: io::Error| Failure::from(Error::io(name.clone(), &error));
        let mut file = File::open(path).map_err(failed)?;
        let mut hasher = ImageHasher::new();
        let mut head = Vec::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            let len = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            hasher.update(&piece[..len]);
            if head.len() < HEAD {
                head.extend_from_slice(&piece[..len.min(HEAD - head.len())]);
            }
        }
        let (target, is_dynamic) = parse(&head)
            .ok_or_else(|| Failure::usage(format!("{name}: not a 64-bit ELF program")))?;
        Ok(Self {
            digest: hasher.finish(),
            target,
            is_dynamic,
        })
    }
}

/// How much of a file is looked at: its program headers follow the first.
const HEAD: usize = 64 << 10;

/// Segment that names the loader.
const PT_INTERP: u32 = 3;

/// Target, and whether a loader is named. The form is ELF's, 64 bit, little-endian.
fn parse(head: &[u8]) -> Option<(String, bool)> {
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let u16_at = |at: usize| Some(u16::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let table = u64::from_le_bytes(*head.get(32..)?.first_chunk()?);
    let table = usize::try_from(table).ok()?;
    let (size, count) = (usize::from(u16_at(54)?), usize::from(u16_at(56)?));
    let mut is_dynamic = false;
    for index in 0..count {
        let at = index.checked_mul(size)?.checked_add(table)?;
        is_dynamic |= u32_at(at)? == PT_INTERP;
    }
    let target = match u16_at(18)? {
        62 => "x86_64-linux".to_owned(),
        183 => "aarch64-linux".to_owned(),
        243 => "riscv64-linux".to_owned(),
        machine => format!("elf-machine-{machine}"),
    };
    Some((target, is_dynamic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(machine: u16, segments: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = u8::try_from(segments.len()).unwrap();
        for segment in segments {
            bytes.extend_from_slice(&segment.to_le_bytes());
            bytes.extend_from_slice(&[0; 52]);
        }
        bytes
    }

    #[test]
    fn a_program_says_what_it_runs_on_and_whether_it_needs_a_loader() {
        let parsed = |bytes: &[u8]| parse(bytes).unwrap();
        assert_eq!(
            parsed(&program(62, &[6, 1, 2])),
            ("x86_64-linux".into(), false)
        );
        assert_eq!(
            parsed(&program(183, &[6, 3, 1])),
            ("aarch64-linux".into(), true)
        );
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let whole = program(62, &[6, 3]);
        for len in 0..whole.len() - 52 {
            assert!(parse(&whole[..len]).is_none(), "{len}");
        }
        assert!(parse(b"#!/bin/sh").is_none());
        let mut far = whole;
        far[32..40].fill(0xff);
        assert!(parse(&far).is_none());
    }
}
