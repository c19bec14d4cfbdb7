//! The application's side of a host: starting it and talking to it.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use portcullis_engine::error::HostExit;
use portcullis_engine::{Error, ErrorKind, Result};
use portcullis_transport::{
    Endpoint, HostCommand, HostProcess, HostProgram, Sandbox, SandboxPolicy, TransportError,
};

use super::init::is_initialised;
use super::{PmpHost, PmpHostActor};
use crate::bridge::{Handle, Link, LinkLost, SlotAllocator};
use crate::registry::Registry;
use crate::runtime;

/// How long a link that broke waits for its host's end, to say how it ended.
const EXIT_WAIT: Duration = Duration::from_millis(500);
/// How long after a broken protocol a host's end counts as the reason.
const DYING_WAIT: Duration = Duration::from_millis(50);

/// Which program is the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    program: HostProgram,
}

impl Host {
    /// The running program itself, which must call [`host::init`](crate::host::init) first thing in `main`.
    pub fn current() -> Self {
        Self::default()
    }

    /// Another program that calls `host::init`.
    pub fn program(path: impl Into<PathBuf>) -> Self {
        Self {
            program: HostProgram::Path(path.into()),
        }
    }

    /// Starts the host and connects to it.
    ///
    /// # Errors
    /// `HostStart` that says why; `HostLost` if it ends at once.
    pub async fn start(&self) -> Result<HostConnection> {
        if self.program == HostProgram::CurrentExe && !is_initialised() {
            return Err(Error::new(ErrorKind::HostStart(
                "this program cannot be its own host; add `portcullis::host::init(portcullis::builtin());` as the first line of \
                 `main`, or name a host program"
                    .into(),
            )));
        }
        let command = HostCommand::new(self.program.clone())
            .sandbox(Sandbox::isolated(SandboxPolicy::BestEffort));
        let (process, socket) = command
            .spawn()
            .await
            .map_err(|error| Error::new(ErrorKind::HostStart(error.to_string().into())))?;
        let process = Arc::new(process);
        let watched = process.exited();
        let host = Arc::downgrade(&process);
        let pid = process.pid();
        tracing::debug!(host = pid, "host started");
        let (pmp, lost, memory) = runtime::run(move || async move {
            let diagnose = Box::new(move |end: TransportError| {
                host_lost(pid, end, host, watched).boxed_local()
            });
            let link = Link::connect(Endpoint::unix(socket), 0, None, diagnose).await?;
            Ok((link.root::<PmpHost>()?, link.lost(), link.allocator()))
        })
        .await?;
        Ok(HostConnection {
            pmp,
            process: Some(process),
            lost: Some(lost),
            memory,
        })
    }
}

/// Why a link to a host has ended: how the process did, or what it did wrong, for which it is killed.
async fn host_lost(
    pid: u32,
    end: TransportError,
    host: Weak<HostProcess>,
    exited: impl Future<Output = portcullis_transport::HostExit>,
) -> Error {
    let mut exited = std::pin::pin!(exited);
    let kill = || {
        if let Some(host) = host.upgrade() {
            host.kill();
        }
    };
    let is_hung = matches!(end, TransportError::Timeout { .. });
    let wait = match end {
        // One that dies while it writes breaks the protocol too, and that it died says more.
        TransportError::Protocol { .. } => DYING_WAIT,
        _ => EXIT_WAIT,
    };
    if is_hung {
        kill();
    }
    let exit = tokio::time::timeout(wait, exited.as_mut()).await;
    let mut exit = match exit {
        Ok(exit) => {
            let mut last_words = exit.last_words.clone();
            if let Some(call) = &exit.blocked {
                last_words.push(format!("its sandbox ended it at the {call}"));
            }
            if let Some(quota) = exit.quota {
                last_words.push(format!("it went beyond its quota of {quota}"));
            }
            HostExit {
                pid,
                code: exit.code(),
                signal: exit.signal(),
                last_words,
            }
        }
        Err(_) if matches!(end, TransportError::Protocol { .. }) => {
            kill();
            tracing::warn!(host = pid, %end, "a host breaks the protocol and is killed");
            return Error::new(ErrorKind::Protocol(end.to_string().into())).in_process(pid);
        }
        Err(_) => HostExit {
            pid,
            ..HostExit::default()
        },
    };
    if is_hung {
        let words = format!("it does not answer ({end}) and was killed");
        exit.last_words.push(words);
    }
    tracing::info!(host = pid, %exit, "host lost");
    Error::new(ErrorKind::HostLost(exit))
}

/// A connected host. The process ends with the last clone.
#[derive(Clone)]
pub struct HostConnection {
    pmp: Handle<PmpHost>,
    process: Option<Arc<HostProcess>>,
    lost: Option<LinkLost>,
    /// Memory of this process that the host can read; of an in-process one, what everything uses.
    memory: Arc<SlotAllocator>,
}

impl HostConnection {
    /// The same interface without a process: everything is created in the application.
    ///
    /// # Errors
    /// `Cancelled` if the process is ending.
    pub async fn in_process(registry: Arc<Registry>) -> Result<Self> {
        Self::beside(registry, Arc::new(SlotAllocator::unlinked())).await
    }

    /// The application's side of this host: what is created there runs in the application and writes its payloads where
    /// the host can read them without a copy. For sources of the application that a session in the host plays.
    ///
    /// # Errors
    /// `Cancelled` if the process is ending.
    pub async fn application_side(&self, registry: Arc<Registry>) -> Result<Self> {
        Self::beside(registry, Arc::clone(&self.memory)).await
    }

    async fn beside(registry: Arc<Registry>, memory: Arc<SlotAllocator>) -> Result<Self> {
        let used = Arc::clone(&memory);
        let pmp =
            runtime::run(move || async move { Ok(PmpHostActor::create(registry, used)) }).await?;
        Ok(Self {
            pmp,
            process: None,
            lost: None,
            memory,
        })
    }

    /// The host's actor.
    pub fn pmp_host(&self) -> &Handle<PmpHost> {
        &self.pmp
    }

    /// The process id of where sessions and objects are created.
    pub fn pid(&self) -> u32 {
        self.process
            .as_ref()
            .map_or_else(std::process::id, |process| process.pid())
    }

    /// Watches for the host's end; `None` in the application's own process.
    pub fn lost(&self) -> Option<LinkLost> {
        self.lost.clone()
    }

    /// Kills the host process, if there is one.
    pub fn kill(&self) {
        if let Some(process) = &self.process {
            process.kill();
        }
    }
}

impl fmt::Debug for HostConnection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "HostConnection(process {})", self.pid())
    }
}
