//! The components of a process, with those that have messages of their own.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use portcullis_engine::component::{ByteStreamHandler, Component, Role};
use portcullis_engine::media::Usage;
use portcullis_engine::trust::{ClassVersion, TrustError};
use portcullis_engine::{
    ContentLimits, MediaSink as SinkComponent, MediaSource as SourceComponent,
    Registry as Components, Result, SampleAllocator, Settings, Transform as TransformComponent,
};

use crate::bridge::{AnyHandle, Handle, Interface, InterfaceTable};
use crate::interactive::{ControlActor, Interactive};
use crate::pipeline::transform::{TransformActor, TransformObject};
use crate::worker::Worker;

/// What objects are created with.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    /// Memory for what is put out.
    pub(crate) allocator: Arc<dyn SampleAllocator>,
    /// What content may ask for.
    pub(crate) limits: ContentLimits,
    /// What the transforms of a session have made together.
    pub(crate) usage: SessionUsage,
}

/// Counts what the transforms of a session make: decoders, and all the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionUsage {
    decoded: Arc<Mutex<Usage>>,
    changed: Arc<Mutex<Usage>>,
}

impl SessionUsage {
    fn of(&self, role: Role) -> Arc<Mutex<Usage>> {
        Arc::clone(match role {
            Role::Decoder => &self.decoded,
            _ => &self.changed,
        })
    }
}

type CreateInteractive = Arc<
    dyn Fn(&Settings, Environment) -> LocalBoxFuture<'static, Result<(TransformObject, AnyHandle)>>
        + Send
        + Sync,
>;

/// The components of a process. Registration is explicit; a class that is registered again replaces the one before.
///
/// A host has the registry that was given to [`host::init`](crate::host::init).
#[derive(Clone, Default)]
pub struct Registry {
    components: Components,
    /// With the number of the registration to which it belongs: a later one without messages replaces it.
    interactive: HashMap<&'static str, (usize, CreateInteractive)>,
    /// What a signed manifest refuses, by class.
    refused: BTreeMap<String, TrustError>,
    /// Interfaces beside the built-in ones.
    interfaces: InterfaceTable,
}

impl Registry {
    /// A registry without components.
    pub fn new() -> Self {
        Self::default()
    }

    /// The plain components.
    pub fn components(&self) -> &Components {
        &self.components
    }

    /// The plain components, to register more.
    pub fn components_mut(&mut self) -> &mut Components {
        &mut self.components
    }

    /// With a decoder, converter or other transform.
    #[must_use]
    pub fn with_transform<C: Component + TransformComponent>(mut self) -> Self {
        self.components.transform::<C>();
        self
    }

    /// With a source.
    #[must_use]
    pub fn with_source<C: Component + SourceComponent>(mut self) -> Self {
        self.components.source::<C>();
        self
    }

    /// With a sink.
    #[must_use]
    pub fn with_sink<C: Component + SinkComponent>(mut self) -> Self {
        self.components.sink::<C>();
        self
    }

    /// With a container.
    #[must_use]
    pub fn with_byte_stream_handler<C: Component + ByteStreamHandler>(mut self) -> Self {
        self.components.byte_stream_handler::<C>();
        self
    }

    /// With a transform that has messages of its own.
    #[must_use]
    pub fn with_interactive<C: Interactive + TransformComponent + Unpin>(mut self) -> Self {
        self.components.transform::<C>();
        self.interfaces.add::<C::Interface>();
        let create: CreateInteractive = Arc::new(|settings, environment| {
            let settings = settings.clone();
            async move {
                let build = move || C::new(settings.parse(C::INFO.class)?);
                let worker = if C::INFO.inline {
                    Worker::inline(build)?
                } else {
                    Worker::spawn(C::INFO.class, build).await?
                };
                let control: Handle<C::Interface> = ControlActor::create(worker.clone());
                let usage = environment.usage.of(C::INFO.role);
                let object = TransformActor::create(
                    worker,
                    environment.allocator,
                    environment.limits,
                    usage,
                );
                Ok((object, control.into_any()))
            }
            .boxed_local()
        });
        if let Some(entry) = self.components.get(C::INFO.class) {
            let registration = entry.registration();
            self.interactive
                .insert(C::INFO.class, (registration, create));
        }
        self
    }

    /// With an interface of the program's own, which both sides of the wall must know alike. Those of interactive components
    /// are known by themselves.
    #[must_use]
    pub fn with_interface<I: Interface>(mut self) -> Self {
        self.interfaces.add::<I>();
        self
    }

    /// The interfaces beside the built-in ones.
    pub(crate) fn interfaces(&self) -> &InterfaceTable {
        &self.interfaces
    }

    /// What of this a signed manifest lists in the same version. It knows why each of the others is refused.
    pub(crate) fn permitted(&self, listed: &[ClassVersion]) -> Self {
        let mut permitted = self.clone();
        for found in self.components.class_versions() {
            if let Err(error) = found.check_listed(listed) {
                permitted.components.remove(&found.class);
                permitted.interactive.remove(found.class.as_str());
                permitted.refused.insert(found.class, error);
            }
        }
        permitted
    }

    /// Why the manifest refuses this class, if it does.
    pub(crate) fn refusal(&self, class: &str) -> Option<&TrustError> {
        self.refused.get(class)
    }

    /// The classes that the manifest refuses.
    pub(crate) fn refused(&self) -> impl Iterator<Item = &TrustError> {
        self.refused.values()
    }

    /// Creates a transform's actor on this arbiter, with its own messages if it has some.
    pub(crate) async fn create_transform(
        self: &Arc<Self>,
        class: &str,
        settings: &Settings,
        environment: Environment,
    ) -> Result<(TransformObject, Option<AnyHandle>)> {
        let entry = self.components.get(class);
        let registration = entry.map(|entry| entry.registration());
        if let Some((belongs, create)) = self.interactive.get(class)
            && registration == Some(*belongs)
        {
            let (object, control) = create(settings, environment).await?;
            return Ok((object, Some(control)));
        }
        let info = self.components.get(class).map(|entry| entry.info());
        let inline = info.is_some_and(|info| info.inline);
        let usage = environment
            .usage
            .of(info.map_or(Role::Transform, |info| info.role));
        let (registry, name, settings) = (Arc::clone(self), class.to_owned(), settings.clone());
        let build = move || registry.components.create_transform(&name, &settings);
        let worker = if inline {
            Worker::inline(build)?
        } else {
            Worker::spawn(class, build).await?
        };
        Ok((
            TransformActor::create(worker, environment.allocator, environment.limits, usage),
            None,
        ))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.components.iter()).finish()
    }
}
