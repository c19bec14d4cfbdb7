//! Watching hosts: one thread waits for the ends of all of them, drains what they write, and reaps them.
//!
//! A thread of its own, and not a task of whoever cares, because a host that nobody waits for must leave no zombie either
//! and a host whose output nobody reads must not stop at a full pipe. The process is known by a descriptor (pidfd), never
//! by its number, so no signal can reach another process; there is no `SIGCHLD` handler to disturb the application's own.

use std::collections::HashMap;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, pidfd_send_signal};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::sync::watch as latest;

use super::control_group::ControlGroup;
use super::exit::{Evidence, ExitCause, HostExit, LastWords};
use crate::error::TransportError;
use crate::sandbox::HostQuotas;
use crate::sys::process::{Ended, wait_for};
use crate::sys::signals::{NOTE_BYTES, Note};

/// A host process. Dropping it kills the process; it is reaped in every case.
pub struct HostProcess {
    pid: u32,
    pidfd: Arc<OwnedFd>,
    exit: latest::Receiver<Option<HostExit>>,
}

impl HostProcess {
    /// The process id, for people and logs.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills the process, if it still runs. [`exited`](Self::exited) tells when it is gone.
    pub fn kill(&self) {
        // An error says that it is gone already.
        if let Err(error) = pidfd_send_signal(&self.pidfd, Signal::KILL) {
            tracing::trace!(pid = self.pid, %error, "host to be killed is gone");
        }
    }

    /// How it ended, if it has.
    pub fn try_exited(&self) -> Option<HostExit> {
        self.exit.borrow().clone()
    }

    /// Waits until the process has ended. May be called any number of times, on any executor; the future does not borrow.
    pub fn exited(&self) -> impl Future<Output = HostExit> + Send + 'static {
        let mut exit = self.exit.clone();
        let pid = self.pid;
        async move {
            match exit
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|exit| exit.clone())
            {
                Some(exit) => exit,
                // Only when the watcher thread is gone, which lives as long as the process.
                None => HostExit::unknown(pid),
            }
        }
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        if self.exit.borrow().is_none() {
            self.kill();
        }
    }
}

impl fmt::Debug for HostProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostProcess")
            .field("pid", &self.pid)
            .field("exit", &*self.exit.borrow())
            .finish_non_exhaustive()
    }
}

/// What belongs to a new process beside its descriptor.
#[derive(Debug)]
pub(super) struct Belongings {
    /// What it says.
    pub(super) words: OwnedFd,
    /// What it writes down about its end.
    pub(super) note: OwnedFd,
    /// What it may use up, if it is limited.
    pub(super) quotas: Option<HostQuotas>,
    /// Its control group, if it has one; removed after its end.
    pub(super) group: Option<Arc<ControlGroup>>,
}

/// Hands a new process to the watcher thread.
pub(super) fn watch(
    pid: Pid,
    pidfd: OwnedFd,
    belongings: Belongings,
) -> Result<HostProcess, TransportError> {
    let pidfd = Arc::new(pidfd);
    let (exit, receiver) = latest::channel(None);
    let number = pid.as_raw_pid().cast_unsigned();
    let process = HostProcess {
        pid: number,
        pidfd: pidfd.clone(),
        exit: receiver,
    };
    let wall_time = belongings.quotas.and_then(|quotas| quotas.wall_time);
    let timer = wall_time.map(timer).transpose()?;
    let watcher = watcher()?;
    let watched = Watched {
        pid: number,
        pidfd,
        belongings,
        timer,
        is_out_of_time: false,
        heard: LastWords::default(),
        exit,
    };
    watcher.add(watched)?;
    Ok(process)
}

/// A timer that becomes readable once.
fn timer(after: std::time::Duration) -> Result<OwnedFd, TransportError> {
    let named = |error: Errno| TransportError::io("set a host's timer", error);
    let timer = timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
    )
    .map_err(named)?;
    // Zero would disarm it.
    let after = after.max(std::time::Duration::from_nanos(1));
    let never = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let setting = Itimerspec {
        it_interval: never,
        it_value: Timespec::try_from(after).unwrap_or(Timespec {
            tv_sec: i64::MAX,
            tv_nsec: 0,
        }),
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &setting).map_err(named)?;
    Ok(timer)
}

/// A process that still runs, as the watcher sees it.
struct Watched {
    pid: u32,
    pidfd: Arc<OwnedFd>,
    belongings: Belongings,
    /// Readable when its time is over.
    timer: Option<OwnedFd>,
    is_out_of_time: bool,
    heard: LastWords,
    exit: latest::Sender<Option<HostExit>>,
}

impl Watched {
    /// Reads what is there; `false` when no more will come.
    fn listen(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        // A host that writes without pause must not hold up the others: the rest is read in the next round.
        for _ in 0..16 {
            match rustix::io::read(&self.belongings.words, &mut buffer) {
                Ok(([], _)) => return false,
                Ok((bytes, _)) => self.heard.feed(bytes),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(error) => {
                    tracing::debug!(pid = self.pid, %error, "cannot read a host's output");
                    return false;
                }
            }
        }
        true
    }

    /// Reaps it; `None` while it runs.
    fn reap(&self) -> Option<Ended> {
        match wait_for(self.pidfd.as_fd()) {
            Ok(None) | Err(Errno::INTR) => None,
            Ok(ended) => ended,
            // Other code of this process waits for any child, or lets the kernel reap them all.
            Err(_) => Some(Ended::default()),
        }
    }

    /// Kills it because its time is over.
    fn end_of_time(&mut self) {
        self.is_out_of_time = true;
        if let Err(error) = pidfd_send_signal(&self.pidfd, Signal::KILL) {
            tracing::trace!(pid = self.pid, %error, "host to be killed is gone");
        }
    }

    /// What it wrote down: only the first note counts.
    fn note(&self) -> Option<Note> {
        let mut bytes = [0; NOTE_BYTES];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.belongings.note, &mut bytes)) {
            Ok(read) => Note::decode(bytes.get(..read).unwrap_or_default()),
            Err(Errno::AGAIN) => None,
            Err(error) => {
                tracing::debug!(pid = self.pid, %error, "cannot read a host's last note");
                None
            }
        }
    }

    fn into_exit(self, ended: &Ended) -> (HostExit, latest::Sender<Option<HostExit>>) {
        let cause = match (ended.code, ended.signal) {
            (Some(code), _) => ExitCause::Code(code),
            (None, Some(signal)) => ExitCause::Signal(signal),
            (None, None) => ExitCause::Unknown,
        };
        let quotas = self.belongings.quotas;
        let cpu_seconds = quotas.and_then(|quotas| quotas.cpu_seconds());
        let evidence = Evidence {
            note: self.note(),
            is_out_of_time: self.is_out_of_time,
            is_out_of_cpu: cpu_seconds.is_some_and(|limit| ended.cpu_time.as_secs() >= limit),
            is_out_of_memory: self
                .belongings
                .group
                .as_ref()
                .is_some_and(|group| group.is_out_of_memory()),
        };
        let exit = HostExit::new(self.pid, cause, self.heard.finish(), evidence);
        (exit, self.exit)
    }
}

/// What the watcher thread and those who add processes share.
struct Watcher {
    epoll: OwnedFd,
    watched: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    entries: HashMap<u64, Watched>,
}

/// What an event is about: the low bits of its token.
const ENDED: u64 = 0;
const WROTE: u64 = 1;
const TIMED: u64 = 2;
const ABOUT_BITS: u32 = 2;

impl Watcher {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, watched: Watched) -> Result<(), TransportError> {
        let named = |error: Errno| TransportError::io("watch a host process", error);
        let mut table = self.table();
        let key = table.next;
        table.next += 1;
        let token = |about: u64| EventData::new_u64(key << ABOUT_BITS | about);
        let words = &watched.belongings.words;
        epoll::add(&self.epoll, words, token(WROTE), EventFlags::IN).map_err(named)?;
        if let Some(timer) = &watched.timer {
            let once = EventFlags::IN | EventFlags::ONESHOT;
            epoll::add(&self.epoll, timer, token(TIMED), once).map_err(named)?;
        }
        // Once per change: of a process that has ended and is held by a tracer it says so until the tracer lets go, and
        // then again.
        let changes = EventFlags::IN | EventFlags::ET;
        epoll::add(&self.epoll, &watched.pidfd, token(ENDED), changes).map_err(named)?;
        table.entries.insert(key, watched);
        Ok(())
    }

    fn run(&self) {
        let mut space = [MaybeUninit::<Event>::uninit(); 32];
        loop {
            match epoll::wait(&self.epoll, &mut space, None) {
                Ok((events, _)) => {
                    for event in events.iter() {
                        let token = event.data.u64();
                        self.handle(token >> ABOUT_BITS, token & ((1 << ABOUT_BITS) - 1));
                    }
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "host processes can no longer be watched");
                    return;
                }
            }
        }
    }

    fn handle(&self, key: u64, about: u64) {
        let mut table = self.table();
        // Gone already when both of its events came in one batch.
        let Some(watched) = table.entries.get_mut(&key) else {
            return;
        };
        if about == WROTE {
            if !watched.listen() {
                self.forget(&watched.belongings.words);
            }
            return;
        }
        if about == TIMED {
            watched.end_of_time();
            return;
        }
        let Some(ended) = watched.reap() else { return };
        watched.listen();
        self.forget(&watched.belongings.words);
        self.forget(&watched.pidfd);
        if let Some(timer) = &watched.timer {
            self.forget(timer);
        }
        let Some(watched) = table.entries.remove(&key) else {
            return;
        };
        drop(table);
        let (exit, told) = watched.into_exit(&ended);
        tracing::debug!(%exit, "a host ended");
        told.send_replace(Some(exit));
    }

    fn forget(&self, descriptor: impl AsFd) {
        match epoll::delete(&self.epoll, descriptor) {
            // Not there: a pipe that ended before its process did.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => tracing::debug!(%error, "cannot stop watching a descriptor"),
        }
    }
}

/// The one watcher; its thread is started at first use and never ends.
fn watcher() -> Result<Arc<Watcher>, TransportError> {
    static WATCHER: Mutex<Option<Arc<Watcher>>> = Mutex::new(None);
    let mut known = WATCHER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(watcher) = &*known {
        return Ok(watcher.clone());
    }
    let epoll = epoll::create(CreateFlags::CLOEXEC)
        .map_err(|error| TransportError::io("watch host processes", error))?;
    let watcher = Arc::new(Watcher {
        epoll,
        watched: Mutex::default(),
    });
    let thread = watcher.clone();
    std::thread::Builder::new()
        .name("portcullis-watcher".into())
        .spawn(move || thread.run())
        .map_err(|error| TransportError::io("start the watcher thread", error))?;
    *known = Some(watcher.clone());
    Ok(watcher)
}
