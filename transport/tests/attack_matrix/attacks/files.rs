//! Files: reading, making, naming, watching them, and changing where they are.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

use super::{Attack, NEEDS_CAPABILITY, Targets, attack, check, done, failed, in_folder};

pub(super) const ATTACKS: &[Attack] = &[
    attack("read /etc/passwd", |_| full(fs::read("/etc/passwd")?.len())),
    attack("list the root", |_| {
        full(fs::read_dir("/")?.flatten().count())
    }),
    attack("read the application's environment by /proc", |targets| {
        full(fs::read(format!("/proc/{}/environ", targets.parent))?.len())
    }),
    attack("read the application's memory by /proc", |targets| {
        let path = format!("/proc/{}/mem", targets.parent);
        let memory = fs::File::open(path)?;
        let mut bytes = [0; super::SECRET.len()];
        let at = u64::try_from(targets.secret).unwrap();
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, at)?;
        super::process::is_secret(&bytes)
    }),
    attack("create a file", |targets| {
        done(fs::File::create(format!("{}/new", targets.folder)))
    }),
    attack("make a directory", |targets| {
        let path = format!("{}/directory-{}", targets.folder, rustix::thread::gettid());
        fs::create_dir(&path)?;
        fs::remove_dir(path)
    }),
    attack("make a symbolic link", |targets| {
        let path = format!("{}/link", targets.folder);
        std::os::unix::fs::symlink("/etc/passwd", &path)?;
        fs::remove_file(path)
    }),
    attack("make a FIFO", |targets| {
        let path = in_folder(targets, "fifo");
        // SAFETY: the path is alive and ends with a zero byte.
        check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) })?;
        fs::remove_file(format!("{}/fifo", targets.folder))
    }),
    attack("change a file's mode", |targets| {
        let path = format!("{}/victim", targets.folder);
        fs::set_permissions(path, fs::Permissions::from_mode(0o640))
    }),
    attack("truncate a file", |targets| {
        let path = in_folder(targets, "victim");
        // SAFETY: the path is alive and ends with a zero byte.
        done(check(unsafe { libc::truncate(path.as_ptr(), 1) }))
    }),
    attack("open a directory by handle", open_by_handle).of_root(NEEDS_CAPABILITY),
    attack("watch a directory (inotify)", |targets| {
        // SAFETY: plain numbers.
        let watcher = check(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) })?;
        let path = in_folder(targets, "");
        // SAFETY: the path is alive and ends with a zero byte.
        done(check(unsafe {
            libc::inotify_add_watch(watcher, path.as_ptr(), libc::IN_CREATE)
        }))
    }),
    attack("watch a directory (fanotify)", |targets| {
        // SAFETY: plain numbers.
        let watcher = check(unsafe {
            libc::fanotify_init(
                libc::FAN_CLASS_NOTIF | libc::FAN_REPORT_FID,
                libc::O_RDONLY as libc::c_uint,
            )
        })?;
        let path = in_folder(targets, "");
        // SAFETY: the path is alive and ends with a zero byte.
        done(check(unsafe {
            libc::fanotify_mark(
                watcher,
                libc::FAN_MARK_ADD,
                libc::FAN_CREATE | libc::FAN_ONDIR,
                libc::AT_FDCWD,
                path.as_ptr(),
            )
        }))
    }),
    attack("chroot", |targets| {
        let path = in_folder(targets, "");
        // SAFETY: the path is alive and ends with a zero byte.
        done(check(unsafe { libc::chroot(path.as_ptr()) }))
    })
    .of_root(NEEDS_CAPABILITY),
    attack("mount", |targets| {
        let path = in_folder(targets, "");
        rustix::mount::mount(
            c"tmpfs",
            &path,
            c"tmpfs",
            rustix::mount::MountFlags::empty(),
            None::<&std::ffi::CStr>,
        )?;
        Ok(rustix::mount::unmount(
            &path,
            rustix::mount::UnmountFlags::DETACH,
        )?)
    })
    .of_root(NEEDS_CAPABILITY),
    attack("copy the mounts (open_tree)", |_| {
        const OPEN_TREE_CLONE: libc::c_uint = 1;
        // SAFETY: the path is a constant that ends with a zero byte.
        done(check(unsafe {
            libc::syscall(
                libc::SYS_open_tree,
                libc::AT_FDCWD,
                c"/tmp".as_ptr(),
                OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint,
            )
        }))
    })
    .of_root(NEEDS_CAPABILITY),
];

fn full(bytes: usize) -> io::Result<()> {
    if bytes == 0 {
        Err(failed("empty"))
    } else {
        Ok(())
    }
}

fn open_by_handle(targets: &Targets) -> io::Result<()> {
    const ROOM: u32 = 128;
    // `struct file_handle`: its size, its kind, its bytes.
    let mut handle = [0u32; 2 + ROOM as usize / 4];
    handle[0] = ROOM;
    // For a directory it takes less privilege.
    let path = in_folder(targets, "cores");
    let mut mount: libc::c_int = 0;
    // SAFETY: the path is alive; the kernel writes at most as many bytes as the handle says that it has room for.
    check(unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            handle.as_mut_ptr(),
            &raw mut mount,
            0,
        )
    })?;
    let folder = fs::File::open(&targets.folder)?;
    // SAFETY: the handle is one that the kernel has just made.
    let opened = check(unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            std::os::fd::AsRawFd::as_raw_fd(&folder),
            handle.as_mut_ptr(),
            libc::O_RDONLY | libc::O_DIRECTORY,
        )
    });
    done(opened)
}
