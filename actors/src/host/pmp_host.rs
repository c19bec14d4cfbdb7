//! The actor that creates objects in its process by class id.

use std::fmt;
use std::sync::Arc;

use actix::{Actor, AsyncContext, Handler, WeakAddr};
use portcullis_derive::Remote;
use portcullis_engine::trust::ClassVersion;
use portcullis_engine::{ContentLimits, Error, ErrorKind, Result, SampleAllocator, Settings};
use portcullis_transport::Isolation;
use serde::{Deserialize, Serialize};

use super::create::create_object;
use super::session_places::SessionPlaces;
use crate::bridge::{Answerer, AnyHandle, Context, Deferred, Handle, ReplyFuture, deferred};
use crate::pipeline::opener::Opener;
use crate::pipeline::resolver::SourceResolver;
use crate::pipeline::session::{MediaSessionActor, SessionConfig, SessionControl};
use crate::pipeline::sink::SinkObject;
use crate::pipeline::source::SourceObject;
use crate::pipeline::transform::TransformObject;
use crate::registry::{Environment, Registry, SessionUsage};

crate::interface! {
    /// The host of a session.
    pub PmpHost = "portcullis.PmpHost" {
        ConfigureHost, DescribeHost, CreateObject, CreateSession, LockHost, UnlockHost, CountHostLocks, AwaitHostUnlocked
    }
}

/// Says what the host may do; the first message to it, and only once.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = HostFacts, deadline_ms = 10000)]
pub struct ConfigureHost {
    /// Sessions that it takes at a time.
    pub sessions: u32,
    /// The components that it may offer, by the manifest of a protected host; all that it registers without one.
    pub permitted: Option<Vec<ClassVersion>>,
}

/// Keeps the host from ending when its last connection goes, until it is unlocked or a grace of three seconds is over.
/// Counts: each lock needs an unlock (reference P8).
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = u32)]
pub struct LockHost;

/// Takes one lock back; answers how many there are. `InvalidRequest` without a lock.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = u32)]
pub struct UnlockHost;

/// Asks how many locks there are.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = u32)]
pub struct CountHostLocks;

/// Waits until there is no lock.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = (), no_deadline)]
pub struct AwaitHostUnlocked;

/// Asks which process the host is and what it can create.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = HostFacts)]
pub struct DescribeHost;

/// What a host is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Its process id.
    pub pid: u32,
    /// The classes that it can create.
    pub classes: Vec<String>,
    /// Its components with their versions: what the manifest of its program has to list.
    pub components: Vec<ClassVersion>,
    /// What keeps the process from everything else, as it measured it; `None` of the application's own process.
    pub isolation: Option<Isolation>,
}

/// Creates an object by class id where the host is.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = CreatedObject, deadline_ms = 30000)]
pub struct CreateObject {
    /// The class id: a component's, or [`SOURCE_RESOLVER`].
    pub class: String,
    /// The class's settings.
    pub settings: Settings,
    /// Who opens what the object needs opened, such as a file sink's file.
    pub opener: Option<Handle<Opener>>,
    /// What content may ask for.
    pub limits: ContentLimits,
}

/// Class id of the source resolver.
pub const SOURCE_RESOLVER: &str = "portcullis.source-resolver";

/// What was created.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CreatedObject {
    /// A resolver.
    Resolver(Handle<SourceResolver>),
    /// A source.
    Source(SourceObject),
    /// A transform, and the handle of its own messages if it has some.
    Transform(TransformObject, Option<AnyHandle>),
    /// A sink.
    Sink(SinkObject),
}

/// Creates a session where the host is.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = Handle<SessionControl>)]
pub struct CreateSession {
    /// How.
    pub config: SessionConfig,
}

/// Creates objects in its process. One for each link.
pub(crate) struct PmpHostActor {
    registry: Arc<Registry>,
    allocator: Arc<dyn SampleAllocator>,
    isolation: Option<Isolation>,
    sessions: SessionPlaces,
    is_configured: bool,
    locks: u32,
    awaiting_unlock: Vec<Answerer<()>>,
    own: Option<WeakAddr<Self>>,
}

impl PmpHostActor {
    /// Starts the host actor on this arbiter; what it creates uses `allocator` for its output.
    pub(crate) fn create(
        registry: Arc<Registry>,
        allocator: Arc<dyn SampleAllocator>,
        isolation: Option<Isolation>,
    ) -> Handle<PmpHost> {
        let actor = Self {
            registry,
            allocator,
            isolation,
            sessions: SessionPlaces::unlimited(),
            is_configured: false,
            locks: 0,
            awaiting_unlock: Vec::new(),
            own: None,
        };
        Handle::start(actor)
    }
}

impl fmt::Debug for PmpHostActor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("PmpHostActor")
    }
}

impl Actor for PmpHostActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.own = Some(ctx.address().downgrade());
    }
}

impl PmpHostActor {
    fn facts(&self) -> HostFacts {
        let components = self.registry.components().class_versions();
        let mut classes: Vec<_> = components
            .iter()
            .map(|component| component.class.clone())
            .collect();
        classes.push(SOURCE_RESOLVER.to_owned());
        HostFacts {
            pid: portcullis_transport::host::pid(),
            classes,
            components,
            isolation: self.isolation.clone(),
        }
    }
}

impl Handler<ConfigureHost> for PmpHostActor {
    type Result = Result<HostFacts>;

    fn handle(&mut self, message: ConfigureHost, _: &mut Self::Context) -> Self::Result {
        if std::mem::replace(&mut self.is_configured, true) {
            return Err(Error::invalid_request("a host is configured only once"));
        }
        self.sessions = SessionPlaces::new(message.sessions);
        if let Some(permitted) = message.permitted {
            self.registry = Arc::new(self.registry.permitted(&permitted));
        }
        let facts = self.facts();
        // A host may now wait for long, in a pool say.
        portcullis_transport::host::settle();
        Ok(facts)
    }
}

impl Handler<DescribeHost> for PmpHostActor {
    type Result = Result<HostFacts>;

    fn handle(&mut self, _: DescribeHost, _: &mut Self::Context) -> Self::Result {
        Ok(self.facts())
    }
}

impl Handler<LockHost> for PmpHostActor {
    type Result = Result<u32>;

    fn handle(&mut self, _: LockHost, _: &mut Self::Context) -> Self::Result {
        self.locks = self
            .locks
            .checked_add(1)
            .ok_or_else(|| Error::invalid_request("too many locks"))?;
        Ok(self.locks)
    }
}

impl Handler<UnlockHost> for PmpHostActor {
    type Result = Result<u32>;

    fn handle(&mut self, _: UnlockHost, _: &mut Self::Context) -> Self::Result {
        self.locks = self
            .locks
            .checked_sub(1)
            .ok_or_else(|| Error::invalid_request("the host is not locked"))?;
        if self.locks == 0 {
            for waiting in self.awaiting_unlock.drain(..) {
                // Who waited may have given up.
                let _ = waiting.answer(());
            }
        }
        Ok(self.locks)
    }
}

impl Handler<CountHostLocks> for PmpHostActor {
    type Result = Result<u32>;

    fn handle(&mut self, _: CountHostLocks, _: &mut Self::Context) -> Self::Result {
        Ok(self.locks)
    }
}

impl Handler<AwaitHostUnlocked> for PmpHostActor {
    type Result = Deferred<()>;

    fn handle(&mut self, _: AwaitHostUnlocked, _: &mut Self::Context) -> Self::Result {
        if self.locks == 0 {
            return Deferred::ready(Ok(()));
        }
        self.awaiting_unlock.retain(|waiting| !waiting.has_gone());
        let (answerer, answer) = deferred();
        self.awaiting_unlock.push(answerer);
        answer
    }
}

impl Handler<CreateObject> for PmpHostActor {
    type Result = ReplyFuture<CreatedObject>;

    fn handle(&mut self, message: CreateObject, _: &mut Self::Context) -> Self::Result {
        let registry = Arc::clone(&self.registry);
        let environment = Environment {
            allocator: Arc::clone(&self.allocator),
            limits: message.limits,
            usage: SessionUsage::default(),
        };
        ReplyFuture::new(create_object(registry, environment, message))
    }
}

impl Handler<CreateSession> for PmpHostActor {
    type Result = Result<Handle<SessionControl>>;

    fn handle(&mut self, message: CreateSession, _: &mut Self::Context) -> Self::Result {
        let own = self
            .own
            .as_ref()
            .and_then(WeakAddr::upgrade)
            .ok_or_else(|| Error::new(ErrorKind::ActorStopped))?;
        let place = self.sessions.take()?;
        let environment = Environment {
            allocator: Arc::clone(&self.allocator),
            limits: message.config.limits,
            usage: SessionUsage::default(),
        };
        Ok(MediaSessionActor::create(
            Arc::clone(&self.registry),
            environment,
            message.config,
            Handle::new(&own),
            place,
        ))
    }
}
