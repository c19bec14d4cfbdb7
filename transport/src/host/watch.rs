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
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use tokio::sync::watch as latest;

use super::exit::{ExitCause, HostExit, LastWords};
use crate::error::TransportError;

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
                None => HostExit {
                    pid,
                    cause: ExitCause::Unknown,
                    last_words: Vec::new(),
                },
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

/// Hands a new process to the watcher thread.
pub(super) fn watch(
    pid: Pid,
    pidfd: OwnedFd,
    words: OwnedFd,
) -> Result<HostProcess, TransportError> {
    let pidfd = Arc::new(pidfd);
    let (exit, receiver) = latest::channel(None);
    let number = pid.as_raw_pid().cast_unsigned();
    let process = HostProcess {
        pid: number,
        pidfd: pidfd.clone(),
        exit: receiver,
    };
    let watcher = watcher()?;
    let watched = Watched {
        pid: number,
        pidfd,
        words,
        heard: LastWords::default(),
        exit,
    };
    watcher.add(watched)?;
    Ok(process)
}

/// A process that still runs, as the watcher sees it.
struct Watched {
    pid: u32,
    pidfd: Arc<OwnedFd>,
    words: OwnedFd,
    heard: LastWords,
    exit: latest::Sender<Option<HostExit>>,
}

impl Watched {
    /// Reads what is there; `false` when no more will come.
    fn listen(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        // A host that writes without pause must not hold up the others: the rest is read in the next round.
        for _ in 0..16 {
            match rustix::io::read(&self.words, &mut buffer) {
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
    fn reap(&self) -> Option<ExitCause> {
        match waitid(
            WaitId::PidFd(self.pidfd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        ) {
            Ok(None) | Err(Errno::INTR) => None,
            Ok(Some(status)) => Some(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => ExitCause::Code(code),
                (None, Some(signal)) => ExitCause::Signal(signal),
                (None, None) => ExitCause::Unknown,
            }),
            // Other code of this process waits for any child, or lets the kernel reap them all.
            Err(_) => Some(ExitCause::Unknown),
        }
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

/// What an event is about: the low bit of its token.
const ENDED: u64 = 0;
const WROTE: u64 = 1;

impl Watcher {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, watched: Watched) -> Result<(), TransportError> {
        let named = |error: Errno| TransportError::io("watch a host process", error);
        let mut table = self.table();
        let key = table.next;
        table.next += 1;
        let token = |about: u64| EventData::new_u64(key << 1 | about);
        epoll::add(&self.epoll, &watched.words, token(WROTE), EventFlags::IN).map_err(named)?;
        epoll::add(&self.epoll, &watched.pidfd, token(ENDED), EventFlags::IN).map_err(named)?;
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
                        self.handle(token >> 1, token & 1);
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
                self.forget(&watched.words);
            }
            return;
        }
        let Some(cause) = watched.reap() else { return };
        watched.listen();
        self.forget(&watched.words);
        self.forget(&watched.pidfd);
        let Some(watched) = table.entries.remove(&key) else {
            return;
        };
        drop(table);
        let exit = HostExit {
            pid: watched.pid,
            cause,
            last_words: watched.heard.finish(),
        };
        tracing::debug!(%exit, "a host ended");
        watched.exit.send_replace(Some(exit));
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
