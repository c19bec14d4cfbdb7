//! Hosts that were started before they are needed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::select;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use portcullis_engine::{Error, Result};
use tokio::sync::Notify;

use super::trust::Vouched;
use super::{Host, HostConnection, ProtectedHost};
use crate::bridge::LinkLost;
use crate::runtime;

/// How long after a start that failed the pool tries again; whoever takes a host meanwhile gets the failure itself.
const PAUSE: Duration = Duration::from_secs(1);

/// Started, confined and connected hosts that wait for their one use. A host that was taken never comes back.
///
/// The pool refills itself in the background; dropping its last clone ends the hosts in it.
#[derive(Clone)]
pub struct HostPool(Arc<Pool>);

struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    kind: Kind,
    size: usize,
    state: Mutex<State>,
    /// Wakes who refills.
    taken: Notify,
}

#[derive(Default)]
struct State {
    ready: VecDeque<HostConnection>,
    is_closed: bool,
}

enum Kind {
    Isolated(Host),
    Protected(ProtectedHost),
}

impl HostPool {
    /// A pool that keeps `size` isolated hosts, at least one.
    ///
    /// # Errors
    /// Those of the first start: a pool whose hosts cannot start is of no use. `InvalidArgument` for a host with a quota of
    /// wall time, which runs from its start.
    pub async fn isolated(host: Host, size: usize) -> Result<Self> {
        Self::start(Kind::Isolated(host), size).await
    }

    /// A pool that keeps `size` protected hosts, at least one. Each is verified when it is started.
    ///
    /// # Errors
    /// Those of the first start.
    pub async fn protected(host: ProtectedHost, size: usize) -> Result<Self> {
        Self::start(Kind::Protected(host), size).await
    }

    async fn start(kind: Kind, size: usize) -> Result<Self> {
        if kind.has_wall_time() {
            return Err(Error::invalid_argument(
                "a quota of wall time would run out while the host waits in its pool",
            ));
        }
        let first = kind.start().await?;
        let shared = Arc::new(Shared {
            kind,
            size: size.max(1),
            state: Mutex::new(State {
                ready: VecDeque::from([first]),
                is_closed: false,
            }),
            taken: Notify::new(),
        });
        let filled = Arc::clone(&shared);
        // It must not end with this call, whatever executor that is on.
        runtime::arbiter()
            .await?
            .spawn(async move { filled.refill().await });
        Ok(Self(Arc::new(Pool { shared })))
    }

    /// Takes a host: one that waits, or a fresh one when none does.
    ///
    /// # Errors
    /// Those of a start.
    pub async fn take(&self) -> Result<HostConnection> {
        let shared = &self.0.shared;
        let ready = shared.next();
        shared.taken.notify_one();
        match ready {
            Some(host) => Ok(host),
            None => shared.kind.start().await,
        }
    }

    /// How many hosts wait.
    pub fn ready(&self) -> usize {
        self.0.shared.lock().ready.len()
    }
}

impl Shared {
    /// A host that lives and would still be trusted.
    fn next(&self) -> Option<HostConnection> {
        let mut state = self.lock();
        std::iter::from_fn(|| state.ready.pop_front()).find(is_good)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one of the hosts that wait has died.
    fn one_lost(&self) -> impl Future<Output = ()> + Unpin + use<> {
        let state = self.lock();
        let lost = state.ready.iter().filter_map(HostConnection::lost);
        let lost: FuturesUnordered<_> = lost.map(LinkLost::wait).collect();
        lost.into_future().map(drop)
    }

    /// Starts hosts one after another until the pool is full, and again when one was taken.
    async fn refill(&self) {
        loop {
            let is_full = {
                let mut state = self.lock();
                if state.is_closed {
                    return;
                }
                state.ready.retain(is_good);
                state.ready.len() >= self.size
            };
            if is_full {
                let taken = std::pin::pin!(self.taken.notified());
                select(taken, self.one_lost()).await;
                continue;
            }
            match self.kind.start().await {
                Ok(host) => {
                    let mut state = self.lock();
                    if state.is_closed {
                        return;
                    }
                    state.ready.push_back(host);
                }
                Err(error) => {
                    tracing::warn!(%error, "a host of the pool cannot start");
                    // Given up at once when the pool goes.
                    let _ = tokio::time::timeout(PAUSE, self.taken.notified()).await;
                }
            }
        }
    }
}

/// Whether a host that waited may still be given out.
fn is_good(host: &HostConnection) -> bool {
    let is_lost = host.lost().is_some_and(|lost| lost.now().is_some());
    let has_expired = host.vouched().is_some_and(Vouched::has_expired);
    !is_lost && !has_expired
}

impl Kind {
    fn has_wall_time(&self) -> bool {
        match self {
            Self::Isolated(host) => host.has_wall_time(),
            Self::Protected(host) => host.has_wall_time(),
        }
    }

    async fn start(&self) -> Result<HostConnection> {
        match self {
            Self::Isolated(host) => host.start().await,
            Self::Protected(host) => host.start().await,
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let ended = {
            let mut state = self.shared.lock();
            state.is_closed = true;
            std::mem::take(&mut state.ready)
        };
        self.shared.taken.notify_one();
        drop(ended);
    }
}

impl fmt::Debug for HostPool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "HostPool({} of {})", self.ready(), self.0.shared.size)
    }
}
