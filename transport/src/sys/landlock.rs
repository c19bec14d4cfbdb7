//! Landlock without a rule: everything that it knows of is denied. Three system calls on plain numbers, so that it can be
//! put on between `clone` and `exec`, where nothing may allocate.

use std::os::fd::RawFd;

use rustix::io::Errno;

/// What a kernel's Landlock can deny, by ABI version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DenyAll {
    abi: u32,
    attributes: RulesetAttributes,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// `LANDLOCK_RULE_PATH_BENEATH`
const PATH_BENEATH: libc::c_int = 1;
/// `LANDLOCK_ACCESS_FS_EXECUTE` and `LANDLOCK_ACCESS_FS_READ_FILE`: executing reads.
const EXECUTE: u64 = 0b101;

/// `LANDLOCK_CREATE_RULESET_VERSION`
const VERSION: libc::c_ulong = 1;

impl DenyAll {
    /// All that this kernel's Landlock can deny.
    pub(crate) fn of_this_kernel() -> Result<Self, Errno> {
        // SAFETY: with a null pointer, size zero and the version flag the call only answers a number.
        let version = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                std::ptr::null::<RulesetAttributes>(),
                0usize,
                VERSION,
            )
        };
        if version < 1 {
            return Err(last_error());
        }
        Ok(Self::of_version(version))
    }

    /// The version of the kernel's interface, on which it depends what is denied.
    pub(crate) fn abi(&self) -> u32 {
        self.abi
    }

    fn of_version(version: libc::c_long) -> Self {
        // File rights come in bits from 0 on; each version added some.
        let file_rights = match version {
            ..=1 => 13,
            2 => 14,
            3..=4 => 15,
            5..=8 => 16,
            _ => 17,
        };
        Self {
            abi: u32::try_from(version).unwrap_or(0),
            attributes: RulesetAttributes {
                handled_access_fs: (1 << file_rights) - 1,
                // Binding and connecting of TCP ports.
                handled_access_net: if version >= 4 { 0b11 } else { 0 },
                // Abstract sockets and signals to processes outside.
                scoped: if version >= 6 { 0b11 } else { 0 },
            },
        }
    }

    /// Denies it to this thread and whatever it starts. The thread must have given up new privileges. The file `program`
    /// may still be executed, by a descriptor or by whoever finds a path to it.
    ///
    /// Async-signal-safe.
    pub(crate) fn enforce(&self, program: Option<RawFd>) -> Result<(), Errno> {
        // An older kernel refuses a size that it does not know unless what it does not know is zero.
        // SAFETY: the pointer is to a live struct of the size given, in the layout of `landlock_ruleset_attr`.
        let ruleset = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const self.attributes,
                size_of::<RulesetAttributes>(),
                0 as libc::c_ulong,
            )
        };
        if ruleset < 0 {
            return Err(last_error());
        }
        let result = except(ruleset, program).and_then(|()| {
            // SAFETY: plain numbers; the descriptor was made above.
            let enforced = unsafe {
                libc::syscall(
                    libc::SYS_landlock_restrict_self,
                    ruleset,
                    0 as libc::c_ulong,
                )
            };
            if enforced == 0 {
                Ok(())
            } else {
                Err(last_error())
            }
        });
        // SAFETY: the descriptor was made above, and nobody else knows of it.
        unsafe { libc::syscall(libc::SYS_close, ruleset) };
        result
    }
}

/// Lets `program` be executed all the same.
fn except(ruleset: libc::c_long, program: Option<RawFd>) -> Result<(), Errno> {
    let Some(program) = program else {
        return Ok(());
    };
    let rule = PathBeneath {
        allowed_access: EXECUTE,
        parent_fd: program,
    };
    // SAFETY: the rule is alive and of the layout of its kind.
    let added = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset,
            PATH_BENEATH,
            &raw const rule,
            0 as libc::c_ulong,
        )
    };
    if added == 0 {
        return Ok(());
    }
    match last_error() {
        // Of a file that has no path, like one in anonymous memory, there can be no rule, and it needs none: Landlock
        // denies nothing of it.
        Errno::BADFD => Ok(()),
        error => Err(error),
    }
}

/// What the last failed call of the C library said, without allocating.
pub(super) fn last_error() -> Errno {
    let number = std::io::Error::last_os_error().raw_os_error();
    Errno::from_raw_os_error(number.unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_denies_what_it_knows() {
        let rights = |version| DenyAll::of_version(version).attributes;
        assert_eq!(rights(1).handled_access_fs, 0x1fff);
        assert_eq!(rights(1).handled_access_net, 0);
        assert_eq!(rights(5).handled_access_fs, 0xffff);
        assert_eq!(rights(4).handled_access_net, 3);
        assert_eq!(rights(7).scoped, 3);
        assert_eq!(rights(9).handled_access_fs, 0x1ffff);
    }
}
