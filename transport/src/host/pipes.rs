//! The pipes between an application and a child that becomes its host, and what is waited for on them, never without end:
//! all hosts start from one thread, and a child may be stopped, or traced by somebody who holds it.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};

use super::birth::spawning;
use super::control_group::ControlGroup;
use crate::error::TransportError;
use crate::sys::process::wait_for;
use crate::sys::spawn::{REPORT_BYTES, Report, spare};

/// Both ends of what a child is given; its own ends are out of the way of the numbers that they get there.
pub(super) struct Pipes {
    pub(super) words: OwnedFd,
    pub(super) note: OwnedFd,
    pub(super) child: Option<ChildEnds>,
    pub(super) go: Option<OwnedFd>,
    status: OwnedFd,
}

pub(super) struct ChildEnds {
    pub(super) null: OwnedFd,
    pub(super) words: OwnedFd,
    pub(super) note: OwnedFd,
    pub(super) go: OwnedFd,
    pub(super) status: OwnedFd,
}

/// Why a child did not report.
#[derive(Debug)]
pub(super) enum NoReport {
    /// It took too long.
    Late,
    /// It cannot be read.
    Failed(Errno),
}

impl fmt::Display for NoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => write!(
                f,
                "its program does not run after {} s: something stops it, or another process holds its pipe",
                super::birth::START_TIME.as_secs()
            ),
            Self::Failed(error) => write!(f, "its report cannot be read: {error}"),
        }
    }
}

impl Pipes {
    pub(super) fn make() -> Result<Self, TransportError> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(spawning);
        let (words, words_in) = pipe()?;
        let (note, note_in) = pipe()?;
        let (go_out, go) = pipe()?;
        let (status, status_in) = pipe()?;
        // Only our ends: the host's writes to a full pipe wait as they would anywhere, we never do.
        for ours in [&words, &note, &status] {
            rustix::fs::fcntl_setfl(ours, OFlags::NONBLOCK).map_err(spawning)?;
        }
        let null = open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| TransportError::io("open /dev/null", error))?;
        let moved = |descriptor: OwnedFd| spare(&descriptor).map_err(spawning);
        Ok(Self {
            words,
            note,
            go: Some(go),
            status,
            child: Some(ChildEnds {
                null: moved(null)?,
                words: moved(words_in)?,
                note: moved(note_in)?,
                go: moved(go_out)?,
                status: moved(status_in)?,
            }),
        })
    }

    /// The numbers of our own ends by which the child knows whether we are there.
    pub(super) fn parents_ends(&self) -> [RawFd; 2] {
        // No descriptor has the number -1.
        let go = self.go.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        [go, self.status.as_raw_fd()]
    }

    /// The child's next report. `tries` says that it runs no program.
    pub(super) fn report(
        &self,
        child: &OwnedFd,
        until: &Deadline,
        tries: bool,
    ) -> Result<Report, NoReport> {
        let mut polled = [
            PollFd::new(&self.status, PollFlags::IN),
            PollFd::new(child, PollFlags::IN),
        ];
        if !until.poll(&mut polled).map_err(NoReport::Failed)? {
            return Err(NoReport::Late);
        }
        let mut bytes = [0; REPORT_BYTES];
        // Each report is written at once, so it is read at once.
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.status, &mut bytes)) {
            Ok(read) => Ok(Report::decode(bytes.get(..read).unwrap_or_default(), tries)),
            // The child has ended, and only another process, which was forked from this one and runs no program of its
            // own, keeps the pipe open. How the child ended its watcher says.
            Err(Errno::AGAIN) => Ok(Report::decode(&[], tries)),
            Err(error) => Err(NoReport::Failed(error)),
        }
    }
}

/// Until when something is waited for.
pub(super) struct Deadline(Instant);

impl Deadline {
    pub(super) fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// Whether something came in time.
    fn poll(&self, polled: &mut [PollFd<'_>]) -> Result<bool, Errno> {
        loop {
            let left = self.0.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
            match poll(polled, Some(&left)) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// For how long a killed child is waited for.
const END_TIME: Duration = Duration::from_secs(1);

/// A child that was killed and is not reaped yet, with what can be removed only then.
type Held = (OwnedFd, Option<Arc<ControlGroup>>);

/// Children that something holds, such as a tracer, beyond their end.
static HELD: Mutex<Vec<Held>> = Mutex::new(Vec::new());

/// Reaps those that have been let go.
pub(super) fn reap_held() {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.retain(|(pidfd, _)| matches!(wait_for(pidfd.as_fd()), Ok(None)));
}

/// Ends a child that nobody watches, and reaps it, at the latest when a later one starts.
pub(super) fn end(pidfd: OwnedFd, group: Option<Arc<ControlGroup>>) {
    // It may have ended already.
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
    let gone = Deadline::after(END_TIME).poll(&mut polled);
    match gone.and_then(|_| wait_for(pidfd.as_fd())) {
        Ok(Some(_)) => {}
        // It does not end, or it has ended and its tracer has not let go of it.
        Ok(None) => HELD
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((pidfd, group)),
        // Other code of this process waits for any child.
        Err(error) => tracing::debug!(%error, "a host that failed to start was not reaped"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::spawn::{Birth, Blank, Step, block_signals};
    use rustix::fd::BorrowedFd;
    use rustix::process::Pid;

    const LONG: Duration = Duration::from_secs(20);

    /// A child that would run `program` with no layer.
    fn give(pipes: &mut Pipes, program: BorrowedFd<'_>) -> (Pid, OwnedFd) {
        let child = pipes.child.take().unwrap();
        let null = child.null.as_fd();
        let birth = Birth {
            image: Some(program),
            arguments: vec![c"x".to_owned()],
            environment: Vec::new(),
            pid: Blank::new("PID", 10),
            outcome_text: Blank::new("LAYERS", 0),
            descriptors: [null, null, null, null, null],
            go: child.go.as_fd(),
            status: child.status.as_fd(),
            parents_ends: pipes.parents_ends(),
            namespaces: crate::sandbox::LayerSet::NONE,
            network: None,
            user_map: None,
            doors: &[],
            is_private: false,
            layers: None,
            outcome: crate::sys::layers::Outcome::NOTHING,
        };
        birth.give().unwrap()
    }

    fn program() -> OwnedFd {
        let file = open(
            "/proc/self/exe",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        spare(&file.unwrap()).unwrap()
    }

    /// As the launcher thread: its signals are blocked, and there is one child at a time (another one would have copies of
    /// its pipes).
    fn as_launcher(work: impl FnOnce() + Send + 'static) {
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = std::thread::spawn(|| {
            block_signals();
            work();
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_child_that_waits_ends_with_its_application() {
        as_launcher(|| {
            let mut pipes = Pipes::make().unwrap();
            let program = program();
            let (_, child) = give(&mut pipes, program.as_fd());
            // What the kernel does to the application's descriptors at its end.
            drop(pipes.go.take());
            let report = pipes.report(&child, &Deadline::after(LONG), false).unwrap();
            assert_eq!(report, Report::Failed(Step::Parent, Errno::SRCH));
            let watched = child.try_clone().unwrap();
            end(child, None);
            assert_eq!(
                wait_for(watched.as_fd()).unwrap_err(),
                Errno::CHILD,
                "reaped"
            );
        });
    }

    #[test]
    fn a_child_sees_that_its_application_is_gone() {
        as_launcher(|| {
            let mut pipes = Pipes::make().unwrap();
            let program = program();
            let (_, child) = give(&mut pipes, program.as_fd());
            let Pipes { go, status, .. } = pipes;
            drop(status);
            rustix::io::write(go.unwrap(), &7u32.to_ne_bytes()).unwrap();
            let mut polled = [PollFd::new(&child, PollFlags::IN)];
            assert!(Deadline::after(LONG).poll(&mut polled).unwrap());
            let ended = wait_for(child.as_fd()).unwrap().unwrap();
            // The program would have answered otherwise.
            assert!(
                ended.code == Some(127) || ended.signal == Some(13),
                "{ended:?}"
            );
        });
    }

    #[test]
    fn a_stopped_child_is_not_waited_for() {
        as_launcher(|| {
            let mut pipes = Pipes::make().unwrap();
            let program = program();
            let (pid, child) = give(&mut pipes, program.as_fd());
            rustix::process::kill_process(pid, Signal::STOP).unwrap();
            let go = pipes.go.take().unwrap();
            rustix::io::write(&go, &7u32.to_ne_bytes()).unwrap();
            let until = Deadline::after(Duration::from_millis(20));
            let late = pipes.report(&child, &until, false);
            assert!(matches!(late, Err(NoReport::Late)), "{late:?}");
            let watched = child.try_clone().unwrap();
            end(child, None);
            assert_eq!(
                wait_for(watched.as_fd()).unwrap_err(),
                Errno::CHILD,
                "reaped"
            );
        });
    }

    #[test]
    fn a_pipe_that_another_process_holds_does_not_hide_the_end() {
        as_launcher(|| {
            let mut pipes = Pipes::make().unwrap();
            let held = pipes.child.as_ref().unwrap().status.try_clone().unwrap();
            let program = program();
            let (_, child) = give(&mut pipes, program.as_fd());
            pidfd_send_signal(&child, Signal::KILL).unwrap();
            let report = pipes.report(&child, &Deadline::after(LONG), false).unwrap();
            assert_eq!(report, Report::Running, "its watcher says how it ended");
            let watched = child.try_clone().unwrap();
            end(child, None);
            assert_eq!(
                wait_for(watched.as_fd()).unwrap_err(),
                Errno::CHILD,
                "reaped"
            );
            drop(held);
        });
    }
}
