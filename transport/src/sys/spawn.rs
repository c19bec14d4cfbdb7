//! The birth of a host: `clone3` into new namespaces, and what the child does until its program runs.
//!
//! The child is a copy of a process with other threads, so between `clone` and `exec` it makes only system calls, on values
//! that were prepared before: it allocates nothing, takes no lock, and cannot panic. What fails comes back through a pipe
//! that closes when the program runs.
//!
//! The child is born with copies of all descriptors of the application, also of the application's ends of the two pipes
//! between them. It closes those first: only then does the end of the application end its waiting, and show on the other
//! pipe. Until it closes them, and again from the change of its user on, nothing but these pipes ends it with its parent.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::filter::put_on_all_threads;
use super::landlock::last_error;
use super::layers::{self, Layers, Outcome};
use crate::sandbox::{Layer, LayerSet};

/// The first descriptor that is not handed down: standard streams, the link, the last note.
pub(crate) const INHERITED_DESCRIPTORS: usize = 5;

/// Beyond the inherited ones, so that none is overwritten before it is moved.
const SPARE_DESCRIPTOR: RawFd = 16;

/// Where a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Layer(Layer),
    Parent,
    ProcessGroup,
    Exec,
}

const PARENT: u32 = 100;
const PROCESS_GROUP: u32 = 101;
const EXEC: u32 = 102;

impl Step {
    fn number(self) -> u32 {
        match self {
            Self::Layer(layer) => layer as u32,
            Self::Parent => PARENT,
            Self::ProcessGroup => PROCESS_GROUP,
            Self::Exec => EXEC,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            PARENT => Self::Parent,
            PROCESS_GROUP => Self::ProcessGroup,
            EXEC => Self::Exec,
            number => Self::Layer(Layer::from_number(u8::try_from(number).ok()?)?),
        })
    }
}

/// What the child said before its program ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The program runs.
    Running,
    /// Nobody can begin to trace it any more, and it waits.
    Private,
    /// It does not.
    Failed(Step, Errno),
    /// There was no program to run; this came of the layers.
    Tried(Outcome),
    /// The child ended without a word.
    Nothing,
}

impl Report {
    /// Understands what came through the status pipe until its end. `tries` says that no program was to run.
    pub(crate) fn decode(bytes: &[u8], tries: bool) -> Self {
        let mut words = bytes.chunks_exact(4).map(|word| {
            let word: [u8; 4] = word.try_into().unwrap_or_default();
            i32::from_ne_bytes(word)
        });
        if bytes.is_empty() {
            return if tries { Self::Nothing } else { Self::Running };
        }
        if bytes == PRIVATE {
            return Self::Private;
        }
        if let (FAILED_BYTES, Some(step), Some(error)) = (bytes.len(), words.next(), words.next()) {
            return match Step::from_number(step.cast_unsigned()) {
                Some(step) => Self::Failed(step, Errno::from_raw_os_error(error)),
                None => Self::Nothing,
            };
        }
        let mut outcome = Outcome::NOTHING;
        let words = bytes.chunks_exact(4);
        for (place, word) in outcome.0.iter_mut().zip(words) {
            *place = i32::from_ne_bytes(word.try_into().unwrap_or_default());
        }
        Self::Tried(outcome)
    }
}

const FAILED_BYTES: usize = 8;

/// Says that the child is private. Of another length than the other reports.
const PRIVATE: &[u8] = b"priv";

/// Most that a child reports.
pub(crate) const REPORT_BYTES: usize = 4 * Layer::ALL.len();

/// A string of the environment, of which the child fills in the last `room` bytes.
#[derive(Debug)]
pub(crate) struct Blank {
    bytes: Vec<u8>,
    room: usize,
}

impl Blank {
    pub(crate) fn new(name: &str, room: usize) -> Self {
        let mut bytes = format!("{name}=").into_bytes();
        bytes.extend(std::iter::repeat_n(b'0', room));
        bytes.push(0);
        Self { bytes, room }
    }

    fn filling(&mut self) -> &mut [u8] {
        let end = self.bytes.len().saturating_sub(1);
        self.bytes
            .get_mut(end.saturating_sub(self.room)..end)
            .unwrap_or_default()
    }
}

/// Digits of a process id in the environment.
pub(crate) const PID_DIGITS: usize = 10;
/// Hexadecimal digits for each layer's outcome in the environment.
pub(crate) const OUTCOME_DIGITS: usize = 4;

/// A host about to be born.
#[derive(Debug)]
pub(crate) struct Birth<'a> {
    /// What is executed; without it the child only tries the layers.
    pub(crate) image: Option<BorrowedFd<'a>>,
    pub(crate) arguments: Vec<CString>,
    pub(crate) environment: Vec<CString>,
    /// Its process id as we see it.
    pub(crate) pid: Blank,
    /// What came of each layer.
    pub(crate) outcome_text: Blank,
    /// Its descriptors from 0 on.
    pub(crate) descriptors: [BorrowedFd<'a>; INHERITED_DESCRIPTORS],
    /// Tells the child its process id, and that it may go on.
    pub(crate) go: BorrowedFd<'a>,
    /// By which the child tells what failed.
    pub(crate) status: BorrowedFd<'a>,
    /// The numbers of the other ends of both, which are the parent's alone: the child closes its copies.
    pub(crate) parents_ends: [RawFd; 2],
    /// The namespaces that it gets.
    pub(crate) namespaces: LayerSet,
    /// The network namespace that it enters instead of getting a new one.
    pub(crate) network: Option<BorrowedFd<'a>>,
    /// The line of the user map, if it gets a user namespace.
    pub(crate) user_map: Option<Vec<u8>>,
    /// Files to which it writes `0` to enter its control group, with the rights of whoever opened them.
    pub(crate) doors: &'a [OwnedFd],
    /// Whether it must not be traced: then it says when nobody can begin to, and waits for `go` afterwards.
    pub(crate) is_private: bool,
    /// The layers that are put on before the program runs.
    pub(crate) layers: Option<&'a Layers>,
    pub(crate) outcome: Outcome,
}

/// Moves a descriptor out of the way of the inherited ones; it closes at `exec`.
pub(crate) fn spare(descriptor: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(descriptor, SPARE_DESCRIPTOR)
}

/// Keeps all signals away from the calling thread: they are for the application's own threads, and a child must not run
/// the application's handlers.
pub(crate) fn block_signals() {
    // SAFETY: `sigset_t` is plain data, filled in before it is used; only this thread's mask changes.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

impl Birth<'_> {
    /// Makes the child. It waits until its process id is written to `go`.
    pub(crate) fn give(mut self) -> Result<(Pid, OwnedFd), Errno> {
        let arguments = pointers(self.arguments.iter().map(|text| text.as_ptr()));
        let blanks = [
            self.pid.bytes.as_ptr().cast::<libc::c_char>(),
            self.outcome_text.bytes.as_ptr().cast(),
        ];
        let environment = self.environment.iter().map(|text| text.as_ptr());
        let environment = pointers(environment.chain(blanks));
        let mut flags = libc::CLONE_PIDFD;
        for (layer, flag) in [
            (Layer::PidNamespace, libc::CLONE_NEWPID),
            (Layer::NetworkNamespace, libc::CLONE_NEWNET),
            (Layer::MountNamespace, libc::CLONE_NEWNS),
            (Layer::IpcNamespace, libc::CLONE_NEWIPC),
            (Layer::UtsNamespace, libc::CLONE_NEWUTS),
            (Layer::CgroupNamespace, libc::CLONE_NEWCGROUP),
        ] {
            let is_there = layer == Layer::NetworkNamespace && self.network.is_some();
            if self.namespaces.contains(layer) && !is_there {
                flags |= flag;
            }
        }
        if self.user_map.is_some() {
            flags |= libc::CLONE_NEWUSER;
        }
        let mut pidfd: RawFd = -1;
        // SAFETY: without CLONE_VM the child has memory of its own and goes on behind the call like a forked one, on this
        // very stack; it runs `live` only, which never returns. All signals are blocked in this thread, so no handler of
        // the application runs in the child.
        let child = unsafe { clone(flags.cast_unsigned(), &mut pidfd) }?;
        if child == 0 {
            self.live(&arguments, &environment);
        }
        let pid = Pid::from_raw(child).ok_or(Errno::CHILD)?;
        // SAFETY: the kernel has just made this descriptor for us.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok((pid, pidfd))
    }

    /// The child, until it is another program.
    fn live(
        &mut self,
        arguments: &[*const libc::c_char],
        environment: &[*const libc::c_char],
    ) -> ! {
        let Err((step, error)) = self.become_host(arguments, environment);
        let mut report = [0; FAILED_BYTES];
        let words = [step.number(), error.raw_os_error().cast_unsigned()];
        for (place, word) in report.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        self.end(&report)
    }

    fn end(&self, report: &[u8]) -> ! {
        // Fits into an empty pipe; if nobody reads it any more there is nobody to tell.
        let _ = rustix::io::write(self.status, report);
        // SAFETY: ends this process without running anything of it.
        unsafe { libc::_exit(127) }
    }

    fn become_host(
        &mut self,
        arguments: &[*const libc::c_char],
        environment: &[*const libc::c_char],
    ) -> Result<std::convert::Infallible, (Step, Errno)> {
        let at = |step: Step| move |error: Errno| (step, error);
        layers::die_with_parent().map_err(at(Step::Layer(Layer::DeathSignal)))?;
        self.close_parents_ends();
        for door in self.doors {
            rustix::io::write(door, b"0").map_err(at(Step::Layer(Layer::ControlGroup)))?;
        }
        if let Some(network) = self.network {
            move_into_link_name_space(network, Some(LinkNameSpaceType::Network))
                .map_err(at(Step::Layer(Layer::NetworkNamespace)))?;
        }
        if let Some(map) = &self.user_map {
            layers::map_user(map).map_err(at(Step::Layer(Layer::OwnUser)))?;
            self.outcome.set(Layer::OwnUser, Ok(()));
        }
        if self.is_private {
            // Until here the child is as open to other processes of the user as the application of which it is a copy,
            // and whoever is attached stays so beyond `exec`: first nobody can come any more, then the parent looks
            // whether somebody is there. This process cannot: whoever traces it decides what it sees.
            layers::deny_dumps().map_err(at(Step::Layer(Layer::NotDumpable)))?;
            rustix::io::write(self.status, PRIVATE).map_err(at(Step::Parent))?;
        }
        let pid = self.wait_for_parent().map_err(at(Step::Parent))?;
        rustix::process::setpgid(None, None).map_err(at(Step::ProcessGroup))?;
        reset_signals();
        self.arrange_descriptors()
            .map_err(at(Step::Layer(Layer::Descriptors)))?;
        self.outcome.set(Layer::Descriptors, Ok(()));
        if let Some(layers) = self.layers {
            layers
                .apply(pid, &mut self.outcome)
                .map_err(|(layer, error)| (Step::Layer(layer), error))?;
        }
        self.check_parent().map_err(at(Step::Parent))?;
        let Some(image) = self.image else {
            self.try_filter();
            let mut report = [0; REPORT_BYTES];
            for (place, word) in report.chunks_exact_mut(4).zip(self.outcome.0) {
                place.copy_from_slice(&word.to_ne_bytes());
            }
            self.end(&report);
        };
        write_number(self.pid.filling(), pid, 10);
        let places = self.outcome_text.filling().chunks_exact_mut(OUTCOME_DIGITS);
        for (place, outcome) in places.zip(self.outcome.0) {
            // NOT_TRIED becomes all ones.
            write_number(place, outcome.cast_unsigned() & 0xffff, 16);
        }
        Err((Step::Exec, execute(image, arguments, environment)))
    }

    fn close_parents_ends(&self) {
        for number in self.parents_ends {
            // SAFETY: this process is a copy that never uses what the application owns; only its own table changes.
            unsafe { libc::syscall(libc::SYS_close, number) };
        }
    }

    /// Waits for our process id as the parent sees it. If the parent dies before, nothing comes.
    fn wait_for_parent(&self) -> Result<u32, Errno> {
        let mut bytes = [0; 4];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(self.go, &mut bytes))?;
        if read != bytes.len() {
            return Err(Errno::SRCH);
        }
        Ok(u32::from_ne_bytes(bytes))
    }

    /// The parent may have died before its death would have been signalled: then nobody reads the status.
    fn check_parent(&self) -> Result<(), Errno> {
        let mut polled = [PollFd::from_borrowed_fd(self.status, PollFlags::empty())];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut polled, Some(&now))?;
        match polled.first() {
            Some(status) if status.revents().is_empty() => Ok(()),
            _ => Err(Errno::SRCH),
        }
    }

    fn arrange_descriptors(&self) -> Result<(), Errno> {
        for (number, descriptor) in self.descriptors.iter().enumerate() {
            let number = RawFd::try_from(number).map_err(|_| Errno::MFILE)?;
            // SAFETY: all that we hold is above SPARE_DESCRIPTOR, so nothing that anybody owns here is overwritten but
            // descriptors of the application, which this process, a copy, never uses.
            let moved = unsafe { libc::dup2(descriptor.as_raw_fd(), number) };
            if moved < 0 {
                return Err(last_error());
            }
        }
        // All others are copies of the application's, of which there may be more than the host's own limit allows.
        let kept = [
            self.status.as_raw_fd(),
            self.image.map_or(-1, |image| image.as_raw_fd()),
        ];
        let (low, high) = (kept[0].min(kept[1]), kept[0].max(kept[1]));
        let first = INHERITED_DESCRIPTORS as RawFd;
        close_between(first, low - 1)?;
        close_between(first.max(low + 1), high - 1)?;
        close_between(first.max(high + 1), RawFd::MAX)
    }

    /// Whether a filter of system calls can be put on: one that allows everything.
    fn try_filter(&mut self) {
        const ALLOW: [libc::sock_filter; 1] = [libc::sock_filter {
            code: 0x06, // BPF_RET | BPF_K
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ALLOW,
        }];
        let result = put_on_all_threads(&ALLOW);
        self.outcome.set(Layer::StartFilter, result);
        self.outcome.set(Layer::ServingFilter, result);
    }
}

/// Closes descriptors of the child, `last` included.
fn close_between(first: RawFd, last: RawFd) -> Result<(), Errno> {
    let (Ok(first), Ok(last)) = (libc::c_uint::try_from(first), libc::c_uint::try_from(last))
    else {
        return Ok(());
    };
    if first > last {
        return Ok(());
    }
    // SAFETY: this process is a copy that never uses what the application owns; only its own table changes.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if closed == 0 {
        Ok(())
    } else {
        Err(last_error())
    }
}

fn pointers(texts: impl Iterator<Item = *const libc::c_char>) -> Vec<*const libc::c_char> {
    texts.chain([std::ptr::null()]).collect()
}

/// Makes a child process with memory of its own and a descriptor for it; answers 0 in the child.
///
/// # Safety
/// As `fork`: the child may only do what is async-signal-safe.
unsafe fn clone(flags: u32, pidfd: &mut RawFd) -> Result<libc::pid_t, Errno> {
    // SAFETY: plain data for which zero is valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags.into();
    arguments.pidfd = std::ptr::from_mut(pidfd).expose_provenance() as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: the struct is alive and of the size given; the kernel writes a descriptor to the live `pidfd`.
    let child = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        )
    };
    if child >= 0 {
        return Ok(child as libc::pid_t);
    }
    match last_error() {
        // Containers refuse clone3, whose flags their filters cannot see.
        Errno::NOSYS => {}
        error => return Err(error),
    }
    let flags = libc::c_ulong::from(flags | libc::SIGCHLD.cast_unsigned());
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: as above; with CLONE_PIDFD the third argument is where the descriptor goes, on every architecture.
    let child = unsafe {
        libc::syscall(
            libc::SYS_clone,
            flags,
            nothing,
            std::ptr::from_mut(pidfd),
            nothing,
            nothing,
        )
    };
    if child < 0 {
        return Err(last_error());
    }
    Ok(child as libc::pid_t)
}

/// The application's handling of signals is not the host's, and what it ignores would stay ignored.
///
/// By system calls: to change SIGABRT the C library takes a lock, which another thread may have held when this process was
/// copied.
fn reset_signals() {
    const SIGNALS: libc::c_long = 64;
    // Bytes of the kernel's set of so many signals.
    const SET: libc::c_long = SIGNALS / 8;
    // The kernel's `sigaction` has four words or fewer: SIG_DFL, no flags, no restorer, no signals.
    let default = [0_u64; 4];
    let old = std::ptr::null_mut::<libc::c_void>();
    for signal in 1..=SIGNALS {
        // SAFETY: the kernel reads a live struct; for SIGKILL and SIGSTOP it refuses.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, old, SET) };
    }
    let (how, none) = (libc::c_long::from(libc::SIG_SETMASK), 0_u64);
    // SAFETY: the kernel reads a live set.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const none, old, SET) };
}

fn execute(
    image: BorrowedFd<'_>,
    arguments: &[*const libc::c_char],
    environment: &[*const libc::c_char],
) -> Errno {
    // SAFETY: both arrays end with a null pointer and their strings are alive and end with a zero byte.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            image.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last_error()
}

/// Writes a number right-aligned, with leading zeros.
fn write_number(place: &mut [u8], mut number: u32, base: u32) {
    for digit in place.iter_mut().rev() {
        let value = (number % base) as u8;
        *digit = if value < 10 {
            b'0' + value
        } else {
            b'a' - 10 + value
        };
        number /= base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_where_there_is_room() {
        let mut blank = Blank::new("A", 10);
        write_number(blank.filling(), 4_194_303, 10);
        assert_eq!(blank.bytes, b"A=0004194303\0");
        let mut place = [0; 4];
        write_number(&mut place, 0xfff0, 16);
        assert_eq!(&place, b"fff0");
    }

    #[test]
    fn a_child_ignores_and_blocks_no_signal_that_its_parent_does() {
        const LAST: libc::c_int = 64;
        block_signals();
        let mut pidfd = -1;
        // SAFETY: the child makes only calls that are allowed between `fork` and `exec`, and ends.
        let child = unsafe { clone(libc::CLONE_PIDFD.cast_unsigned(), &mut pidfd) }.unwrap();
        if child == 0 {
            // SAFETY: all structs are alive, and filled in where they are read.
            unsafe {
                libc::signal(libc::SIGUSR1, libc::SIG_IGN);
                libc::signal(LAST, libc::SIG_IGN);
                reset_signals();
                let mut blocked: libc::sigset_t = std::mem::zeroed();
                libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut blocked);
                let is_reset = [libc::SIGUSR1, LAST].iter().all(|signal| {
                    let mut action: libc::sigaction = std::mem::zeroed();
                    libc::sigaction(*signal, std::ptr::null(), &raw mut action);
                    action.sa_sigaction == libc::SIG_DFL
                        && libc::sigismember(&raw const blocked, *signal) == 0
                });
                libc::_exit(i32::from(!is_reset));
            }
        }
        // SAFETY: the kernel has just made it for us.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let ended = rustix::process::waitid(
            rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)),
            rustix::process::WaitIdOptions::EXITED,
        );
        assert_eq!(ended.unwrap().unwrap().exit_status(), Some(0));
    }

    #[test]
    fn a_report_is_understood_or_nothing() {
        assert_eq!(Report::decode(&[], false), Report::Running);
        assert_eq!(Report::decode(&[], true), Report::Nothing);
        assert_eq!(Report::decode(PRIVATE, false), Report::Private);
        let mut failed = Step::Exec.number().to_ne_bytes().to_vec();
        failed.extend(2i32.to_ne_bytes());
        assert_eq!(
            Report::decode(&failed, false),
            Report::Failed(Step::Exec, Errno::NOENT)
        );
        assert_eq!(Report::decode(&[255; 8], false), Report::Nothing);
        assert!(matches!(
            Report::decode(&[0; REPORT_BYTES], true),
            Report::Tried(_)
        ));
    }
}
