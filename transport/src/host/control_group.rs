//! A control group for a host: limits of memory and threads that the host cannot get around by sharing memory or forking.
//!
//! Only where this process may make groups, which mostly means root. Version 1 has a directory for each controller, version
//! 2 one for all; there a group that has processes cannot hand controllers down, so a host's group stands beside ours.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::sandbox::{HostQuotas, MAX_THREADS};
use crate::sys::spawn::spare;

/// The directories of a host's group. Removed when dropped.
#[derive(Debug)]
pub(super) struct ControlGroup {
    directories: Vec<PathBuf>,
    /// Where the kernel counts what it killed for memory.
    kills: PathBuf,
    /// Version 1: where the host's first thread enters, by itself. Moving another process makes the kernel wait until
    /// every processor has passed through it, which takes ten milliseconds; moving oneself does not.
    doors: Vec<OwnedFd>,
}

/// Where groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hierarchy {
    Unified(PathBuf),
    Separate { memory: PathBuf, pids: PathBuf },
}

impl ControlGroup {
    /// Makes a group with these limits.
    pub(super) fn make(quotas: &HostQuotas) -> io::Result<Self> {
        static HIERARCHY: Mutex<Option<Hierarchy>> = Mutex::new(None);
        let find = || {
            let found = own_hierarchy()?;
            sweep_aside(&found);
            Ok(found)
        };
        let mut known = HIERARCHY.lock().unwrap_or_else(PoisonError::into_inner);
        in_known(&mut known, find, |hierarchy| {
            Self::make_in(hierarchy, quotas)
        })
    }

    fn make_in(hierarchy: &Hierarchy, quotas: &HostQuotas) -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        static STARTED: OnceLock<u64> = OnceLock::new();
        let pid = std::process::id();
        let started = match STARTED.get() {
            Some(started) => *started,
            None => {
                let started = start_time(&format!("/proc/{pid}"))?;
                *STARTED.get_or_init(|| started)
            }
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // With its start an application is not taken for another one that had its number before.
        let name = format!("portcullis-{pid}-{started}-{number}");
        let memory = quotas.memory.to_string();
        let tasks = MAX_THREADS.to_string();
        let mut group = Self {
            directories: Vec::new(),
            kills: PathBuf::new(),
            doors: Vec::new(),
        };
        match hierarchy {
            Hierarchy::Unified(parent) => {
                let directory = group.add(parent, &name)?;
                group.kills = directory.join("memory.events");
                fs::write(directory.join("memory.max"), memory)?;
                // A limit of memory alone moves what is beyond it to the disk.
                write_if_there(&directory.join("memory.swap.max"), "0")?;
                fs::write(directory.join("pids.max"), tasks)?;
            }
            Hierarchy::Separate { memory: at, pids } => {
                let directory = group.add(at, &name)?;
                group.kills = directory.join("memory.oom_control");
                fs::write(directory.join("memory.limit_in_bytes"), &memory)?;
                // Memory and swap together; never below the limit of memory, so after it.
                write_if_there(&directory.join("memory.memsw.limit_in_bytes"), &memory)?;
                if at != pids {
                    group.add(pids, &name)?;
                }
                if let Some(directory) = group.directories.last() {
                    fs::write(directory.join("pids.max"), tasks)?;
                }
                for directory in &group.directories {
                    let door = OpenOptions::new()
                        .write(true)
                        .open(directory.join("tasks"))?;
                    group.doors.push(spare(&door.into())?);
                }
            }
        }
        Ok(group)
    }

    fn add(&mut self, parent: &Path, name: &str) -> io::Result<PathBuf> {
        let directory = parent.join(name);
        match fs::create_dir(&directory) {
            // Nobody else that lives has this name, and one that has processes stays.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_dir(&directory)?;
                fs::create_dir(&directory)?;
            }
            made => made?,
        }
        self.directories.push(directory.clone());
        Ok(directory)
    }

    /// Where a process that has one thread enters by writing `0`; empty where it has to be admitted.
    pub(super) fn doors(&self) -> &[OwnedFd] {
        &self.doors
    }

    /// Nobody enters any more.
    pub(super) fn close(mut self) -> Self {
        self.doors = Vec::new();
        self
    }

    /// Moves a process into it that did not enter by itself.
    pub(super) fn admit(&self, pid: u32) -> io::Result<()> {
        if !self.doors.is_empty() {
            return Ok(());
        }
        self.directories
            .iter()
            .try_for_each(|directory| fs::write(directory.join("cgroup.procs"), pid.to_string()))
    }

    /// Whether the kernel killed something in it for its memory.
    pub(super) fn is_out_of_memory(&self) -> bool {
        let counts = fs::read_to_string(&self.kills).unwrap_or_default();
        counts
            .lines()
            .filter_map(|line| line.split_once(' '))
            .any(|(name, count)| name == "oom_kill" && count != "0")
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        for directory in &self.directories {
            if let Err(error) = fs::remove_dir(directory) {
                tracing::debug!(%error, directory = %directory.display(), "a control group stays");
            }
        }
    }
}

/// Makes something where groups can be made, which is found out once, and again if it is gone: somebody may have moved this
/// process to another group and removed the former one.
fn in_known<T>(
    known: &mut Option<Hierarchy>,
    find: impl Fn() -> io::Result<Hierarchy>,
    make: impl Fn(&Hierarchy) -> io::Result<T>,
) -> io::Result<T> {
    if let Some(hierarchy) = known.as_ref() {
        match make(hierarchy) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            made => return made,
        }
    }
    make(known.insert(find()?))
}

/// A group without processes may be one that its application is just about to fill.
const FRESH: std::time::Duration = std::time::Duration::from_secs(60);

/// Sweeps on a thread of its own, as there may be thousands.
fn sweep_aside(hierarchy: &Hierarchy) {
    let parents = match hierarchy.clone() {
        Hierarchy::Unified(parent) => vec![parent],
        Hierarchy::Separate { memory, pids } => vec![memory, pids],
    };
    let swept = std::thread::Builder::new()
        .name("portcullis-sweep".into())
        .spawn(move || parents.iter().for_each(|parent| sweep(parent)));
    if let Err(error) = swept {
        tracing::debug!(%error, "control groups of applications that are gone stay");
    }
}

/// Removes groups of applications that are gone: one that is killed cannot remove those of the hosts that die with it.
///
/// Who is gone is known only of applications in our own pid namespace; with others we may share the hierarchy.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        // Looked at only where it could be one: there are many files beside it.
        let Some(application) = name.to_str().and_then(application) else {
            continue;
        };
        let made = entry.metadata().and_then(|facts| facts.modified());
        let is_fresh = made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < FRESH));
        // The kernel keeps one that has processes.
        if !is_fresh
            && is_gone(application)
            && let Err(error) = fs::remove_dir(entry.path())
        {
            tracing::debug!(%error, "a control group of an application that is gone stays");
        }
    }
}

/// Of which application a group with this name is: its process id, and when that started.
fn application(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix("portcullis-")?.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn is_gone((pid, started): (u32, u64)) -> bool {
    match start_time(&format!("/proc/{pid}")) {
        Ok(now) => now != started,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// When the process with this directory under `/proc` started, in ticks since the machine did.
fn start_time(process: &str) -> io::Result<u64> {
    let stat = fs::read_to_string(Path::new(process).join("stat"))?;
    // The name, which may contain anything, ends with the last bracket; the time is the 20th field behind it.
    let time = stat
        .rsplit_once(')')
        .and_then(|(_, fields)| fields.split_whitespace().nth(19)?.parse().ok());
    time.ok_or_else(|| io::Error::other("no start time in /proc/PID/stat"))
}

/// Not every kernel accounts for swap.
fn write_if_there(file: &Path, text: &str) -> io::Result<()> {
    // Not `fs::write`, which would ask to create it.
    match OpenOptions::new().write(true).open(file) {
        Ok(mut file) => file.write_all(text.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn own_hierarchy() -> io::Result<Hierarchy> {
    let membership = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    hierarchy(&membership, &mounts).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::Unsupported,
            "no hierarchy with the controllers memory and pids",
        )
    })
}

/// The directory of our own group where it can be reached: groups made there are below ours (version 1) or beside us.
fn hierarchy(membership: &str, mounts: &str) -> Option<Hierarchy> {
    let separate = |controller: &str| {
        let group = membership.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            let path = fields.next()?;
            let named = controllers.split(',').any(|name| name == controller);
            named.then_some(path)
        })?;
        mounted(mounts, "cgroup", Some(controller), group)
    };
    if let (Some(memory), Some(pids)) = (separate("memory"), separate("pids")) {
        return Some(Hierarchy::Separate { memory, pids });
    }
    let group = membership
        .lines()
        .find_map(|line| line.strip_prefix("0::"))?;
    let own = mounted(mounts, "cgroup2", None, group)?;
    // Beside our own group, or below it when it is the root, which alone may have both processes and groups with limits.
    let parent = if group == "/" {
        own
    } else {
        own.parent()?.to_path_buf()
    };
    let controllers = fs::read_to_string(parent.join("cgroup.subtree_control")).ok()?;
    let has = |name| controllers.split_whitespace().any(|known| known == name);
    (has("memory") && has("pids")).then_some(Hierarchy::Unified(parent))
}

/// Where a group's directory is, given the mounts of its file system.
fn mounted(mounts: &str, kind: &str, option: Option<&str>, group: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (place, source) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut source = source.split(' ');
        let options = source.next_back()?;
        let fits = source.next() == Some(kind)
            && option.is_none_or(|wanted| options.split(',').any(|known| known == wanted));
        let below = Path::new(group).strip_prefix(root).ok()?;
        fits.then(|| Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 24 0:26 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw
31 24 0:27 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
32 24 0:28 /docker/x /sys/fs/cgroup/pids rw,nosuid - cgroup cgroup rw,pids
";

    #[test]
    fn separate_hierarchies_are_found() {
        let membership = "3:pids:/docker/x/inner\n2:memory:/a\n0::/\n";
        assert_eq!(
            hierarchy(membership, MOUNTS),
            Some(Hierarchy::Separate {
                memory: "/sys/fs/cgroup/memory/a".into(),
                pids: "/sys/fs/cgroup/pids/inner".into(),
            })
        );
        assert_eq!(hierarchy("nonsense", MOUNTS), None);
        assert_eq!(hierarchy(membership, "nonsense - \n"), None);
    }

    #[test]
    fn a_hierarchy_that_is_gone_is_looked_for_once_more() {
        use std::cell::Cell;
        let (looks, tries) = (Cell::new(0), Cell::new(0));
        let mut known = None;
        // The group is each time the one of this number.
        let mut make = |number: u32, there: u32| {
            let find = || {
                looks.set(looks.get() + 1);
                Ok(Hierarchy::Unified(number.to_string().into()))
            };
            in_known(&mut known, find, |hierarchy| {
                tries.set(tries.get() + 1);
                let is_there = *hierarchy == Hierarchy::Unified(there.to_string().into());
                is_there
                    .then_some(there)
                    .ok_or_else(|| io::ErrorKind::NotFound.into())
            })
        };
        assert_eq!((make(1, 1).unwrap(), make(2, 1).unwrap()), (1, 1));
        assert_eq!((looks.get(), tries.get()), (1, 2), "known");
        assert_eq!(make(2, 2).unwrap(), 2);
        assert_eq!((looks.get(), tries.get()), (2, 4), "moved");
        assert!(make(3, 4).is_err());
        assert_eq!((looks.get(), tries.get()), (3, 6), "and no more than once");
    }

    #[test]
    fn an_application_is_not_taken_for_one_that_had_its_number() {
        let pid = std::process::id();
        let started = start_time("/proc/self").unwrap();
        let name = |started: u64| format!("portcullis-{pid}-{started}-0");
        let is_gone = |name: &str| application(name).map(is_gone);
        assert_eq!(is_gone(&name(started)), Some(false));
        assert_eq!(is_gone(&name(started - 1)), Some(true));
        assert_eq!(is_gone("portcullis-4294967295-1-0"), Some(true));
        for other in [
            "portcullis-",
            "portcullis-x-1-0",
            "portcullis-1",
            "system.slice",
        ] {
            assert_eq!(is_gone(other), None, "{other}");
        }
    }

    #[test]
    fn a_group_that_is_left_over_is_made_anew() {
        let parent = std::env::temp_dir().join(format!("portcullis-groups-{}", std::process::id()));
        fs::create_dir_all(parent.join("a")).unwrap();
        let mut group = ControlGroup {
            directories: Vec::new(),
            kills: PathBuf::new(),
            doors: Vec::new(),
        };
        let directory = group.add(&parent, "a").unwrap();
        fs::write(directory.join("process"), "").unwrap();
        assert!(group.add(&parent, "a").is_err(), "one with processes stays");
        fs::remove_file(directory.join("process")).unwrap();
        write_if_there(&directory.join("memory.swap.max"), "0").unwrap();
        drop(group);
        assert!(!directory.exists());
        fs::remove_dir(parent).unwrap();
    }
}
