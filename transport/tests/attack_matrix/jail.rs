//! The throw-away surroundings: namespaces of every kind, a control group, empty writable directories.
//!
//! The process that the test program clones into them is their first one: when it ends the kernel ends everything in them.
//! Being root there is being root over nothing else, so what has no namespace (the clock, kernel programs) stays closed.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use super::{STAGE, filter, is_whole};

/// An unprivileged user that needs no entry anywhere.
pub(crate) const SOMEBODY: u32 = 4242;

/// Where each application leaves its part of the table.
pub(crate) const RESULTS: &str = "/tmp/results";

/// Process ids inside begin here, so that none of them is also one of a host's own namespace.
const FIRST_PID: &str = "1000";

const FLAGS: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// The test itself: makes the jail, and waits for what comes out of it.
pub(crate) fn run() -> ExitCode {
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        raise_limits();
    }
    let (mapped, map_in) = pipe();
    let outer = namespaces();
    // SAFETY: this process has one thread, so the child may go on as if it had been forked; it owns copies of everything.
    let child = unsafe {
        libc::syscall(
            libc::SYS_clone,
            FLAGS | libc::SIGCHLD,
            0usize,
            0usize,
            0usize,
            0usize,
        )
    };
    if child < 0 {
        let error = std::io::Error::last_os_error();
        println!(
            "LEFT OUT: the attacks need throw-away namespaces, and this machine gives none: {error}"
        );
        return ExitCode::SUCCESS;
    }
    if child == 0 {
        drop(map_in);
        // SAFETY: plain numbers.
        let dies_with_us = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        assert_eq!(dies_with_us, 0);
        let is_mapped = fs::File::from(mapped).read(&mut [0]).unwrap() == 1;
        assert!(is_mapped, "nobody made our user map");
        live(is_root, &outer);
    }
    drop(mapped);
    // The jail ends with us.
    // SAFETY: plain numbers.
    unsafe { libc::alarm(if is_whole() { 900 } else { 180 }) };
    let group = is_root.then(|| Group::make(child)).flatten();
    let maps = if is_root {
        ["0 0 4294967295", "0 0 4294967295"].map(str::to_owned)
    } else {
        let map = |id| format!("0 {id} 1");
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        [map(user.as_raw()), map(group.as_raw())]
    };
    fs::write(
        format!("/proc/{child}/setgroups"),
        if is_root { "allow" } else { "deny" },
    )
    .unwrap();
    for (name, map) in ["uid_map", "gid_map"].into_iter().zip(maps) {
        fs::write(format!("/proc/{child}/{name}"), map).unwrap();
    }
    fs::File::from(map_in).write_all(&[1]).unwrap();
    let mut status = 0;
    // SAFETY: waits for our own child and writes to a live integer.
    let waited = unsafe { libc::waitpid(child as libc::pid_t, &raw mut status, 0) };
    assert_eq!(i64::from(waited), child);
    drop(group);
    if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 {
        ExitCode::SUCCESS
    } else {
        println!("the attacks ended with status {status:#x}");
        ExitCode::FAILURE
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

/// Core files and many descriptors must be possible where no layer forbids them.
fn raise_limits() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    for (resource, limit) in [(Resource::Core, None), (Resource::Nofile, Some(20_000))] {
        let limit = Rlimit {
            current: limit,
            maximum: limit,
        };
        if let Err(error) = setrlimit(resource, limit) {
            println!("the limit of {resource:?} stays: {error}");
        }
    }
}

fn namespaces() -> Vec<PathBuf> {
    ["user", "mnt", "pid", "net", "ipc", "uts"]
        .map(|name| fs::read_link(format!("/proc/self/ns/{name}")).unwrap())
        .into()
}

/// A control group of the jail's own: in it the hosts' groups are made, away from those of anybody else.
struct Group(Vec<PathBuf>);

impl Group {
    fn make(child: libc::c_long) -> Option<Self> {
        let name = format!("attack-matrix-{}", std::process::id());
        let mut made = Self(Vec::new());
        for controller in ["memory", "pids"] {
            let directory = PathBuf::from(format!("/sys/fs/cgroup/{controller}")).join(&name);
            let result = fs::create_dir(&directory).and_then(|()| {
                made.0.push(directory.clone());
                fs::write(directory.join("cgroup.procs"), child.to_string())
            });
            if let Err(error) = result {
                println!("the jail has no control group of its own: {error}");
                return None;
            }
        }
        Some(made)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for directory in &self.0 {
            for inner in fs::read_dir(directory).into_iter().flatten().flatten() {
                // Only directories can be removed; the files of the kernel stay.
                let _ = fs::remove_dir(inner.path());
            }
            if let Err(error) = fs::remove_dir(directory) {
                println!("{} stays: {error}", directory.display());
            }
        }
    }
}

/// The first process inside.
fn live(is_root: bool, outer: &[PathBuf]) -> ! {
    let ours = namespaces_of_first();
    assert_eq!(std::process::id(), 1, "the first in a new pid namespace");
    furnish();
    for (ours, theirs) in ours.iter().zip(outer) {
        assert_ne!(ours, theirs, "not in a namespace of our own");
    }
    // SAFETY: plain numbers.
    let failed = unsafe { libc::setsid() } < 0;
    assert!(!failed);
    let users: &[u32] = if is_root { &[0, SOMEBODY] } else { &[0] };
    if !is_root {
        println!(
            "LEFT OUT: only root can also try the attacks and the debugger as another user; here the one user is root in the jail"
        );
    }
    let mut all_well = true;
    for user in users {
        let begin = std::time::Instant::now();
        all_well &= run_as(*user);
        println!("user {user}: {:.1} s", begin.elapsed().as_secs_f64());
    }
    let mut table = String::from(super::table::HEAD);
    for user in users {
        table += &fs::read_to_string(format!("{RESULTS}/{user}.md")).unwrap_or_default();
    }
    if filter().is_none() && all_well {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let path = path.parent().unwrap().join("attack-matrix.md");
        match fs::write(&path, &table) {
            Ok(()) => println!("written to {}", path.display()),
            Err(error) => println!("not written to {}: {error}", path.display()),
        }
    }
    print!("{table}");
    std::io::stdout().flush().unwrap();
    std::process::exit(i32::from(!all_well));
}

/// As `namespaces`, before there is a `/proc` of our own: the old one shows us under `/proc/self` nowhere, so it is asked
/// by the thread that it knows.
fn namespaces_of_first() -> Vec<PathBuf> {
    make_private();
    mount(c"proc", c"/proc", c"proc");
    namespaces()
}

fn make_private() {
    use rustix::mount::{MountPropagationFlags, mount_change};
    let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change(c"/", flags).unwrap();
}

fn mount(source: &std::ffi::CStr, target: &std::ffi::CStr, kind: &std::ffi::CStr) {
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(source, target, kind, flags, None::<&std::ffi::CStr>)
        .unwrap_or_else(|error| panic!("mount {target:?}: {error}"));
}

fn furnish() {
    mount(c"tmpfs", c"/tmp", c"tmpfs");
    fs::create_dir(RESULTS).unwrap();
    open_to_all(RESULTS);
    open_to_all("/tmp");
    if let Err(error) = fs::write("/proc/sys/kernel/ns_last_pid", FIRST_PID) {
        println!("process ids begin at 1: {error}");
    }
    // A core file, where none is forbidden, lies where a process is.
    std::env::set_current_dir("/tmp").unwrap();
    fs::copy("/proc/self/exe", "/tmp/privileged").unwrap();
    fs::set_permissions("/tmp/privileged", fs::Permissions::from_mode(0o4755)).unwrap();
    loopback_up();
}

fn open_to_all(path: &str) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
}

/// A new network namespace has a loopback that is down.
fn loopback_up() {
    // SAFETY: `ifreq` is plain data for which zero is valid; the kernel reads and writes the live struct.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        assert!(socket >= 0);
        let socket_owned = OwnedFd::from_raw_fd(socket);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
            *place = *byte as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        assert_eq!(
            libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw const request),
            0
        );
        drop(socket_owned);
    }
}

/// One application, as this user of the jail.
fn run_as(user: u32) -> bool {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/proc/self/exe");
    command.args(filter()).env_clear().env(STAGE, "application");
    if is_whole() {
        command.env("PORTCULLIS_ATTACKS", "all");
    }
    if user != 0 {
        command.uid(user).gid(user);
    }
    let status = command.status().unwrap();
    if !status.success() {
        println!("the application of user {user}: {status}");
    }
    status.success()
}
