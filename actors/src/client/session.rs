//! A media session, as an application holds it.

use std::sync::Arc;

use portcullis_engine::clock::ClockSnapshot;
use portcullis_engine::event::{CommandId, Event, EventKind};
use portcullis_engine::session::SetTopologyFlags;
use portcullis_engine::topology::{self, ObjectId, Topology};
use portcullis_engine::{Component, ContentLimits, Error, ErrorKind, MediaTime, Result, Settings};

use super::events::{EventStream, Events};
use crate::bridge::{Call, Handle, Has, Remote};
use crate::host::{
    CreateObject, CreateSession, CreatedObject, Host, HostConnection, PmpHost, ProtectedHost,
    SOURCE_RESOLVER, Trust,
};
use crate::interactive::Interactive;
use crate::pipeline::opener::{OpenPolicy, OpenUrl, Opener};
use crate::pipeline::resolver::{self, ResolveUrl, SourceResolver};
use crate::pipeline::session::{
    ClearTopologies, CloseSession, GetClock, GetFullTopology, GetStatistics, NodeObject,
    OutputStatistics, Pacing, PauseSession, SessionConfig, SessionControl, SetTopology,
    ShutdownSession, StartSession, StopSession,
};
use crate::pipeline::sink::ReadAhead;
use crate::pipeline::source::SourceObject;
use crate::pipeline::transform::TransformObject;
use crate::registry::Registry;
use crate::runtime;

/// Where a session runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placement {
    /// In the application's own process.
    InProcess,
    /// In a sandboxed process of its own, for clear content.
    Isolated(Host),
    /// In a process whose program is verified and whose sandbox is complete, or it does not start.
    Protected(ProtectedHost),
}

impl Placement {
    /// In a process of its own, with this program as the host.
    pub fn isolated() -> Self {
        Self::Isolated(Host::current())
    }

    /// In a process of its own, with this program as the host, which `trust` has to find to be what its manifest says.
    pub fn protected(trust: Trust) -> Self {
        Self::Protected(ProtectedHost::new(Host::current(), trust))
    }

    /// Whether the session runs in another process.
    pub fn is_in_host(&self) -> bool {
        !matches!(self, Self::InProcess)
    }
}

/// The original's choice of a process for a PMP session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PmpFlags {
    /// A protected process, which this finds to be what its manifest says.
    Protected(Trust),
    /// `MFPMPSESSION_UNPROTECTED_PROCESS`: isolation only, for clear content.
    UnprotectedProcess,
}

/// On which side of the wall a source is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceSide {
    /// Where the session runs: parsing is the danger. For an isolated session this is remote-source mode.
    #[default]
    Host,
    /// In the application; a source proxy stands for it in the host, and its samples cross.
    Application,
}

/// Makes a session.
#[derive(Debug)]
pub struct MediaSessionBuilder {
    registry: Arc<Registry>,
    placement: Placement,
    host: Option<HostConnection>,
    limits: ContentLimits,
    pacing: Pacing,
    read_ahead: Option<ReadAhead>,
    policy: OpenPolicy,
}

impl MediaSessionBuilder {
    /// A session in this placement; `registry` is what the application's own process can create.
    pub fn new(registry: Arc<Registry>, placement: Placement) -> Self {
        Self {
            registry,
            placement,
            host: None,
            limits: ContentLimits::default(),
            pacing: Pacing::default(),
            read_ahead: None,
            policy: OpenPolicy::default(),
        }
    }

    /// A PMP session as in the original (reference P1, P2): in a protected host, unless the flag for an unprotected process is
    /// set, which gives an isolated one.
    pub fn pmp(registry: Arc<Registry>, host: Host, pmp: PmpFlags) -> Self {
        let placement = match pmp {
            PmpFlags::Protected(trust) => Placement::Protected(ProtectedHost::new(host, trust)),
            PmpFlags::UnprotectedProcess => Placement::Isolated(host),
        };
        Self::new(registry, placement)
    }

    /// Runs in another placement than the one given first.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Runs in a host that is there already; the placement given before only says that it must not be less than protected.
    #[must_use]
    pub fn host(mut self, host: HostConnection) -> Self {
        self.host = Some(host);
        self
    }

    /// What content may ask for.
    #[must_use]
    pub fn limits(mut self, limits: ContentLimits) -> Self {
        self.limits = limits;
        self
    }

    /// When samples are rendered.
    #[must_use]
    pub fn pacing(mut self, pacing: Pacing) -> Self {
        self.pacing = pacing;
        self
    }

    /// How far sinks read ahead.
    #[must_use]
    pub fn read_ahead(mut self, ahead: ReadAhead) -> Self {
        self.read_ahead = Some(ahead);
        self
    }

    /// What the session may open. Nothing by default.
    #[must_use]
    pub fn policy(mut self, policy: OpenPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Starts the host, if one is needed, and makes the session in it.
    ///
    /// # Errors
    /// `HostStart`, `HostLost`, `Protocol`.
    pub async fn start(self) -> Result<MediaSession> {
        let host = match (self.host, &self.placement) {
            (Some(host), Placement::Protected(_))
                if host.placement() != topology::Placement::Protected =>
            {
                return Err(Error::invalid_request(
                    "a session that is to be protected cannot run in a host that is not",
                ));
            }
            (Some(host), _) => host,
            (None, Placement::InProcess) => {
                HostConnection::in_process(Arc::clone(&self.registry)).await?
            }
            (None, Placement::Isolated(host)) => {
                let host = host.clone().interfaces(self.registry.interfaces());
                host.start().await?
            }
            (None, Placement::Protected(host)) => {
                let host = host.clone().interfaces(self.registry.interfaces());
                host.start().await?
            }
        };
        let policy = self.policy;
        let opener = runtime::run(move || async move { Ok(policy.start()) }).await?;
        let config = SessionConfig {
            limits: self.limits,
            opener: opener.clone(),
            pacing: self.pacing,
            read_ahead: self.read_ahead,
            placement: host.placement(),
        };
        let control = host.pmp_host().send(CreateSession { config }).await?;
        let events = Events::start(control.clone()).await?;
        Ok(MediaSession {
            control,
            events,
            opener,
            limits: self.limits,
            registry: self.registry,
            host,
        })
    }
}

/// A media session. Commands resolve when the session has completed them; dropping the last clone ends the session, and
/// its host unless others use that.
///
/// # Cancellation
/// Dropping a command's future does not take the command back: it was queued. Its event still comes.
///
/// # When the host dies
/// Every pending command fails with `HostLost`, an `Error` event says so, and the event stream ends.
#[derive(Clone, Debug)]
pub struct MediaSession {
    control: Handle<SessionControl>,
    events: Events,
    opener: Handle<Opener>,
    limits: ContentLimits,
    registry: Arc<Registry>,
    host: HostConnection,
}

impl MediaSession {
    /// The session's events from now on.
    pub fn events(&self) -> EventStream {
        self.events.subscribe()
    }

    /// The session's actor, for requests that have no method here.
    pub fn control(&self) -> &Handle<SessionControl> {
        &self.control
    }

    /// The host in which the session runs.
    pub fn host(&self) -> &HostConnection {
        &self.host
    }

    /// The host's actor (the original's PMP service): creates objects where the session runs.
    pub fn pmp_host(&self) -> &Handle<PmpHost> {
        self.host.pmp_host()
    }

    /// The session's opener, for requests to a resolver of one's own.
    pub fn opener(&self) -> &Handle<Opener> {
        &self.opener
    }

    /// What content may ask for in this session.
    pub fn limits(&self) -> ContentLimits {
        self.limits
    }

    /// A source resolver in the host, created by its class id.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn create_resolver(&self) -> Result<Handle<SourceResolver>> {
        match self
            .create_object(SOURCE_RESOLVER, Settings::default())
            .await?
        {
            CreatedObject::Resolver(resolver) => Ok(resolver),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a source of a URL that the session's policy grants. Dropping the future gives up the opening.
    ///
    /// # Errors
    /// `OpenRefused`, `NotFound`, `Io`, and what the content is refused for; all name the input.
    pub async fn resolve(&self, url: &str, side: SourceSide) -> Result<SourceObject> {
        let url = url.to_owned();
        match side {
            SourceSide::Host => {
                let resolver = self.create_resolver().await?;
                let (opener, limits) = (self.opener.clone(), self.limits);
                resolver
                    .send(ResolveUrl {
                        url,
                        opener,
                        limits,
                    })
                    .await
            }
            SourceSide::Application => {
                let (opener, registry, limits) =
                    (self.opener.clone(), Arc::clone(&self.registry), self.limits);
                runtime::run(move || async move {
                    let stream = opener.send(OpenUrl { url }).await?;
                    resolver::resolve(registry, stream, limits).await
                })
                .await
            }
        }
    }

    /// Creates a component where the session runs, by class id and settings.
    ///
    /// # Errors
    /// `ClassNotInHost`, `InvalidSettings`, and what the component says.
    pub async fn create_object(&self, class: &str, settings: Settings) -> Result<CreatedObject> {
        let request = CreateObject {
            class: class.to_owned(),
            settings,
            opener: Some(self.opener.clone()),
            limits: self.limits,
        };
        self.pmp_host().send(request).await
    }

    /// Creates a transform with messages of its own where the session runs: its handle, and what a topology refers to.
    ///
    /// # Errors
    /// `ClassNotInHost`, `InvalidSettings`, and what the component says.
    pub async fn create<C>(&self, component: C) -> Result<(Handle<C::Interface>, TransformObject)>
    where
        C: Interactive + Component<Settings = C>,
    {
        self.create_with::<C>(&component).await
    }

    /// Like [`MediaSession::create`], for components whose settings are a type of their own.
    ///
    /// # Errors
    /// `ClassNotInHost`, `InvalidSettings`, and what the component says.
    pub async fn create_with<C: Interactive>(
        &self,
        settings: &C::Settings,
    ) -> Result<(Handle<C::Interface>, TransformObject)> {
        match self
            .create_object(C::INFO.class, Settings::of(settings)?)
            .await?
        {
            CreatedObject::Transform(object, Some(control)) => Ok((control.typed()?, object)),
            CreatedObject::Transform(_, None) => Err(Error::new(ErrorKind::Unsupported {
                what: format!(
                    "{}: the host registers it without its messages; messages",
                    C::INFO.class
                )
                .into(),
            })),
            other => Err(unexpected(&other)),
        }
    }

    /// Sets a topology, which follows the one that is played, if there is one; answers the full one.
    ///
    /// # Errors
    /// A fault of the topology at once; what resolution found, with the attempts as causes.
    pub async fn set_topology(
        &self,
        topology: Topology,
        objects: Vec<(ObjectId, NodeObject)>,
    ) -> Result<Topology> {
        self.set_topology_with(topology, objects, SetTopologyFlags::default())
            .await
    }

    /// The same with flags: at once in place of what is played and waits, for one.
    ///
    /// # Errors
    /// As [`MediaSession::set_topology`].
    pub async fn set_topology_with(
        &self,
        topology: Topology,
        objects: Vec<(ObjectId, NodeObject)>,
        flags: SetTopologyFlags,
    ) -> Result<Topology> {
        let request = SetTopology {
            topology,
            objects,
            flags,
        };
        let event = self.command(request).await?;
        match event.kind {
            EventKind::SessionTopologySet {
                full: Some(full), ..
            } => Ok(*full),
            _ => Err(Error::new(ErrorKind::Protocol(
                "a topology was set without a full one".into(),
            ))),
        }
    }

    /// Drops queued topologies.
    ///
    /// # Errors
    /// `InvalidRequest` after close.
    pub async fn clear_topologies(&self) -> Result<()> {
        self.command(ClearTopologies).await.map(drop)
    }

    /// Starts, resumes, or seeks to a position.
    ///
    /// # Errors
    /// `InvalidRequest` without a topology, `InvalidPosition`, and what a source or sink says.
    pub async fn start(&self, position: Option<MediaTime>) -> Result<()> {
        self.command(StartSession { position }).await.map(drop)
    }

    /// Pauses.
    ///
    /// # Errors
    /// `PauseWhileStopped`, `InvalidRequest` when paused already.
    pub async fn pause(&self) -> Result<()> {
        self.command(PauseSession).await.map(drop)
    }

    /// Stops.
    ///
    /// # Errors
    /// `InvalidRequest` without a topology.
    pub async fn stop(&self) -> Result<()> {
        self.command(StopSession).await.map(drop)
    }

    /// Stops and completes what sinks write. Nothing but `shutdown` works after it.
    ///
    /// # Errors
    /// What a sink could not complete.
    pub async fn close(&self) -> Result<()> {
        self.command(CloseSession).await.map(drop)
    }

    /// Ends everything at once. Complete when it resolves.
    ///
    /// # Errors
    /// `Shutdown` the second time.
    pub async fn shutdown(&self) -> Result<()> {
        self.control.send(ShutdownSession).await
    }

    /// The presentation clock; follow it with [`crate::system_time::now`].
    ///
    /// # Errors
    /// `Shutdown`.
    pub async fn clock(&self) -> Result<ClockSnapshot> {
        self.control.send(GetClock).await
    }

    /// The full topology that is played.
    ///
    /// # Errors
    /// `InvalidRequest` without one.
    pub async fn full_topology(&self) -> Result<Topology> {
        self.control.send(GetFullTopology).await
    }

    /// Counts of the current outputs.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn statistics(&self) -> Result<Vec<OutputStatistics>> {
        self.control.send(GetStatistics).await
    }

    async fn command<M>(&self, message: M) -> Result<Event>
    where
        M: Remote<Reply = CommandId>,
        SessionControl: Has<M>,
    {
        let _sending = self.events.sending();
        let call: Call<M> = self.control.send(message);
        let event = self.events.completion(call.await?).await?;
        event.status.clone()?;
        Ok(event)
    }
}

fn unexpected(object: &CreatedObject) -> Error {
    Error::new(ErrorKind::Protocol(
        format!("another object than asked for: {object:?}").into(),
    ))
}
