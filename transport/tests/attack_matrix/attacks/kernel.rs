//! Other doors of the kernel: its newer and stranger interfaces, other calling conventions, the machine itself.

use std::io;
use std::ptr;

use super::{Attack, NEEDS_CAPABILITY, NEEDS_INITIAL, attack, check, done, failed};

pub(super) const ATTACKS: &[Attack] = &[
    attack("io_uring", |_| {
        // `struct io_uring_params`
        let mut parameters = [0u8; 120];
        // SAFETY: the kernel reads and writes the live array, which has the struct's size.
        done(check(unsafe {
            libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr())
        }))
    }),
    attack("userfaultfd", |_| {
        const USER_MODE_ONLY: libc::c_int = 1;
        // SAFETY: plain numbers.
        done(check(unsafe {
            libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | USER_MODE_ONLY)
        }))
    }),
    attack("a key in the keyring", |_| {
        const PROCESS_KEYRING: libc::c_int = -2;
        let payload = b"attack";
        // SAFETY: the strings are alive and end with zero bytes; the payload has the length given.
        done(check(unsafe {
            libc::syscall(
                libc::SYS_add_key,
                c"user".as_ptr(),
                c"attack".as_ptr(),
                payload.as_ptr(),
                payload.len(),
                PROCESS_KEYRING,
            )
        }))
    }),
    attack("the user's keyring (keyctl)", |_| {
        const GET_KEYRING_ID: libc::c_int = 0;
        const USER_KEYRING: libc::c_int = -4;
        // SAFETY: plain numbers.
        done(check(unsafe {
            libc::syscall(libc::SYS_keyctl, GET_KEYRING_ID, USER_KEYRING, 1)
        }))
    }),
    attack("a kernel program (bpf)", |_| {
        const MAP_CREATE: libc::c_int = 0;
        // `union bpf_attr`: an array of one element, keys and values of four bytes.
        let mut attributes = [0u32; 32];
        attributes[..4].copy_from_slice(&[2, 4, 4, 1]);
        // SAFETY: the kernel reads the live array.
        done(check(unsafe {
            libc::syscall(
                libc::SYS_bpf,
                MAP_CREATE,
                attributes.as_ptr(),
                size_of_val(&attributes),
            )
        }))
    })
    .never(NEEDS_INITIAL),
    attack("a performance counter", |_| {
        // `struct perf_event_attr`: a software event, the task clock, of user code only.
        let mut attributes = [0u64; 16];
        attributes[0] = 1 | (size_of_val(&attributes) as u64) << 32;
        attributes[1] = 1;
        attributes[5] = 1 << 5 | 1 << 6; // not the kernel, not a hypervisor
        // SAFETY: the kernel reads the live array.
        done(check(unsafe {
            libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0)
        }))
    }),
    #[cfg(target_arch = "x86_64")]
    attack("segments of its own (modify_ldt)", |_| {
        let mut table = [0u8; 64];
        // SAFETY: the kernel writes to the live array.
        done(check(unsafe {
            libc::syscall(libc::SYS_modify_ldt, 0, table.as_mut_ptr(), table.len())
        }))
    }),
    #[cfg(target_arch = "x86_64")]
    attack("a call of the x32 kind", |_| {
        const X32: libc::c_long = 0x4000_0000;
        // SAFETY: asks for the process id.
        done(check(unsafe { libc::syscall(X32 + libc::SYS_getpid) }))
    })
    .never("this kernel has no x32 calls"),
    #[cfg(target_arch = "x86_64")]
    attack("a call of the 32-bit kind", |_| {
        const GETPID: i32 = 20;
        let answer: i32;
        // SAFETY: asks for the process id and changes nothing; the registers that the old entry clears are named.
        unsafe {
            std::arch::asm!(
                "int 0x80",
                inlateout("eax") GETPID => answer,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        if answer > 0 {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(-answer))
        }
    }),
    attack("undo no-new-privileges", |_| {
        // SAFETY: plain numbers.
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0) })?;
        // SAFETY: plain numbers.
        match check(unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) })? {
            0 => Ok(()),
            _ => Err(failed("still in force")),
        }
    })
    .never("no kernel undoes it"),
    attack("its own filter of system calls", |_| {
        const STRICT_OR_FILTER: libc::c_int = 1;
        let allow = [libc::sock_filter {
            code: 0x06,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ALLOW,
        }];
        let program = libc::sock_fprog {
            len: 1,
            filter: allow.as_ptr().cast_mut(),
        };
        // SAFETY: the program is alive.
        unsafe {
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            done(check(libc::syscall(
                libc::SYS_seccomp,
                STRICT_OR_FILTER,
                0,
                &raw const program,
            )))
        }
    }),
    attack("set the clock", |_| {
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the struct is alive.
        unsafe {
            check(libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now))?;
            done(check(libc::clock_settime(
                libc::CLOCK_REALTIME,
                &raw const now,
            )))
        }
    })
    .never(NEEDS_INITIAL),
    attack("set the host name", |_| {
        let name = b"attacked";
        // SAFETY: the name is alive and of the length given.
        done(check(unsafe {
            libc::sethostname(name.as_ptr().cast(), name.len())
        }))
    })
    .of_root(NEEDS_CAPABILITY),
    // One that exists only outside of process namespaces: whoever is allowed to restart is told so by another error.
    attack("restart the machine", |_| {
        const MAGIC: [libc::c_uint; 2] = [0xfee1_dead, 672_274_793];
        // SAFETY: switches a key combination off, and in a namespace not even that.
        let asked = check(unsafe {
            libc::syscall(
                libc::SYS_reboot,
                MAGIC[0],
                MAGIC[1],
                libc::LINUX_REBOOT_CMD_CAD_OFF,
                ptr::null::<u8>(),
            )
        });
        match asked {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => done(other),
        }
    })
    .of_root(NEEDS_CAPABILITY),
    attack("load a kernel module", |_| {
        let nothing = [0u8; 4];
        // SAFETY: the array is alive, and no module: whoever is allowed is told so by another error.
        let asked = check(unsafe {
            libc::syscall(
                libc::SYS_init_module,
                nothing.as_ptr(),
                nothing.len(),
                c"".as_ptr(),
            )
        });
        match asked {
            Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => Ok(()),
            other => done(other),
        }
    })
    .never(NEEDS_INITIAL),
];
