//! Starting hosts, all from one thread that lives as long as the process.
//!
//! One thread, because the kernel ties a child's parent-death signal to the *thread* that forked it: a host spawned from a
//! worker would be killed when that worker ends, though the application goes on.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use tokio::sync::oneshot;

use super::birth;
use super::endpoint::is_untaken_host;
use super::image::{HostImage, ImageSource};
use super::watch::HostProcess;
use crate::error::TransportError;
use crate::sandbox::{Layer, Sandbox};

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
    image: Option<Arc<HostImage>>,
    sandbox: Option<Sandbox>,
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

    /// Executes this image, which [`HostImage::open`] opened before for the same program: the very one that was looked at.
    #[must_use]
    pub fn image(mut self, image: Arc<HostImage>) -> Self {
        self.image = Some(image);
        self
    }

    /// Confines the host. Without it the host is a process like others: it has only the descriptors meant for it and ends
    /// with the application, and nothing else is kept from it.
    #[must_use]
    pub fn sandbox(mut self, sandbox: Sandbox) -> Self {
        self.sandbox = Some(sandbox);
        self
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
    /// [`TransportError::Spawn`] with the program and what the system said; [`TransportError::Sandbox`] with the layer that
    /// is required and not to be had.
    pub async fn spawn(self) -> Result<(HostProcess, OwnedFd), TransportError> {
        if is_untaken_host() {
            return Err(TransportError::Spawn {
                program: self.program.to_string(),
                text: "this process is a host itself and did not take its endpoint; \
                       call host::init first thing in main"
                    .into(),
            });
        }
        let image = match &self.image {
            Some(image) => Arc::clone(image),
            None => HostImage::prepare(self.program.clone(), self.source()).await?,
        };
        on_launcher(move || self.launch(&image)).await?
    }

    /// A sealed copy for those that are to have one, and for those that nobody may ever have looked into: only such a copy
    /// is unreadable from the first moment on.
    fn source(&self) -> ImageSource {
        let is_sealed = self.sandbox.as_ref().is_some_and(|sandbox| {
            sandbox.layers.contains(Layer::SealedImage) || sandbox.is_private()
        });
        match is_sealed {
            true => ImageSource::SealedCopy,
            false => ImageSource::File,
        }
    }

    /// Runs on the launcher thread.
    fn launch(&self, image: &HostImage) -> Result<(HostProcess, OwnedFd), TransportError> {
        birth::bear(birth::Order {
            program: &self.program,
            image,
            arguments: &self.arguments,
            environment: self.environment().collect(),
            sandbox: self.sandbox.as_ref(),
        })
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

impl HostProgram {
    /// The name under which the host is called.
    pub(super) fn argument_zero(&self) -> OsString {
        match self {
            Self::CurrentExe => "portcullis-host".into(),
            Self::Path(path) => path.clone().into_os_string(),
        }
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

type Job = Box<dyn FnOnce() + Send>;

/// Runs `work` on the launcher thread, unless nobody waits for it any more when its turn comes; works on any executor.
pub(super) async fn on_launcher<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TransportError> {
    let (reply, answer) = oneshot::channel();
    let gone = || TransportError::io("start a host", "the launcher gave up on it");
    let job: Job = Box::new(move || {
        if !reply.is_closed() {
            // Who asked may be gone by now: then what was made goes with the unsent answer.
            drop(reply.send(work()));
        }
    });
    launcher()?.send(job).map_err(|_| gone())?;
    answer.await.map_err(|_| gone())
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
            birth::prepare_thread();
            for job in queue {
                // The end of this thread would be the end of every host.
                if std::panic::catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!("the start of a host panicked");
                }
            }
        })
        .map_err(|error| TransportError::io("start the launcher thread", error))?;
    *launcher = Some(jobs.clone());
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn a_panic_does_not_end_the_launcher() {
        let id = || on_launcher(|| std::thread::current().id());
        let before = run(id()).unwrap();
        run(on_launcher(|| panic!("on purpose"))).unwrap_err();
        assert_eq!(run(id()).unwrap(), before);
    }

    #[test]
    fn what_nobody_waits_for_is_not_begun() {
        use std::sync::atomic::{AtomicBool, Ordering};
        use std::task::{Context, Waker};
        // Keeps the launcher busy until the other one has been given up.
        let (release, held) = mpsc::channel::<()>();
        let mut first = Box::pin(on_launcher(move || held.recv().is_err()));
        let begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&begun);
        let mut second = Box::pin(on_launcher(move || begins.store(true, Ordering::SeqCst)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
        drop(second);
        drop(release);
        assert!(run(first).unwrap());
        run(on_launcher(|| ())).unwrap();
        assert!(!begun.load(Ordering::SeqCst));
    }
}
