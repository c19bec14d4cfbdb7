//! Memory: running what was written, getting more than the quota, sharing with others, leaving traces.

use std::io;
use std::ptr;

use super::process::memfd;
use super::{Attack, attack, check, done, failed, in_folder};

pub(super) const ATTACKS: &[Attack] = &[
    attack("run writable memory (mmap RWX)", |_| {
        let page = map(
            RW | libc::PROT_EXEC,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            PAGE,
        )?;
        write_code(page);
        run(page)
    }),
    attack("make written memory executable (mprotect)", |_| {
        let page = written_page()?;
        // SAFETY: our own page.
        check(unsafe { libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC) })?;
        run(page)
    }),
    attack("make written memory executable (pkey_mprotect)", |_| {
        const NO_KEY: libc::c_int = -1;
        let page = written_page()?;
        // SAFETY: our own page.
        check(unsafe {
            libc::syscall(
                libc::SYS_pkey_mprotect,
                page,
                PAGE,
                libc::PROT_READ | libc::PROT_EXEC,
                NO_KEY,
            )
        })?;
        run(page)
    }),
    attack("run a mapped memfd", |_| {
        let file = memfd(0)?;
        // SAFETY: reads the live array.
        check(unsafe { libc::write(file, CODE.as_ptr().cast(), CODE.len()) })?;
        run(map(
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE,
            file,
            PAGE,
        )?)
    }),
    attack("make readable memory executable (personality)", |_| {
        // SAFETY: plain numbers.
        check(unsafe { libc::personality(libc::READ_IMPLIES_EXEC as libc::c_ulong) })?;
        let page = written_page()?;
        if is_executable(page)? {
            run(page)
        } else {
            Err(failed("not executable"))
        }
    }),
    attack("run shared memory (shmat)", |_| {
        // SAFETY: plain numbers.
        let segment =
            check(unsafe { libc::shmget(libc::IPC_PRIVATE, PAGE, libc::IPC_CREAT | 0o700) })?;
        // SAFETY: maps a segment of one page where the kernel likes, and gives it up.
        let page = unsafe {
            let page = libc::shmat(segment, ptr::null(), libc::SHM_EXEC);
            libc::shmctl(segment, libc::IPC_RMID, ptr::null_mut());
            page
        };
        if page.addr() == usize::MAX {
            return Err(io::Error::last_os_error());
        }
        write_code(page);
        run(page)
    }),
    attack("undo the ban of writable code", |_| {
        // SAFETY: plain numbers.
        check(unsafe { libc::prctl(libc::PR_SET_MDWE, 0, 0, 0, 0) })?;
        let page = map(
            RW | libc::PROT_EXEC,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            PAGE,
        )?;
        write_code(page);
        run(page)
    }),
    attack("a mapping of 6 GiB", |_| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        done(map(RW, flags, -1, 6 << 30))
    }),
    attack("a shared mapping of 24 GiB", |_| {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        done(map(RW, flags, -1, 24 << 30))
    }),
    attack("locked memory of 4 MiB", |_| {
        let pages = map(RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 4 << 20)?;
        // SAFETY: our own pages.
        done(check(unsafe { libc::mlock(pages, 4 << 20) }))
    }),
    attack("a memfd of 512 MiB", |_| fill_memfds(1, 512)).needs_group(),
    attack("512 memfds of 1 MiB", |_| fill_memfds(512, 1)).needs_group(),
    attack("5,000 descriptors", |_| {
        for _ in 0..5000 {
            // SAFETY: plain numbers.
            check(unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 0) })?;
        }
        Ok(())
    }),
    attack("raise the limit of descriptors", |_| {
        let limit = libc::rlimit {
            rlim_cur: 8000,
            rlim_max: 8000,
        };
        // SAFETY: the struct is alive.
        done(check(unsafe {
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
        }))
    }),
    attack("System V shared memory", |_| {
        // SAFETY: makes a segment and gives it up.
        unsafe {
            let segment = check(libc::shmget(
                libc::IPC_PRIVATE,
                PAGE,
                libc::IPC_CREAT | 0o700,
            ))?;
            done(check(libc::shmctl(
                segment,
                libc::IPC_RMID,
                ptr::null_mut(),
            )))
        }
    }),
    attack("System V queue of the application's", |_| {
        // SAFETY: plain numbers.
        done(check(unsafe { libc::msgget(QUEUE, 0) }))
    }),
    attack("POSIX queue", |_| {
        // Some hosts do not live to remove theirs.
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let name = std::ffi::CString::new(format!("/attack-{}", now.as_nanos())).unwrap();
        // SAFETY: the name is alive and ends with a zero byte.
        let queue = unsafe {
            libc::mq_open(
                name.as_ptr(),
                libc::O_CREAT | libc::O_RDWR,
                0o600,
                ptr::null_mut::<libc::mq_attr>(),
            )
        };
        check(queue)?;
        // SAFETY: the name is alive and ends with a zero byte.
        done(check(unsafe { libc::mq_unlink(name.as_ptr()) }))
    }),
    attack("become readable (PR_SET_DUMPABLE)", |_| {
        // SAFETY: plain numbers.
        check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) })?;
        // SAFETY: plain numbers.
        let now = check(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) })?;
        if now == 1 {
            Ok(())
        } else {
            Err(failed("not dumpable"))
        }
    }),
    // Whether there is a core the application sees.
    attack(CORE_FILE, |targets| {
        let folder = in_folder(targets, "cores");
        let limit = libc::rlimit {
            rlim_cur: libc::RLIM_INFINITY,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: the path is alive, the struct too; the rest are numbers. Each may fail: what counts is what comes of it.
        unsafe {
            libc::chdir(folder.as_ptr());
            libc::setrlimit(libc::RLIMIT_CORE, &raw const limit);
            libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            ptr::without_provenance_mut::<u8>(16).write_volatile(1);
        }
        Err(failed("no fault"))
    }),
];

/// The attack that is judged by what is left of it.
pub(crate) const CORE_FILE: &str = "leave a core file";

/// The key of a queue that the application has made.
pub(crate) const QUEUE: libc::key_t = 0x0070_c0de;

const PAGE: usize = 4096;
const RW: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;

/// A function that answers 42.
#[cfg(target_arch = "x86_64")]
const CODE: [u8; 6] = [0xb8, 42, 0, 0, 0, 0xc3];
#[cfg(target_arch = "aarch64")]
const CODE: [u8; 8] = [0x40, 0x05, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6];

fn map(
    protection: libc::c_int,
    flags: libc::c_int,
    file: libc::c_int,
    bytes: usize,
) -> io::Result<*mut libc::c_void> {
    // SAFETY: a new mapping where the kernel likes.
    let mapped = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, file, 0) };
    if mapped == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(mapped)
    }
}

fn written_page() -> io::Result<*mut libc::c_void> {
    let page = map(RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, PAGE)?;
    write_code(page);
    Ok(page)
}

fn write_code(page: *mut libc::c_void) {
    // SAFETY: only called with a writable page of our own.
    unsafe { ptr::copy_nonoverlapping(CODE.as_ptr(), page.cast(), CODE.len()) };
}

fn run(page: *mut libc::c_void) -> io::Result<()> {
    // SAFETY: only called with an executable page that begins with `CODE`, a function of this signature.
    let function: extern "C" fn() -> u32 = unsafe { std::mem::transmute(page) };
    if function() == 42 {
        Ok(())
    } else {
        Err(failed("it answered something else"))
    }
}

/// By the kernel's word: to run a page that is not would end us.
fn is_executable(page: *mut libc::c_void) -> io::Result<bool> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let begins = format!("{:x}-", page.addr());
    let line = maps.lines().find(|line| line.starts_with(&begins));
    // Neighbours with the same rights are one line.
    let line = line.or_else(|| {
        maps.lines().find(|line| {
            let range = line.split(' ').next().unwrap_or_default();
            let ends = range.split_once('-').map(|(from, to)| {
                [from, to].map(|end| usize::from_str_radix(end, 16).unwrap_or(0))
            });
            ends.is_some_and(|[from, to]| (from..to).contains(&page.addr()))
        })
    });
    Ok(line.is_some_and(|line| {
        line.split(' ')
            .nth(1)
            .is_some_and(|rights| rights.contains('x'))
    }))
}

/// Memory that no mapping of the process shows.
fn fill_memfds(count: usize, mebibytes: usize) -> io::Result<()> {
    let mebibyte = vec![1u8; 1 << 20];
    for _ in 0..count {
        let file = memfd(0)?;
        for _ in 0..mebibytes {
            // SAFETY: reads the live array.
            let written =
                check(unsafe { libc::write(file, mebibyte.as_ptr().cast(), mebibyte.len()) })?;
            if written.unsigned_abs() != mebibyte.len() {
                return Err(failed("written in part"));
            }
        }
    }
    Ok(())
}
