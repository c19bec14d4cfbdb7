//! Hosts: the process on the other side of the wall, and the actor in it that creates everything else.
//!
//! [`Host`] says which program it is and what it may use up; [`ProtectedHost`] adds why it is believed. A
//! [`HostConnection`] is a started one. The session's `Opener` opens for it; it opens nothing itself.

mod actor_host;
mod connection;
mod create;
mod init;
mod lock;
mod pmp_host;
mod pool;
mod program;
mod session_places;
mod trust;

pub use actor_host::{ActorHost, init_actor, init_actor_with};
pub use connection::HostConnection;
pub(crate) use connection::diagnose;
pub(crate) use create::create_object;
pub use init::init;
pub use lock::HostLock;
pub(crate) use pmp_host::PmpHostActor;
pub use pmp_host::{
    AwaitHostUnlocked, ConfigureHost, CountHostLocks, CreateObject, CreateSession, CreatedObject,
    DescribeHost, HostFacts, LockHost, PmpHost, SOURCE_RESOLVER, UnlockHost,
};
pub use pool::HostPool;
pub use program::{Host, ProgramFacts, ProtectedHost, inspect};
pub(crate) use session_places::SessionPlace;
pub use trust::{Trust, Vouched};

pub use crate::bridge::SampleMemory;
pub use portcullis_transport::sandbox::{
    HostQuotas, Isolation, Layer, LayerReport, LayerSet, LayerState, SandboxPolicy, SandboxProfile,
};
pub use portcullis_transport::{Carrier, LinkConfig, LinkLimits, Spin, TrustedPeer};

/// What of a host's sandbox this machine can give, tried in a child that does nothing else. A layer is missing here for the
/// same reason for which it would be missing around a host.
///
/// # Errors
/// `HostStart` when no child can be made at all.
pub async fn check() -> portcullis_engine::Result<Isolation> {
    portcullis_transport::host::check()
        .await
        .map_err(program::start_error)
}
