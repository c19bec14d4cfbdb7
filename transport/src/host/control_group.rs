//! A control group for a host: limits of memory and threads that the host cannot get around by sharing memory or forking.
//!
//! Only where this process may make groups, which mostly means root. Version 1 has a directory for each controller, version
//! 2 one for all; there a group that has processes cannot hand controllers down, so a host's group stands beside ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sandbox::{HostQuotas, MAX_THREADS};

/// The directories of a host's group. Removed when dropped.
#[derive(Debug)]
pub(super) struct ControlGroup {
    directories: Vec<PathBuf>,
    /// Where the kernel counts what it killed for memory.
    kills: PathBuf,
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
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let membership = fs::read_to_string("/proc/self/cgroup")?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let hierarchy = hierarchy(&membership, &mounts).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "no hierarchy with the controllers memory and pids",
            )
        })?;
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| match &hierarchy {
            Hierarchy::Unified(parent) => sweep(parent),
            Hierarchy::Separate { memory, pids } => {
                [memory, pids].into_iter().for_each(|at| sweep(at))
            }
        });
        let name = format!(
            "portcullis-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let memory = quotas.memory.to_string();
        let tasks = MAX_THREADS.to_string();
        let mut group = Self {
            directories: Vec::new(),
            kills: PathBuf::new(),
        };
        match hierarchy {
            Hierarchy::Unified(parent) => {
                let directory = group.add(&parent, &name)?;
                group.kills = directory.join("memory.events");
                fs::write(directory.join("memory.max"), memory)?;
                fs::write(directory.join("pids.max"), tasks)?;
            }
            Hierarchy::Separate { memory: at, pids } => {
                let directory = group.add(&at, &name)?;
                group.kills = directory.join("memory.oom_control");
                fs::write(directory.join("memory.limit_in_bytes"), memory)?;
                if at != pids {
                    group.add(&pids, &name)?;
                }
                if let Some(directory) = group.directories.last() {
                    fs::write(directory.join("pids.max"), tasks)?;
                }
            }
        }
        Ok(group)
    }

    fn add(&mut self, parent: &Path, name: &str) -> io::Result<PathBuf> {
        let directory = parent.join(name);
        fs::create_dir(&directory)?;
        self.directories.push(directory.clone());
        Ok(directory)
    }

    /// Moves a process into it.
    pub(super) fn admit(&self, pid: u32) -> io::Result<()> {
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

/// A group without processes may be one that its application is just about to fill.
const FRESH: std::time::Duration = std::time::Duration::from_secs(60);

/// Removes groups of applications that are gone: one that is killed cannot remove those of the hosts that die with it.
///
/// Who is gone is known only of applications in our own pid namespace; with others we may share the hierarchy.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix("portcullis-"));
        let pid = pid
            .and_then(|rest| rest.split_once('-'))
            .map(|(pid, _)| pid);
        let is_gone = pid
            .and_then(|pid| pid.parse::<u32>().ok())
            .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        let made = entry.metadata().and_then(|facts| facts.modified());
        let is_fresh = made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < FRESH));
        // The kernel keeps one that has processes.
        if is_gone
            && !is_fresh
            && let Err(error) = fs::remove_dir(entry.path())
        {
            tracing::debug!(%error, "a control group of an application that is gone stays");
        }
    }
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
}
