//! A component's description and its settings as data.

use std::borrow::Cow;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::media::Subtype;

/// What a component does in a topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Role {
    /// Makes a source from a byte stream: a container.
    ByteStreamHandler,
    /// Produces samples by itself.
    Source,
    /// Turns compressed samples into raw ones; the loader inserts it.
    Decoder,
    /// Turns raw samples into raw samples of another format; the loader inserts it.
    Converter,
    /// Changes samples; only a topology puts it anywhere.
    Transform,
    /// Consumes samples.
    Sink,
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::ByteStreamHandler => "byte-stream-handler",
            Self::Source => "source",
            Self::Decoder => "decoder",
            Self::Converter => "converter",
            Self::Transform => "transform",
            Self::Sink => "sink",
        })
    }
}

/// What is known of a component without creating it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ComponentInfo {
    /// The class id: dotted lower-case words, unique in a registry.
    pub class: &'static str,
    /// The role.
    pub role: Role,
    /// The version of the class, which a manifest names beside it: raised with each change of what the class does.
    pub version: u32,
    /// One sentence.
    pub about: &'static str,
    /// Subtypes that are accepted; empty means any.
    pub accepts: &'static [Subtype],
    /// Subtypes that are produced; empty means what is accepted.
    pub produces: &'static [Subtype],
    /// File name extensions of a byte stream handler, without the dot.
    pub extensions: &'static [&'static str],
    /// MIME types of a byte stream handler.
    pub mime_types: &'static [&'static str],
    /// Cheap enough to run on the session's own thread: no decoding, no blocking.
    pub inline: bool,
}

impl ComponentInfo {
    /// A description without subtypes.
    pub const fn new(role: Role, class: &'static str, about: &'static str) -> Self {
        Self {
            class,
            role,
            version: 1,
            about,
            accepts: &[],
            produces: &[],
            extensions: &[],
            mime_types: &[],
            inline: false,
        }
    }

    /// A transform that only a topology puts anywhere.
    pub const fn transform(class: &'static str, about: &'static str) -> Self {
        Self::new(Role::Transform, class, about)
    }

    /// A decoder.
    pub const fn decoder(class: &'static str, about: &'static str) -> Self {
        Self::new(Role::Decoder, class, about)
    }

    /// A converter between raw formats.
    pub const fn converter(class: &'static str, about: &'static str) -> Self {
        Self::new(Role::Converter, class, about)
    }

    /// A source that needs no byte stream.
    pub const fn source(class: &'static str, about: &'static str) -> Self {
        Self::new(Role::Source, class, about)
    }

    /// A sink.
    pub const fn sink(class: &'static str, about: &'static str) -> Self {
        Self::new(Role::Sink, class, about)
    }

    /// A container.
    pub const fn byte_stream_handler(class: &'static str, about: &'static str) -> Self {
        Self::new(Role::ByteStreamHandler, class, about)
    }

    /// The version; 1 where it is not told.
    #[must_use]
    pub const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// The accepted subtypes.
    #[must_use]
    pub const fn accepts(mut self, subtypes: &'static [Subtype]) -> Self {
        self.accepts = subtypes;
        self
    }

    /// The produced subtypes.
    #[must_use]
    pub const fn produces(mut self, subtypes: &'static [Subtype]) -> Self {
        self.produces = subtypes;
        self
    }

    /// File name extensions of a container.
    #[must_use]
    pub const fn extensions(mut self, extensions: &'static [&'static str]) -> Self {
        self.extensions = extensions;
        self
    }

    /// MIME types of a container.
    #[must_use]
    pub const fn mime_types(mut self, mime_types: &'static [&'static str]) -> Self {
        self.mime_types = mime_types;
        self
    }

    /// Marks the component as cheap enough for the session's own thread.
    #[must_use]
    pub const fn inline(mut self) -> Self {
        self.inline = true;
        self
    }

    /// Whether the description names this subtype as accepted.
    pub fn takes(&self, subtype: Subtype) -> bool {
        self.accepts.is_empty() || self.accepts.contains(&subtype)
    }
}

/// Settings of a component as JSON text: what a topology, a command line and the process wall carry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(Cow<'static, str>);

impl Default for Settings {
    fn default() -> Self {
        Self(Cow::Borrowed("{}"))
    }
}

impl Settings {
    /// Settings from JSON text; the text is checked when a component is created from it.
    pub fn from_json(text: impl Into<Cow<'static, str>>) -> Self {
        Self(text.into())
    }

    /// Settings from a value of a component's settings type.
    pub fn of<T: Serialize>(value: &T) -> Result<Self> {
        serde_json::to_string(value)
            .map(|text| Self(text.into()))
            .map_err(|error| Error::invalid_argument(error.to_string()))
    }

    /// The settings of a component of `class`, or `InvalidSettings` that says which field is wrong.
    pub fn parse<T: DeserializeOwned>(&self, class: &'static str) -> Result<T> {
        serde_json::from_str(&self.0).map_err(|error| {
            Error::new(ErrorKind::InvalidSettings {
                class: class.into(),
                why: error.to_string().into(),
            })
        })
    }

    /// The JSON text.
    pub fn as_json(&self) -> &str {
        &self.0
    }
}
