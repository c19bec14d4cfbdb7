//! Which components there are, by class id. Registration is explicit: nothing runs before `main`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{
    ByteStreamHandler, Component, ComponentInfo, MediaSink, MediaSource, Settings, Transform,
};
use crate::error::{Error, ErrorKind, Result};
use crate::trust::ClassVersion;

type Create<T> = Arc<dyn Fn(&Settings) -> Result<Box<T>> + Send + Sync>;

#[derive(Clone)]
enum Factory {
    ByteStreamHandler(Create<dyn ByteStreamHandler>),
    Source(Create<dyn MediaSource>),
    Transform(Create<dyn Transform>),
    Sink(Create<dyn MediaSink>),
}

/// One registered class.
#[derive(Clone)]
pub struct Entry {
    info: ComponentInfo,
    factory: Factory,
    order: usize,
}

impl Entry {
    /// The class's description.
    pub fn info(&self) -> &ComponentInfo {
        &self.info
    }

    /// The number of its registration: a class that is registered again has another.
    pub fn registration(&self) -> usize {
        self.order
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Entry({} {})", self.info.role, self.info.class)
    }
}

/// The components that can be created here.
///
/// A class that is registered again replaces the one before; of several candidates for a role the one registered last is
/// tried first, so a user's decoder outranks a built-in one.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    entries: BTreeMap<&'static str, Entry>,
    registered: usize,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a container.
    pub fn byte_stream_handler<C: Component + ByteStreamHandler>(&mut self) -> &mut Self {
        let create = |settings: &Settings| {
            create::<C>(settings).map(|component| Box::new(component) as Box<dyn ByteStreamHandler>)
        };
        self.insert(C::INFO, Factory::ByteStreamHandler(Arc::new(create)))
    }

    /// Registers a source.
    pub fn source<C: Component + MediaSource>(&mut self) -> &mut Self {
        let create = |settings: &Settings| {
            create::<C>(settings).map(|component| Box::new(component) as Box<dyn MediaSource>)
        };
        self.insert(C::INFO, Factory::Source(Arc::new(create)))
    }

    /// Registers a decoder, converter or other transform.
    pub fn transform<C: Component + Transform>(&mut self) -> &mut Self {
        let create = |settings: &Settings| {
            create::<C>(settings).map(|component| Box::new(component) as Box<dyn Transform>)
        };
        self.insert(C::INFO, Factory::Transform(Arc::new(create)))
    }

    /// Registers a sink.
    pub fn sink<C: Component + MediaSink>(&mut self) -> &mut Self {
        let create = |settings: &Settings| {
            create::<C>(settings).map(|component| Box::new(component) as Box<dyn MediaSink>)
        };
        self.insert(C::INFO, Factory::Sink(Arc::new(create)))
    }

    /// The class with this id.
    pub fn get(&self, class: &str) -> Option<&Entry> {
        self.entries.get(class)
    }

    /// Takes a class out.
    pub fn remove(&mut self, class: &str) -> Option<Entry> {
        self.entries.remove(class)
    }

    /// All classes in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// All classes with their versions, in the order of their ids: what a manifest has to list.
    pub fn class_versions(&self) -> Vec<ClassVersion> {
        let infos = self.iter().map(Entry::info);
        infos
            .map(|info| ClassVersion {
                class: info.class.to_owned(),
                version: info.version,
            })
            .collect()
    }

    /// The classes that `wanted` accepts, the one registered last first.
    pub fn candidates(&self, wanted: impl Fn(&ComponentInfo) -> bool) -> Vec<&Entry> {
        let mut found: Vec<_> = self.iter().filter(|entry| wanted(&entry.info)).collect();
        found.sort_by_key(|entry| std::cmp::Reverse(entry.order));
        found
    }

    /// Creates a container handler.
    pub fn create_byte_stream_handler(
        &self,
        class: &str,
        settings: &Settings,
    ) -> Result<Box<dyn ByteStreamHandler>> {
        match &self.entry(class)?.factory {
            Factory::ByteStreamHandler(create) => create(settings),
            _ => Err(wrong_role(class, "byte stream handler")),
        }
    }

    /// Creates a source.
    pub fn create_source(&self, class: &str, settings: &Settings) -> Result<Box<dyn MediaSource>> {
        match &self.entry(class)?.factory {
            Factory::Source(create) => create(settings),
            _ => Err(wrong_role(class, "source")),
        }
    }

    /// Creates a transform.
    pub fn create_transform(&self, class: &str, settings: &Settings) -> Result<Box<dyn Transform>> {
        match &self.entry(class)?.factory {
            Factory::Transform(create) => create(settings),
            _ => Err(wrong_role(class, "transform")),
        }
    }

    /// Creates a sink.
    pub fn create_sink(&self, class: &str, settings: &Settings) -> Result<Box<dyn MediaSink>> {
        match &self.entry(class)?.factory {
            Factory::Sink(create) => create(settings),
            _ => Err(wrong_role(class, "sink")),
        }
    }

    fn entry(&self, class: &str) -> Result<&Entry> {
        self.get(class).ok_or_else(|| {
            Error::new(ErrorKind::ClassNotFound {
                class: class.to_owned().into(),
            })
        })
    }

    fn insert(&mut self, info: ComponentInfo, factory: Factory) -> &mut Self {
        self.registered += 1;
        let order = self.registered;
        self.entries.insert(
            info.class,
            Entry {
                info,
                factory,
                order,
            },
        );
        self
    }
}

fn create<C: Component>(settings: &Settings) -> Result<C> {
    C::new(settings.parse(C::INFO.class)?)
}

fn wrong_role(class: &str, role: &'static str) -> Error {
    Error::invalid_request(format!("class {class} is not a {role}"))
}
