//! Starting hosts, all from one thread that lives as long as the process.
//!
//! One thread, because the kernel ties a child's parent-death signal to the *thread* that forked it: a host spawned from a
//! worker would be killed when that worker ends, though the application goes on.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};

use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::oneshot;

use super::endpoint::{SOCKET_VARIABLE, is_untaken_host};
use super::watch::{self, HostProcess};
use crate::error::TransportError;
use crate::link::socket_pair;

/// What a host gets of the application's environment without being asked: how to log, how to report a panic, the
/// language of messages, and where a coverage or sanitizer run keeps its results.
const DEFAULT_ENVIRONMENT: &[&str] = &[
    "RUST_LOG",
    "RUST_BACKTRACE",
    "RUST_LIB_BACKTRACE",
    "LANG",
    "LC_ALL",
    "LLVM_PROFILE_FILE",
    "ASAN_OPTIONS",
    "UBSAN_OPTIONS",
];

/// Which program is the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum HostProgram {
    /// The running program itself, which calls `host::init` first thing in `main`.
    #[default]
    CurrentExe,
    /// Another program.
    Path(PathBuf),
}

/// How to start a host.
#[derive(Debug, Clone, Default)]
pub struct HostCommand {
    program: HostProgram,
    arguments: Vec<OsString>,
    passed: Vec<OsString>,
    set: Vec<(OsString, OsString)>,
}

impl HostCommand {
    /// Starts `program`.
    pub fn new(program: HostProgram) -> Self {
        Self {
            program,
            ..Self::default()
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Gives the host this variable of the application's environment too, if it is set.
    #[must_use]
    pub fn pass_variable(mut self, name: impl Into<OsString>) -> Self {
        self.passed.push(name.into());
        self
    }

    /// Gives the host this variable with this value.
    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.set.push((name.into(), value.into()));
        self
    }

    /// Starts the host: its process, and our end of the socket to it. Works on any executor. If the future is dropped,
    /// a host that was started meanwhile is killed.
    ///
    /// # Errors
    /// [`TransportError::Spawn`] with the program and what the system said.
    pub async fn spawn(self) -> Result<(HostProcess, OwnedFd), TransportError> {
        let program = self.program.to_string();
        let failed = |text: &str| TransportError::Spawn {
            program: program.clone(),
            text: text.into(),
        };
        if is_untaken_host() {
            return Err(failed(
                "this process is a host itself and did not take its endpoint; \
                 call host::init first thing in main",
            ));
        }
        let (reply, spawned) = oneshot::channel();
        launcher()?
            .send(Job {
                command: self,
                reply,
            })
            .map_err(|_| failed("the launcher thread has ended"))?;
        spawned
            .await
            .map_err(|_| failed("the launcher thread has ended"))?
    }

    /// Runs on the launcher thread.
    fn launch(&self) -> Result<(HostProcess, OwnedFd), TransportError> {
        let (ours, theirs) = socket_pair()?;
        let (words, words_in) = pipe_with(PipeFlags::CLOEXEC)
            .map_err(|error| TransportError::io("make a pipe", error))?;
        // Only our end: the host's writes to a full pipe wait as they would anywhere, we never do.
        rustix::fs::fcntl_setfl(&words, OFlags::NONBLOCK)
            .map_err(|error| TransportError::io("make a pipe non-blocking", error))?;
        let words_err = words_in
            .try_clone()
            .map_err(|error| TransportError::io("make a pipe", error))?;
        let mut command = match &self.program {
            // Not the path: the file may have been replaced or removed since.
            HostProgram::CurrentExe => Command::new("/proc/self/exe"),
            HostProgram::Path(path) => Command::new(path),
        };
        if self.program == HostProgram::CurrentExe {
            command.arg0("portcullis-host");
        }
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment())
            .env(SOCKET_VARIABLE, theirs.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .stdout(words_in)
            .stderr(words_err)
            .process_group(0);
        crate::sys::process::isolate_child(&mut command, theirs.as_raw_fd());
        let failed = |text: String| TransportError::Spawn {
            program: self.program.to_string(),
            text,
        };
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let pid = Pid::from_child(&child);
        // Nobody has waited for the child yet, so its id is its own until somebody does.
        let watched = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| TransportError::io("open a pidfd", error))
            .and_then(|pidfd| watch::watch(pid, pidfd, words));
        match watched {
            Ok(process) => Ok((process, ours)),
            Err(error) => {
                let ended = child.kill().and_then(|()| child.wait());
                Err(failed(format!(
                    "it cannot be watched ({error}), so it was ended: {ended:?}"
                )))
            }
        }
    }

    fn environment(&self) -> impl Iterator<Item = (OsString, OsString)> + '_ {
        let passed = self.passed.iter().map(OsString::as_os_str);
        DEFAULT_ENVIRONMENT
            .iter()
            .map(OsStr::new)
            .chain(passed)
            .filter_map(|name| Some((name.to_os_string(), std::env::var_os(name)?)))
            .chain(self.set.iter().cloned())
    }
}

impl fmt::Display for HostProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CurrentExe => write!(f, "this program"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

struct Job {
    command: HostCommand,
    reply: oneshot::Sender<Result<(HostProcess, OwnedFd), TransportError>>,
}

/// The launcher's queue; the thread is started at first use and never ends.
fn launcher() -> Result<mpsc::Sender<Job>, TransportError> {
    static LAUNCHER: Mutex<Option<mpsc::Sender<Job>>> = Mutex::new(None);
    let mut launcher = LAUNCHER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(jobs) = &*launcher {
        return Ok(jobs.clone());
    }
    let (jobs, queue) = mpsc::channel::<Job>();
    std::thread::Builder::new()
        .name("portcullis-launcher".into())
        .spawn(move || {
            for job in queue {
                // Who asked may be gone: then the process goes with the unsent reply.
                drop(job.reply.send(job.command.launch()));
            }
        })
        .map_err(|error| TransportError::io("start the launcher thread", error))?;
    *launcher = Some(jobs.clone());
    Ok(jobs)
}
