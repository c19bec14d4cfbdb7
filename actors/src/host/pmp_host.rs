//! The actor that creates objects in its process by class id.

use std::fmt;
use std::sync::Arc;

use actix::{Actor, AsyncContext, Context, Handler, WeakAddr};
use portcullis_derive::Remote;
use portcullis_engine::component::Role;
use portcullis_engine::trust::ClassVersion;
use portcullis_engine::{ContentLimits, Error, ErrorKind, Result, SampleAllocator, Settings};
use serde::{Deserialize, Serialize};

use crate::bridge::{AnyHandle, FileDescriptor, Handle, ReplyFuture};
use crate::pipeline::opener::{CreateUrl, Opener};
use crate::pipeline::resolver::{SourceResolver, SourceResolverActor};
use crate::pipeline::session::{MediaSessionActor, SessionConfig, SessionControl};
use crate::pipeline::sink::{ComponentRenderer, ReadAhead, SinkActor, SinkObject};
use crate::pipeline::source::{SourceActor, SourceObject};
use crate::pipeline::transform::TransformObject;
use crate::registry::{Environment, Registry};
use crate::system_time;

crate::interface! {
    /// The host of a session.
    pub PmpHost = "portcullis.PmpHost" { DescribeHost, CreateObject, CreateSession }
}

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
    own: Option<WeakAddr<Self>>,
}

impl PmpHostActor {
    /// Starts the host actor on this arbiter; what it creates uses `allocator` for its output.
    pub(crate) fn create(
        registry: Arc<Registry>,
        allocator: Arc<dyn SampleAllocator>,
    ) -> Handle<PmpHost> {
        let actor = Self {
            registry,
            allocator,
            own: None,
        };
        Handle::new(&actor.start())
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

impl Handler<DescribeHost> for PmpHostActor {
    type Result = Result<HostFacts>;

    fn handle(&mut self, _: DescribeHost, _: &mut Self::Context) -> Self::Result {
        let mut classes: Vec<_> = self
            .registry
            .components()
            .iter()
            .map(|entry| entry.info().class.to_owned())
            .collect();
        classes.push(SOURCE_RESOLVER.to_owned());
        Ok(HostFacts {
            pid: portcullis_transport::host::pid(),
            classes,
            components: self.registry.components().class_versions(),
        })
    }
}

impl Handler<CreateObject> for PmpHostActor {
    type Result = ReplyFuture<CreatedObject>;

    fn handle(&mut self, message: CreateObject, _: &mut Self::Context) -> Self::Result {
        let registry = Arc::clone(&self.registry);
        let environment = Environment {
            allocator: Arc::clone(&self.allocator),
            limits: message.limits,
        };
        ReplyFuture::new(create_object(registry, environment, message))
    }
}

/// Creates an object by class id in this process, on this arbiter.
pub(crate) async fn create_object(
    registry: Arc<Registry>,
    environment: Environment,
    request: CreateObject,
) -> Result<CreatedObject> {
    let CreateObject {
        class,
        settings,
        opener,
        limits,
    } = request;
    if class == SOURCE_RESOLVER {
        return Ok(CreatedObject::Resolver(SourceResolverActor::create(
            registry,
        )));
    }
    let Some(info) = registry.components().get(&class).map(|entry| *entry.info()) else {
        return Err(Error::new(ErrorKind::ClassNotInHost {
            class: class.into(),
        }));
    };
    match info.role {
        Role::Source => {
            let build = move || {
                let mut source = registry.components().create_source(&class, &settings)?;
                source.use_memory(environment.allocator);
                Ok(source)
            };
            SourceActor::create(info.inline, limits, None, build)
                .await
                .map(CreatedObject::Source)
        }
        Role::Decoder | Role::Converter | Role::Transform => {
            let (object, control) = registry
                .create_transform(&class, &settings, environment)
                .await?;
            Ok(CreatedObject::Transform(object, control))
        }
        Role::Sink => {
            let build = move || registry.components().create_sink(&class, &settings);
            let (renderer, url) = ComponentRenderer::create(info.inline, build).await?;
            if let Some(url) = url {
                let opener = opener
                    .ok_or_else(|| Error::invalid_request("a sink that writes needs an opener"))?;
                let file = opener.send(CreateUrl { url }).await?;
                renderer.attach(Box::new(into_file(&file)?)).await?;
            }
            let sink = SinkActor::create(renderer, ReadAhead::default(), system_time::now);
            Ok(CreatedObject::Sink(sink))
        }
        role => Err(Error::invalid_request(format!(
            "{class} is a {role}: use a source resolver"
        ))),
    }
}

fn into_file(descriptor: &FileDescriptor) -> Result<std::fs::File> {
    let descriptor = descriptor
        .take()
        .ok_or_else(|| Error::invalid_request("the descriptor of an output was taken before"))?;
    Ok(std::fs::File::from(descriptor))
}

impl Handler<CreateSession> for PmpHostActor {
    type Result = Result<Handle<SessionControl>>;

    fn handle(&mut self, message: CreateSession, _: &mut Self::Context) -> Self::Result {
        let own = self
            .own
            .as_ref()
            .and_then(WeakAddr::upgrade)
            .ok_or_else(|| Error::new(ErrorKind::ActorStopped))?;
        let environment = Environment {
            allocator: Arc::clone(&self.allocator),
            limits: message.config.limits,
        };
        Ok(MediaSessionActor::create(
            Arc::clone(&self.registry),
            environment,
            message.config,
            Handle::new(&own),
        ))
    }
}
