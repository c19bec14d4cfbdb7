//! Other processes: making, tracing, reading, ending them, and becoming somebody else.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::{Attack, NEEDS_CAPABILITY, SECRET, SUCCESS, attack, check, done, failed};
use crate::STAGE;

pub(super) const ATTACKS: &[Attack] = &[
    attack("fork", |_| {
        // SAFETY: the child ends at once.
        let child = check(unsafe { libc::fork() })?;
        reap(child)
    }),
    attack("vfork", |_| vfork()),
    attack("clone3 of a process", |_| {
        // SAFETY: plain data for which zero is valid.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.exit_signal = libc::SIGCHLD as u64;
        // SAFETY: the struct is alive and of the size given; the child, as of a fork, ends at once.
        let child = check(unsafe {
            libc::syscall(
                libc::SYS_clone3,
                &raw const arguments,
                size_of::<libc::clone_args>(),
            )
        })?;
        reap(child as i32)
    }),
    attack("execute a program", |_| {
        Err(Command::new("/bin/echo").arg(SUCCESS).exec())
    }),
    #[cfg(target_arch = "x86_64")]
    attack("execute from memory", |_| execute_from_memory()),
    attack("gain privilege by a set-user-id program", |targets| {
        let program = format!("{}/privileged", targets.folder);
        Err(Command::new(program)
            .env(STAGE, "set-user-id program")
            .exec())
    }),
    attack("attach to the application (ptrace)", |targets| {
        done(ptrace(libc::PTRACE_SEIZE, targets.parent))
    }),
    attack("read the application (process_vm_readv)", |targets| {
        let mut bytes = [0u8; SECRET.len()];
        let local = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        let remote = libc::iovec {
            iov_base: std::ptr::without_provenance_mut(targets.secret),
            iov_len: bytes.len(),
        };
        // SAFETY: the kernel writes to the live array; the other side is an address in another process.
        check(unsafe {
            libc::process_vm_readv(targets.parent, &raw const local, 1, &raw const remote, 1, 0)
        })?;
        is_secret(&bytes)
    }),
    attack(
        "take the application's descriptor (pidfd_getfd)",
        |targets| {
            let pidfd = pidfd_open(targets.parent)?;
            // SAFETY: plain numbers.
            done(check(unsafe {
                libc::syscall(libc::SYS_pidfd_getfd, pidfd, 1, 0)
            }))
        },
    ),
    attack("pidfd_open of the application", |targets| {
        done(pidfd_open(targets.parent))
    }),
    // One that is ignored unless somebody asks for it.
    attack("signal the application", |targets| {
        // SAFETY: plain numbers.
        done(check(unsafe { libc::kill(targets.parent, libc::SIGURG) }))
    }),
    attack("kill another process", |targets| {
        // SAFETY: plain numbers.
        done(check(unsafe { libc::kill(targets.victim, libc::SIGKILL) }))
    }),
    // The call and the signal by which a host may abort itself.
    attack("abort another process (tgkill)", |targets| {
        let victim = targets.victim;
        // SAFETY: plain numbers.
        done(check(unsafe {
            libc::syscall(libc::SYS_tgkill, victim, victim, libc::SIGABRT)
        }))
    }),
    attack("change the application's limits", |targets| {
        // SAFETY: the kernel writes to and reads from one live struct.
        unsafe {
            let mut limit: libc::rlimit = std::mem::zeroed();
            check(libc::prlimit(
                targets.parent,
                libc::RLIMIT_NOFILE,
                std::ptr::null(),
                &raw mut limit,
            ))?;
            done(check(libc::prlimit(
                targets.parent,
                libc::RLIMIT_NOFILE,
                &raw const limit,
                std::ptr::null_mut(),
            )))
        }
    }),
    attack("unshare into a new user namespace", |_| {
        // SAFETY: changes nothing of this process' memory.
        done(check(unsafe { libc::unshare(libc::CLONE_NEWUSER) }))
    }),
    attack("unshare into new mounts", |_| {
        // SAFETY: changes nothing of this process' memory.
        done(check(unsafe { libc::unshare(libc::CLONE_NEWNS) }))
    })
    .of_root(NEEDS_CAPABILITY),
    attack("enter the application's namespace (setns)", |targets| {
        let pidfd = pidfd_open(targets.parent)?;
        // SAFETY: plain numbers.
        done(check(unsafe { libc::setns(pidfd, libc::CLONE_NEWNET) }))
    })
    .of_root(NEEDS_CAPABILITY),
    attack("become another user", |_| {
        // SAFETY: plain numbers.
        let become_another = check(unsafe { libc::setresuid(1, 1, 1) });
        match become_another {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(failed(NOBODY_ELSE)),
            other => done(other),
        }
    })
    .of_root(NEEDS_CAPABILITY),
    attack("undo the death signal", |_| {
        // SAFETY: plain numbers.
        done(check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) }))
    }),
    attack("3,000 threads", |_| many_threads()),
];

/// In a jail that an unprivileged user made there is no other user to become.
pub(crate) const NOBODY_ELSE: &str = "there is no other user";

fn reap(child: libc::pid_t) -> io::Result<()> {
    if child == 0 {
        // SAFETY: ends the child without running anything of it.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: waits for our own child.
    done(check(unsafe {
        libc::waitpid(child, std::ptr::null_mut(), 0)
    }))
}

/// The flags of `vfork` by `clone`: the memory is shared until the child ends, which it does at once.
fn vfork() -> io::Result<()> {
    #[cfg(target_arch = "x86_64")]
    {
        let child: i64;
        // SAFETY: the child shares this stack, but makes one system call, exit, and returns to nothing: it uses no stack.
        unsafe {
            std::arch::asm!(
                "syscall",
                "test rax, rax",
                "jnz 2f",
                "mov eax, 60",
                "xor edi, edi",
                "syscall",
                "2:",
                inlateout("rax") libc::SYS_vfork => child,
                out("rcx") _,
                out("r11") _,
                out("rdi") _,
            );
        }
        if child < 0 {
            return Err(io::Error::from_raw_os_error((-child) as i32));
        }
        reap(child as i32)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let flags = libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: with memory of its own the child ends at once.
        let child = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
        reap(child as i32)
    }
}

/// A program of two system calls: it writes that it runs, and exits.
#[cfg(target_arch = "x86_64")]
fn execute_from_memory() -> io::Result<()> {
    use std::io::Write;
    use std::os::fd::{AsRawFd, FromRawFd};
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let text = format!("{SUCCESS}\n");
    let code_bytes = 39;
    let text_at = u32::try_from(BASE + HEADERS + code_bytes).unwrap();
    let mut code = vec![0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0xbe];
    code.extend(text_at.to_le_bytes());
    code.push(0xba);
    code.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
    code.extend([0x0f, 0x05, 0xb8, 231, 0, 0, 0, 0xbf, 0, 0, 0, 0, 0x0f, 0x05]);
    code.resize(code_bytes as usize, 0x90);
    let size = HEADERS + code_bytes + text.len() as u64;
    let mut image = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    image.extend(2u16.to_le_bytes()); // executable
    image.extend(62u16.to_le_bytes()); // x86-64
    image.extend(1u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        image.extend(word.to_le_bytes());
    }
    image.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        image.extend(half.to_le_bytes());
    }
    image.extend(1u32.to_le_bytes()); // to be loaded
    image.extend(5u32.to_le_bytes()); // readable and executable
    for word in [0, BASE, BASE, size, size, 0x1000] {
        image.extend(word.to_le_bytes());
    }
    image.extend(&code);
    image.extend(text.as_bytes());
    let fd = memfd(0x10)?; // MFD_EXEC
    // SAFETY: the kernel has just made it for us.
    let mut file = unsafe { std::fs::File::from_raw_fd(fd) };
    file.write_all(&image)?;
    let nothing = [std::ptr::null::<libc::c_char>()];
    // SAFETY: empty path, and lists that end with a null pointer.
    done(check(unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            nothing.as_ptr(),
            nothing.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    }))
}

pub(super) fn memfd(flags: libc::c_uint) -> io::Result<libc::c_int> {
    // SAFETY: the name is a constant that ends with a zero byte.
    check(unsafe { libc::memfd_create(c"attack".as_ptr(), libc::MFD_CLOEXEC | flags) })
}

fn ptrace(request: libc::c_uint, pid: i32) -> io::Result<libc::c_long> {
    // SAFETY: this request takes numbers only.
    check(unsafe { libc::ptrace(request, pid, 0usize, 0usize) })
}

fn pidfd_open(pid: i32) -> io::Result<libc::c_int> {
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).map(|fd| fd as libc::c_int)
}

pub(super) fn is_secret(bytes: &[u8]) -> io::Result<()> {
    if bytes == SECRET {
        Ok(())
    } else {
        Err(failed("read something else"))
    }
}

/// Far more than a decoder could want.
fn many_threads() -> io::Result<()> {
    for _ in 0..3000 {
        let thread = std::thread::Builder::new().stack_size(16 << 10);
        thread.spawn(|| {
            loop {
                std::thread::park();
            }
        })?;
    }
    Ok(())
}
