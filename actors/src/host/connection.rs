//! A connection to a host: what an application holds of it, and how it learns of its end.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::Either;
use portcullis_engine::error::{HostExit, HostQuota};
use portcullis_engine::topology::Placement;
use portcullis_engine::{Error, ErrorKind, Result};
use portcullis_transport::{Endpoint, HostProcess, Isolation, SandboxProfile, TransportError};

use super::lock::{self, HostLock};
use super::pmp_host::{ConfigureHost, PmpHost, PmpHostActor};
use crate::bridge::{APPLICATION, Handle, Link, LinkLost, SlotAllocator};
use crate::registry::Registry;
use crate::runtime;

/// How long a link that broke waits for its host's end, to say how it ended.
const EXIT_WAIT: Duration = Duration::from_millis(500);
/// How long what an ended host sent last may take to be read.
const DRAIN_WAIT: Duration = Duration::from_millis(500);
/// How long after a broken protocol a host's end counts as the reason.
const DYING_WAIT: Duration = Duration::from_millis(50);

/// Shakes hands with a host that was just started, and says what it may do.
pub(super) async fn connect(
    process: Arc<HostProcess>,
    socket: OwnedFd,
    configure: ConfigureHost,
) -> Result<HostConnection> {
    let pid = process.pid();
    let watched = process.exited();
    let exited = process.exited();
    let host = Arc::downgrade(&process);
    tracing::debug!(host = pid, "host started");
    let connected = runtime::run(move || async move {
        let diagnose =
            Box::new(move |end: TransportError| host_lost(pid, end, host, watched).boxed_local());
        let link = Link::connect(Endpoint::unix(socket), APPLICATION, None, diagnose).await?;
        actix_rt::spawn(close_after(exited, link.clone()));
        Ok((link.root::<PmpHost>()?, link.lost(), link.allocator()))
    });
    let (pmp, lost, memory) = connected.await?;
    let facts = pmp.send(configure).await?;
    if let Some(isolation) = &facts.isolation
        && isolation.missing().next().is_some()
    {
        tracing::warn!(host = pid, %isolation, "a host runs without some layers of its sandbox");
    }
    Ok(HostConnection(Arc::new(Shared {
        pmp,
        process: Some(process),
        lost: Some(lost),
        memory,
        isolation: facts.isolation,
    })))
}

/// Ends the link when the process has ended, though another process may hold its socket.
async fn close_after(exited: impl Future<Output = portcullis_transport::HostExit>, link: Link) {
    let lost = link.lost();
    let exited = std::pin::pin!(exited);
    if let Either::Left(_) =
        futures::future::select(exited, std::pin::pin!(lost.clone().wait())).await
    {
        // What it sent last is read first.
        if tokio::time::timeout(DRAIN_WAIT, lost.wait()).await.is_err() {
            link.close();
        }
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
    if exit.is_err() {
        // It has closed its side, or breaks the protocol: nobody can talk to it any more.
        kill();
    }
    let mut exit = match (exit, &end) {
        (Ok(exit), _) => HostExit {
            pid,
            code: exit.code(),
            signal: exit.signal(),
            blocked: exit.blocked.map(|call| call.to_string()),
            quota: exit.quota.and_then(quota),
            last_words: exit.last_words,
        },
        (Err(_), TransportError::Protocol { .. }) => {
            tracing::warn!(host = pid, %end, "a host breaks the protocol and is killed");
            return Error::new(ErrorKind::Protocol(end.to_string().into())).in_process(pid);
        }
        (Err(_), end) => HostExit {
            pid,
            last_words: vec![end.to_string()],
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

fn quota(quota: portcullis_transport::host::Quota) -> Option<HostQuota> {
    use portcullis_transport::host::Quota;
    Some(match quota {
        Quota::Memory => HostQuota::Memory,
        Quota::CpuTime => HostQuota::CpuTime,
        Quota::WallTime => HostQuota::WallTime,
        _ => return None,
    })
}

/// A connected host. The process ends with the last clone: at once, or when it is no longer locked and at most three
/// seconds later.
#[derive(Clone)]
pub struct HostConnection(Arc<Shared>);

struct Shared {
    pmp: Handle<PmpHost>,
    process: Option<Arc<HostProcess>>,
    lost: Option<LinkLost>,
    /// Memory of this process that the host can read; of an in-process one, what everything uses.
    memory: Arc<SlotAllocator>,
    isolation: Option<Isolation>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else {
            return;
        };
        let is_lost = self.lost.as_ref().is_some_and(|lost| lost.now().is_some());
        if is_lost {
            return;
        }
        if let Some(arbiter) = runtime::running() {
            // The process ends with its last owner; if the runtime is gone, that is here.
            arbiter.spawn(lock::end_when_unlocked(self.pmp.clone(), process));
        }
    }
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
        Self::beside(registry, Arc::clone(&self.0.memory)).await
    }

    async fn beside(registry: Arc<Registry>, memory: Arc<SlotAllocator>) -> Result<Self> {
        let used = Arc::clone(&memory);
        let pmp =
            runtime::run(move || async move { Ok(PmpHostActor::create(registry, used, None)) })
                .await?;
        Ok(Self(Arc::new(Shared {
            pmp,
            process: None,
            lost: None,
            memory,
            isolation: None,
        })))
    }

    /// The host's actor.
    pub fn pmp_host(&self) -> &Handle<PmpHost> {
        &self.0.pmp
    }

    /// The process id of where sessions and objects are created.
    pub fn pid(&self) -> u32 {
        let process = self.0.process.as_ref();
        process.map_or_else(std::process::id, |process| process.pid())
    }

    /// What keeps the host from everything else, layer by layer, as it measured it itself; `None` in the application's own
    /// process.
    pub fn isolation(&self) -> Option<&Isolation> {
        self.0.isolation.as_ref()
    }

    /// In which placement the sessions of this host are.
    pub fn placement(&self) -> Placement {
        match self.isolation().map(|isolation| isolation.profile) {
            None => Placement::InProcess,
            Some(Some(SandboxProfile::Protected)) => Placement::Protected,
            Some(_) => Placement::Isolated,
        }
    }

    /// Keeps the host, when its last connection goes, for as long as it is locked and at most three seconds (reference P8).
    ///
    /// # Errors
    /// Those of a call.
    pub async fn lock(&self) -> Result<HostLock> {
        HostLock::take(self.pmp_host()).await
    }

    /// Watches for the host's end; `None` in the application's own process.
    pub fn lost(&self) -> Option<LinkLost> {
        self.0.lost.clone()
    }

    /// Kills the host process, if there is one.
    pub fn kill(&self) {
        if let Some(process) = &self.0.process {
            process.kill();
        }
    }
}

impl fmt::Debug for HostConnection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "HostConnection(process {})", self.pid())
    }
}
