//! A connection to a host: what an application holds of it, and how it learns of its end.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle};
use futures::FutureExt;
use portcullis_engine::error::{HostExit, HostQuota};
use portcullis_engine::topology::Placement;
use portcullis_engine::{Error, ErrorKind, Result};
use portcullis_transport::{
    Endpoint, HostProcess, Isolation, Layer, Sandbox, SandboxProfile, TransportError,
};

use tokio::sync::oneshot;

use super::lock::{self, HostLock};
use super::pmp_host::{ConfigureHost, PmpHost, PmpHostActor};
use super::program::LinkTerms;
use super::trust::Vouched;
use crate::bridge::{Diagnose, Handle, Link, LinkLost, PeerStates, SampleMemory, SlotAllocator};
use crate::registry::Registry;
use crate::runtime;

/// How long a link that broke waits for its host's end, to say how it ended.
const EXIT_WAIT: Duration = Duration::from_millis(500);
/// How long after a broken protocol a host's end counts as the reason.
const DYING_WAIT: Duration = Duration::from_millis(50);

/// Shakes hands with a host that was just started, and says what it may do.
///
/// What the host reports of its isolation is its own word: it is compared with what was ordered, and only the order says what
/// kind of host it is.
pub(super) async fn connect(
    process: Arc<HostProcess>,
    socket: OwnedFd,
    order: Order,
) -> Result<HostConnection> {
    let pid = process.pid();
    let Order {
        sandbox,
        configure,
        vouched,
        terms,
    } = order;
    let started = Arc::clone(&process);
    let connected = runtime::run(move || async move {
        let link = link(&started, socket, terms).await?;
        let states = link.peer_states();
        Ok((
            link.root::<PmpHost>()?,
            link.lost(),
            states,
            link.allocator(),
        ))
    });
    let (pmp, lost, states, memory) = connected.await?;
    let facts = pmp.send(configure).await?;
    let isolation = checked(facts.isolation, &sandbox)?;
    if isolation.missing().next().is_some() {
        tracing::warn!(host = pid, %isolation, "a host runs without some layers of its sandbox");
    }
    Ok(HostConnection(Arc::new(Shared {
        pmp,
        process: Some(process),
        lost: Some(lost),
        states: Some(states),
        memory,
        confined: Some((sandbox.profile, isolation)),
        vouched,
        _thread: None,
    })))
}

/// Shakes hands with a host that was just started. On Portcullis' own arbiter.
pub(super) async fn link(
    process: &Arc<HostProcess>,
    socket: OwnedFd,
    terms: LinkTerms,
) -> Result<Link> {
    tracing::debug!(host = process.pid(), "host started");
    Link::builder()
        .interfaces(&terms.interfaces)
        .heartbeat(terms.heartbeat)
        .limits(terms.limits)
        .payloads(terms.payloads)
        .to_host(process)
        .connect(Endpoint::unix(socket).config(terms.config))
        .await
}

/// What was ordered of a host.
pub(super) struct Order {
    pub(super) sandbox: Sandbox,
    pub(super) configure: ConfigureHost,
    pub(super) vouched: Option<Vouched>,
    pub(super) terms: LinkTerms,
}

/// Refuses a host that says itself that it is not what was ordered.
fn checked(reported: Option<Isolation>, ordered: &Sandbox) -> Result<Isolation> {
    let refused = |layer: &str, why: String| {
        Error::new(ErrorKind::LayerMissing {
            layer: layer.to_owned().into(),
            why: why.into(),
        })
    };
    let isolation = reported
        .ok_or_else(|| refused("report", "the host does not report what confines it".into()))?;
    if isolation.profile != Some(ordered.profile) {
        let why = format!("the host reports to be another kind of host: {isolation}");
        return Err(refused("report", why));
    }
    let missing = Layer::ALL
        .into_iter()
        .find(|layer| ordered.requires(*layer) && !isolation.has(*layer));
    match missing {
        Some(layer) => Err(refused(
            layer.name(),
            format!("the host reports: {isolation}"),
        )),
        None => Ok(isolation),
    }
}

/// Makes the end of the link to a process into the error that says how the process ended.
pub(crate) fn diagnose(process: &Arc<HostProcess>) -> Diagnose {
    let (pid, exited) = (process.pid(), process.exited());
    let host = Arc::downgrade(process);
    Box::new(move |end: TransportError| host_lost(pid, end, host, exited).boxed_local())
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
    let wait = match end.is_violation() {
        // One that dies while it writes breaks the protocol too, and that it died says more.
        true => DYING_WAIT,
        false => EXIT_WAIT,
    };
    if is_hung {
        kill();
    }
    let exit = tokio::time::timeout(wait, exited.as_mut()).await;
    if exit.is_err() {
        // It has closed its side, or breaks the protocol: nobody can talk to it any more.
        kill();
    }
    let broken = || Error::new(ErrorKind::Protocol(end.to_string().into())).in_process(pid);
    let mut exit = match (exit, &end) {
        // One that leaves in peace when its link is closed on it has still broken the protocol.
        (Ok(exit), end) if end.is_violation() && exit.code() == Some(0) => {
            tracing::warn!(host = pid, %end, "a host breaks the protocol and leaves");
            return broken();
        }
        (Ok(exit), _) => HostExit {
            pid,
            code: exit.code(),
            signal: exit.signal(),
            blocked: exit.blocked.map(|call| call.to_string()),
            quota: exit.quota.and_then(quota),
            last_words: exit.last_words,
        },
        (Err(_), end) if end.is_violation() => {
            tracing::warn!(host = pid, %end, "a host breaks the protocol and is killed");
            return broken();
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
    tracing::info!(host = pid, %exit, %end, "host lost");
    let lost = Error::new(ErrorKind::HostLost(exit));
    match end.is_violation() {
        // Whichever was first: how it ended must not hide what it did.
        true => lost.because(end.to_string()),
        false => lost,
    }
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
    states: Option<PeerStates>,
    /// Memory of this process that the host can read; of an in-process one, what everything uses.
    memory: Arc<SlotAllocator>,
    /// Which kind of host was ordered, and what it reports; `None` in the application's own process.
    confined: Option<(SandboxProfile, Isolation)>,
    vouched: Option<Vouched>,
    /// Where what is created here runs, if it is a thread of its own.
    _thread: Option<OwnThread>,
}

/// A thread that ends with its owner.
struct OwnThread(ArbiterHandle);

impl Drop for OwnThread {
    fn drop(&mut self) {
        self.0.stop();
    }
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

    /// The same, writing payloads into memory that hosts share: they go to each of those hosts without a copy.
    ///
    /// # Errors
    /// `Cancelled` if the process is ending.
    pub async fn in_process_with(registry: Arc<Registry>, memory: &SampleMemory) -> Result<Self> {
        Self::beside(registry, Arc::new(SlotAllocator::of(memory))).await
    }

    /// The application's side of this host: what is created there runs in the application and writes its payloads where
    /// the host can read them without a copy. For sources of the application that a session in the host plays.
    ///
    /// # Errors
    /// `Cancelled` if the process is ending.
    pub async fn application_side(&self, registry: Arc<Registry>) -> Result<Self> {
        Self::beside(registry, Arc::clone(&self.0.memory)).await
    }

    /// The same interface without a process and on a thread of its own, with this one's memory: what is created there runs
    /// beside what runs on Portcullis' own thread. What was created there ends with the last clone of this connection.
    ///
    /// # Errors
    /// `Cancelled` if the process is ending.
    pub async fn on_own_thread(&self, registry: Arc<Registry>) -> Result<Self> {
        let memory = Arc::clone(&self.0.memory);
        // In its owner from the beginning: this may be given up at any point.
        let thread = runtime::run(|| async { Ok(OwnThread(Arbiter::new().handle())) }).await?;
        let (made, pmp) = oneshot::channel();
        let used = Arc::clone(&memory);
        let make = move || drop(made.send(PmpHostActor::create(registry, used, None)));
        if !thread.0.spawn_fn(make) {
            return Err(Error::cancelled());
        }
        let pmp = pmp.await.map_err(|_| Error::cancelled())?;
        Ok(Self(Arc::new(Shared {
            pmp,
            process: None,
            lost: None,
            states: None,
            memory,
            confined: None,
            vouched: None,
            _thread: Some(thread),
        })))
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
            states: None,
            memory,
            confined: None,
            vouched: None,
            _thread: None,
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
        self.0.confined.as_ref().map(|(_, isolation)| isolation)
    }

    /// In which placement the sessions of this host are: by what was ordered, not by what the host says.
    pub fn placement(&self) -> Placement {
        match &self.0.confined {
            None => Placement::InProcess,
            Some((SandboxProfile::Protected, _)) => Placement::Protected,
            Some((SandboxProfile::Isolated, _)) => Placement::Isolated,
        }
    }

    /// Who vouches for a protected host's program; `None` for other hosts.
    pub fn vouched(&self) -> Option<&Vouched> {
        self.0.vouched.as_ref()
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

    /// Follows whether the host answers; `None` in the application's own process.
    pub fn peer_states(&self) -> Option<PeerStates> {
        self.0.states.clone()
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

#[cfg(test)]
mod tests {
    use portcullis_transport::SandboxPolicy;
    use serde_json::json;

    use super::*;

    fn report(profile: &str, missing: Option<Layer>) -> Isolation {
        let layers: Vec<_> = Layer::ALL
            .into_iter()
            .map(|layer| {
                let is_missing = missing == Some(layer);
                let state = match is_missing {
                    true => json!({ "missing": "not here" }),
                    false => json!("in_force"),
                };
                json!({ "layer": layer, "state": state })
            })
            .collect();
        let report = json!({ "profile": profile, "policy": "require", "layers": layers });
        serde_json::from_value(report).unwrap()
    }

    fn refused(reported: Option<Isolation>, ordered: &Sandbox) -> bool {
        match checked(reported, ordered) {
            Ok(_) => false,
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::LayerMissing { .. }),
                    "{error}"
                );
                true
            }
        }
    }

    #[test]
    fn a_host_that_is_not_what_was_ordered_is_refused() {
        let isolated = Sandbox::isolated(SandboxPolicy::Require);
        let lenient = Sandbox::isolated(SandboxPolicy::BestEffort);
        let without = |layer| Some(report("isolated", Some(layer)));
        assert!(!refused(Some(report("isolated", None)), &isolated));
        assert!(refused(None, &isolated));
        assert!(refused(Some(report("protected", None)), &isolated));
        assert!(refused(
            Some(report("isolated", None)),
            &Sandbox::protected()
        ));
        assert!(refused(without(Layer::Landlock), &isolated));
        assert!(!refused(without(Layer::Landlock), &lenient));
        assert!(!refused(without(Layer::SealedImage), &isolated));
        let unsealed = report("protected", Some(Layer::SealedImage));
        assert!(refused(Some(unsealed), &Sandbox::protected()));
    }
}
