//! Putting layers around the calling process, one after the other.
//!
//! Everything here is async-signal-safe: it makes system calls on values that were prepared before, allocates nothing and
//! takes no lock. For a static program it runs between `clone` and `exec`; a dynamic one needs its loader and libraries
//! first, so there it runs at the start of the program itself.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{Gid, Uid};

use super::landlock::{DenyAll, last_error};
use crate::sandbox::{HostQuotas, Layer, LayerSet, MAX_THREADS, Sandbox};

/// The user ids of hosts that an application with all privileges starts: this, and the host's process id.
pub(crate) const FIRST_HOST_USER: u32 = 1_600_000_000;
/// More process ids than the kernel ever gives.
pub(crate) const HOST_USERS: u32 = 1 << 22;

/// How a host becomes a user of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UserPlan {
    /// By a user id of its own.
    OwnId,
    /// By a user namespace, in which the application's user is mapped and no group.
    Namespace,
}

/// What came of each layer: an error number, or one of the two below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome(pub(crate) [i32; Layer::ALL.len()]);

/// Nothing was tried.
pub(crate) const NOT_TRIED: i32 = -1;

impl Outcome {
    pub(crate) const NOTHING: Self = Self([NOT_TRIED; Layer::ALL.len()]);

    pub(crate) fn get(&self, layer: Layer) -> i32 {
        self.0.get(layer as usize).copied().unwrap_or(NOT_TRIED)
    }

    pub(crate) fn set(&mut self, layer: Layer, result: Result<(), Errno>) {
        if let Some(place) = self.0.get_mut(layer as usize) {
            *place = result.err().map_or(0, Errno::raw_os_error);
        }
    }

    /// The same for one step of several: a step that failed is not made good by the next.
    fn add(&mut self, layer: Layer, result: Result<(), Errno>) {
        if self.get(layer) <= 0 {
            self.set(layer, result);
        }
    }
}

/// Layers ready to be put on.
#[derive(Debug)]
pub(crate) struct Layers {
    wanted: LayerSet,
    required: LayerSet,
    user: UserPlan,
    mount_point: CString,
    limits: Vec<(Resource, u64, u64)>,
    landlock: Result<DenyAll, Errno>,
    /// The one file that Landlock still lets be executed: a program that is not a sealed copy in memory.
    program: Option<RawFd>,
}

impl Layers {
    /// Prepares what `sandbox` asks for, without the namespaces that the kernel has refused already. `program` is the file
    /// that is to be executed afterwards, if it is one; it must be open when the layers are put on.
    pub(crate) fn prepare(
        sandbox: &Sandbox,
        user: UserPlan,
        refused: LayerSet,
        program: Option<BorrowedFd<'_>>,
    ) -> Self {
        let required = Layer::ALL
            .into_iter()
            .filter(|layer| sandbox.requires(*layer));
        // Any directory will do to mount something over that becomes the root.
        let mount_point = [c"/proc", c"/tmp", c"/dev", c"/etc", c"/usr"]
            .into_iter()
            .find(|path| rustix::fs::stat(*path).is_ok());
        let wanted = sandbox.layers.minus(refused);
        Self {
            wanted,
            required: required.collect(),
            user,
            mount_point: mount_point.unwrap_or(c"/").to_owned(),
            limits: limits(&sandbox.quotas, wanted.contains(Layer::OwnUser)),
            landlock: DenyAll::of_this_kernel(),
            program: program.map(|program| program.as_raw_fd()),
        }
    }

    fn put(
        &self,
        outcome: &mut Outcome,
        layer: Layer,
        put: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), (Layer, Errno)> {
        if !self.wanted.contains(layer) {
            return Ok(());
        }
        let result = put();
        outcome.add(layer, result);
        match result {
            Err(error) if self.required.contains(layer) => Err((layer, error)),
            _ => Ok(()),
        }
    }

    /// Puts all layers on that last beyond `exec`. `pid` is this process as the application sees it.
    ///
    /// The order matters: mounts need capabilities, a new user loses them and the death signal, Landlock forbids mounts
    /// and needs no-new-privileges.
    pub(crate) fn apply(&self, pid: u32, outcome: &mut Outcome) -> Result<(), (Layer, Errno)> {
        if self.wanted.contains(Layer::MountNamespace) {
            self.put(outcome, Layer::EmptyRoot, || {
                enter_empty_root(&self.mount_point)
            })?;
        }
        self.put(outcome, Layer::ResourceLimits, || {
            let mut limits = self.limits.iter().copied();
            limits.try_for_each(|(resource, soft, hard)| lower_limit(resource, soft, hard))
        })?;
        self.put(outcome, Layer::Capabilities, drop_bounding_set)?;
        if self.user == UserPlan::OwnId {
            self.put(outcome, Layer::OwnUser, || become_user(pid))?;
        }
        self.put(outcome, Layer::Capabilities, drop_capabilities)?;
        self.put(outcome, Layer::NoNewPrivileges, || {
            rustix::thread::set_no_new_privs(true)
        })?;
        self.put(outcome, Layer::NoWritableCode, deny_writable_code)?;
        self.put(outcome, Layer::NotDumpable, deny_dumps)?;
        self.put(outcome, Layer::Landlock, || {
            self.landlock?.enforce(self.program)
        })?;
        self.put(outcome, Layer::DeathSignal, die_with_parent)
    }

    /// The version of the kernel's Landlock.
    pub(crate) fn landlock_abi(&self) -> Option<u32> {
        self.landlock.ok().map(|landlock| landlock.abi())
    }

    /// Whether a layer is in force around this process, as far as it can see for itself; `None` where it cannot.
    pub(crate) fn measure(&self, layer: Layer, pid: u32) -> Option<bool> {
        Some(match layer {
            Layer::PidNamespace => rustix::process::getpid().is_init(),
            Layer::OwnUser if self.user == UserPlan::OwnId => {
                FIRST_HOST_USER.checked_add(pid) == Some(rustix::process::getuid().as_raw())
            }
            Layer::EmptyRoot => is_root_empty(),
            Layer::ResourceLimits => self.limits.iter().all(is_limited),
            Layer::Capabilities => has_no_capability(),
            Layer::NoNewPrivileges => rustix::thread::no_new_privs() == Ok(true),
            Layer::NoWritableCode => prctl(libc::PR_GET_MDWE, 0).is_ok_and(|bits| bits & 1 == 1),
            Layer::NotDumpable => !is_dumpable(),
            Layer::DeathSignal => {
                rustix::process::parent_process_death_signal() == Ok(Some(Signal::KILL))
            }
            // The root is readable for everybody; only Landlock can refuse it.
            Layer::Landlock => {
                let root = rustix::fs::open(
                    c"/",
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                    Mode::empty(),
                );
                matches!(root, Err(Errno::ACCESS))
            }
            _ => return None,
        })
    }
}

/// Whether a layer is around the thread that puts it on, and not around those that run already.
///
/// Of the others each is of the whole process: its memory, its limits, its file system; filters are put on all threads.
pub(crate) fn is_of_a_thread(layer: Layer, user: UserPlan) -> bool {
    match layer {
        Layer::OwnUser => user == UserPlan::OwnId,
        Layer::Capabilities | Layer::NoNewPrivileges | Layer::Landlock => true,
        _ => false,
    }
}

/// Whether other processes of the user may look into this one, as far as this itself can tell.
pub(crate) fn is_dumpable() -> bool {
    // 2, which the kernel alone can set and rustix does not know, is as good as 0 against other processes.
    !matches!(prctl(libc::PR_GET_DUMPABLE, 0), Ok(0 | 2))
}

fn is_limited((resource, soft, hard): &(Resource, u64, u64)) -> bool {
    let now = rustix::process::getrlimit(*resource);
    let within = |limit: Option<u64>, wanted: u64| limit.unwrap_or(u64::MAX) <= wanted;
    within(now.current, *soft) && within(now.maximum, *hard)
}

/// Asks for the signal that comes when the thread that started this process ends.
pub(crate) fn die_with_parent() -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
}

/// Makes the memory of this process unreadable for other processes of its user, and no core file.
pub(crate) fn deny_dumps() -> Result<(), Errno> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Maps, in a new user namespace, the user who made it, and nothing else.
///
/// `map` is the line, prepared before.
pub(crate) fn map_user(map: &[u8]) -> Result<(), Errno> {
    let file = rustix::fs::open(c"/proc/self/uid_map", OFlags::WRONLY, Mode::empty())?;
    rustix::io::write(&file, map).map(drop)
}

fn enter_empty_root(mount_point: &CStr) -> Result<(), Errno> {
    rustix::mount::mount_change(
        c"/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(
        c"portcullis",
        mount_point,
        c"tmpfs",
        flags,
        c"size=4k,nr_inodes=2,mode=555",
    )?;
    rustix::process::chdir(mount_point)?;
    // The new root goes over the old one, so that no directory for the old one is needed.
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")?;
    rustix::mount::mount_remount(c"/", flags | MountFlags::RDONLY | MountFlags::BIND, c"")
}

/// Lowers a limit; one that is lower already stays.
fn lower_limit(resource: Resource, soft: u64, hard: u64) -> Result<(), Errno> {
    let now = rustix::process::getrlimit(resource);
    let lower =
        |wanted: u64, limit: Option<u64>| Some(limit.map_or(wanted, |limit| limit.min(wanted)));
    let maximum = lower(hard, now.maximum);
    let limit = Rlimit {
        current: lower(soft, maximum),
        maximum,
    };
    rustix::process::setrlimit(resource, limit)
}

/// Process limits (soft, hard) for these quotas.
///
/// The kernel counts threads by user, so there is a limit only for a host that is a user of its own.
fn limits(quotas: &HostQuotas, is_own_user: bool) -> Vec<(Resource, u64, u64)> {
    // Keys may be locked in memory.
    const LOCKED_MEMORY: u64 = 1 << 20;
    let fixed = |resource, limit| (resource, limit, limit);
    // No core file, queue or priority; no limit of file sizes (a sink writes files).
    let mut limits = vec![
        fixed(Resource::Core, 0),
        fixed(Resource::Nofile, quotas.descriptors),
        fixed(Resource::Data, quotas.memory),
        fixed(Resource::As, quotas.address_space()),
        fixed(Resource::Memlock, LOCKED_MEMORY),
        fixed(Resource::Msgqueue, 0),
        fixed(Resource::Nice, 0),
        fixed(Resource::Rtprio, 0),
        fixed(Resource::Locks, 0),
        fixed(Resource::Sigpending, 256),
    ];
    if is_own_user {
        limits.push(fixed(Resource::Nproc, MAX_THREADS));
    }
    if let Some(seconds) = quotas.cpu_seconds() {
        // The first signal is caught and tells why; the second one cannot be.
        limits.push((Resource::Cpu, seconds, seconds.saturating_add(1)));
    }
    limits
}

fn become_user(pid: u32) -> Result<(), Errno> {
    let id = FIRST_HOST_USER.checked_add(pid).ok_or(Errno::OVERFLOW)?;
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)
}

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> Result<libc::c_int, Errno> {
    // SAFETY: only called below, for options whose arguments are numbers.
    let result = unsafe { libc::prctl(option, argument, 0, 0, 0) };
    if result < 0 {
        Err(last_error())
    } else {
        Ok(result)
    }
}

/// One beyond the highest capability that the interface could ever name.
const MAX_CAPABILITIES: libc::c_ulong = 64;

fn drop_bounding_set() -> Result<(), Errno> {
    for capability in 0..MAX_CAPABILITIES {
        match prctl(libc::PR_CAPBSET_READ, capability) {
            Ok(1) => prctl(libc::PR_CAPBSET_DROP, capability).map(drop)?,
            Ok(_) => {}
            // Beyond the kernel's last one.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn drop_capabilities() -> Result<(), Errno> {
    match rustix::thread::clear_ambient_capability_set() {
        // Kernels before 4.3 have none.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    let none = rustix::thread::CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    rustix::thread::set_capabilities(None, sets)
}

fn deny_writable_code() -> Result<(), Errno> {
    prctl(
        libc::PR_SET_MDWE,
        libc::PR_MDWE_REFUSE_EXEC_GAIN as libc::c_ulong,
    )
    .map(drop)
}

/// `TMPFS_MAGIC`
const TMPFS: i64 = 0x0102_1994;

fn is_root_empty() -> bool {
    let Ok(facts) = rustix::fs::statfs(c"/") else {
        return false;
    };
    let read_only = rustix::fs::statvfs(c"/")
        .is_ok_and(|facts| facts.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    // The one inode in use is the root itself.
    let used = facts.f_files.saturating_sub(facts.f_ffree);
    facts.f_type == TMPFS && read_only && used <= 1
}

fn has_no_capability() -> bool {
    let none = rustix::thread::capabilities(None).is_ok_and(|sets| {
        sets.effective.is_empty() && sets.permitted.is_empty() && sets.inheritable.is_empty()
    });
    let bounded = (0..MAX_CAPABILITIES)
        .all(|capability| !matches!(prctl(libc::PR_CAPBSET_READ, capability), Ok(1)));
    none && bounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_processor_time_is_set_only_when_asked_for() {
        let without = limits(&HostQuotas::default(), true);
        let quotas = HostQuotas {
            cpu_time: Some(std::time::Duration::from_millis(1500)),
            ..HostQuotas::default()
        };
        let with = limits(&quotas, true);
        assert_eq!(with.len(), without.len() + 1);
        let last = with.last().unwrap();
        assert_eq!((last.1, last.2), (2, 3));
        assert_eq!(limits(&quotas, false).len(), without.len());
    }

    #[test]
    fn every_limit_is_measured() {
        let now = rustix::process::getrlimit(Resource::Nofile);
        let (soft, hard) = (now.current.unwrap(), now.maximum.unwrap());
        assert!(is_limited(&(Resource::Nofile, soft, hard)));
        assert!(!is_limited(&(Resource::Nofile, soft - 1, hard)));
        assert!(!is_limited(&(Resource::Nofile, soft, hard - 1)));
    }

    #[test]
    fn a_failed_step_is_not_made_good_by_the_next() {
        let mut outcome = Outcome::NOTHING;
        outcome.add(Layer::Capabilities, Ok(()));
        assert_eq!(outcome.get(Layer::Capabilities), 0);
        outcome.add(Layer::Capabilities, Err(Errno::PERM));
        outcome.add(Layer::Capabilities, Ok(()));
        assert_eq!(outcome.get(Layer::Capabilities), libc::EPERM);
    }
}
