//! Locks that keep a host a little longer than its connections (reference P8).

use std::sync::Arc;
use std::time::Duration;

use portcullis_engine::Result;
use portcullis_transport::HostProcess;

use super::pmp_host::{AwaitHostUnlocked, CountHostLocks, LockHost, PmpHost, UnlockHost};
use crate::bridge::Handle;

/// How long a locked host is kept: the original's.
const GRACE: Duration = Duration::from_secs(3);
/// How long a host may take to say whether it is locked; one that hangs is not kept.
const ANSWER: Duration = Duration::from_millis(100);

/// Keeps a host, when its last connection goes, until it is dropped or unlocked, at most three seconds.
#[derive(Debug)]
#[must_use = "dropping it unlocks the host"]
pub struct HostLock(Option<Handle<PmpHost>>);

impl HostLock {
    pub(super) async fn take(host: &Handle<PmpHost>) -> Result<Self> {
        host.send(LockHost).await?;
        Ok(Self(Some(host.clone())))
    }

    /// Unlocks; answers how many other locks there are.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn unlock(mut self) -> Result<u32> {
        match self.0.take() {
            Some(host) => host.send(UnlockHost).await,
            None => Ok(0),
        }
    }
}

impl Drop for HostLock {
    fn drop(&mut self) {
        if let Some(host) = self.0.take()
            && let Err(error) = host.tell(UnlockHost)
        {
            tracing::error!(%error, "a host stays locked until its last handle is gone");
        }
    }
}

/// Keeps the process as long as its locks say, then lets it go.
pub(super) async fn end_when_unlocked(host: Handle<PmpHost>, process: Arc<HostProcess>) {
    let locks = tokio::time::timeout(ANSWER, host.send(CountHostLocks)).await;
    if matches!(locks, Ok(Ok(1..))) {
        // Whatever comes of it, the time is over.
        let _ = tokio::time::timeout(GRACE, host.send(AwaitHostUnlocked)).await;
    }
    drop(process);
}
