//! A host for actors of one's own: nothing of media in it.

use std::fmt;
use std::sync::Arc;

use portcullis_engine::Result;
use portcullis_transport::{HostProcess, Sandbox};

use super::connection;
use super::init;
use super::program::Host;
use crate::bridge::{Handle, Interface, InterfaceTable, LinkLost, PeerStates};
use crate::runtime;

/// Makes this program able to host an actor of its own. Call it first thing in `main`, before any thread.
///
/// In an ordinary process it returns at once. In a process that was started by [`Host::start_actor`] it starts the actor that
/// `make` gives, serves it to the application and never returns: the process ends when the application goes. `make` runs on
/// an actix arbiter.
///
/// A program calls either this or [`init`](super::init()). [`init_actor_with`] also names interfaces beside the actor's own.
pub fn init_actor<I: Interface>(make: impl FnOnce() -> Handle<I> + 'static) {
    init_actor_with(InterfaceTable::new(), make);
}

/// [`init_actor`] with the interfaces that the hosted actors call or serve beside that of the first one: what both sides know
/// is compared when they connect.
pub fn init_actor_with<I: Interface>(
    interfaces: InterfaceTable,
    make: impl FnOnce() -> Handle<I> + 'static,
) {
    init::serve_if_host(interfaces.with::<I>(), move |_| make().into_any());
}

impl Host {
    /// Starts the host, isolated, for a program that calls [`init_actor`], and connects to the actor that it made there.
    /// Dropping the future ends it.
    ///
    /// What confines the host is ordered as for any other one, and a host that cannot have it does not start; there is no
    /// report of it.
    ///
    /// # Errors
    /// `HostStart` and `LayerMissing` that say why; `Protocol` where the sides do not mean the same by an interface;
    /// `HostLost` if the host ends at once.
    pub async fn start_actor<I: Interface>(&self) -> Result<ActorHost<I>> {
        let launched = self
            .launch(Sandbox::isolated(self.sandbox_policy()), None)
            .await?;
        let process = Arc::clone(&launched.process);
        let terms = self.link_terms(InterfaceTable::new().with::<I>());
        let connected = runtime::run(move || async move {
            let link = connection::link(&launched.process, launched.socket, terms).await?;
            Ok((link.root::<I>()?, link.lost(), link.peer_states()))
        });
        let (root, lost, states) = connected.await?;
        Ok(ActorHost {
            root,
            lost,
            states,
            process,
        })
    }
}

/// A started host of an actor of one's own. The process ends when this is dropped.
pub struct ActorHost<I: Interface> {
    root: Handle<I>,
    lost: LinkLost,
    states: PeerStates,
    process: Arc<HostProcess>,
}

impl<I: Interface> ActorHost<I> {
    /// The actor that the host made first.
    pub fn root(&self) -> &Handle<I> {
        &self.root
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Watches for the host's end.
    pub fn lost(&self) -> LinkLost {
        self.lost.clone()
    }

    /// Follows whether the host answers.
    pub fn peer_states(&self) -> PeerStates {
        self.states.clone()
    }

    /// Kills the process.
    pub fn kill(&self) {
        self.process.kill();
    }
}

impl<I: Interface> fmt::Debug for ActorHost<I> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ActorHost<{}>(process {})", I::NAME, self.pid())
    }
}
