//! Portcullis: a media pipeline engine whose pipeline can live on the other side of a process wall.
//!
//! ```no_run
//! use futures::TryStreamExt;
//! use portcullis::StreamSelector;
//!
//! # async fn example() -> portcullis::Result<()> {
//! portcullis::host::init(portcullis::builtin()); // first line of `main`: this program is its own host
//! let reader = portcullis::open("clip.mp4").open().await?;
//! let mut frames = reader.samples(StreamSelector::FIRST_VIDEO).await?;
//! while let Some(frame) = frames.try_next().await? {
//!     println!("{} {} bytes", frame.time, frame.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A decoder that crashes is an `Err` here: the process that decodes is another one. Where a pipeline runs is a value
//! ([`Placement`]), not code.
#![forbid(unsafe_code)]

// What the derive macros write names the facade.
extern crate self as portcullis;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

use std::sync::{Arc, OnceLock};

pub use portcullis_actors::bridge::{self, AnyHandle, Handle, Interface, Remote};
pub use portcullis_actors::client::{
    EventStream, GrabbedSamples, MediaSession, MediaSessionBuilder, Output as StreamOutput,
    OutputFormat, PictureFormat, Placement, PmpFlags, Resolution, SampleStream, SoundFormat,
    SourceReader, SourceReaderBuilder, SourceSide, StreamSelector,
};
pub use portcullis_actors::interactive::{Interactive, Receive};
pub use portcullis_actors::pipeline;
pub use portcullis_actors::pipeline::byte_stream::Input;
pub use portcullis_actors::pipeline::opener::OpenPolicy;
pub use portcullis_actors::pipeline::session::{NodeObject, Pacing};
pub use portcullis_actors::registry::Registry;
pub use portcullis_actors::{__derive, Component, Remote, interface, runtime, system_time};
pub use portcullis_codecs as codecs;
pub use portcullis_engine::{self as engine, *};

/// Hosts: this program's own, and connections to others.
pub mod host {
    pub use portcullis_actors::host::{
        ActorHost, AwaitHostUnlocked, Carrier, CountHostLocks, CreateObject, CreatedObject,
        DescribeHost, Host, HostConnection, HostFacts, HostLock, HostPool, LinkConfig, LinkLimits,
        LockHost, PmpHost, ProgramFacts, ProtectedHost, SOURCE_RESOLVER, SampleMemory, Spin, Trust,
        TrustedPeer, UnlockHost, Vouched, check, init_actor, init_actor_with, inspect,
    };
    pub use portcullis_actors::host::{
        HostQuotas, Isolation, Layer, LayerReport, LayerSet, LayerState, SandboxPolicy,
        SandboxProfile,
    };

    /// Makes this program able to be its own host, with these components. Call it first thing in `main`, before any thread.
    ///
    /// In an ordinary process it returns at once. In a process that was started as a host it serves the application that
    /// started it and never returns.
    pub fn init(registry: crate::Registry) {
        // Also what the application's own process can create; a second call changes nothing.
        let _ = super::REGISTRY.set(std::sync::Arc::new(registry.clone()));
        portcullis_actors::host::init(registry);
    }
}

static REGISTRY: OnceLock<Arc<Registry>> = OnceLock::new();

/// A registry with every component of this project.
pub fn builtin() -> Registry {
    let mut registry = Registry::new();
    portcullis_codecs::register(registry.components_mut());
    registry
}

/// The components of this process: what [`host::init`] was given, or [`builtin`].
pub fn registry() -> Arc<Registry> {
    Arc::clone(REGISTRY.get_or_init(|| Arc::new(builtin())))
}

/// Opens an input for reading, in an isolated host unless told otherwise.
pub fn open(input: impl Into<Input>) -> SourceReaderBuilder {
    SourceReaderBuilder::new(registry(), Placement::isolated(), input)
}

/// Makes a media session.
pub fn session(placement: Placement) -> MediaSessionBuilder {
    MediaSessionBuilder::new(registry(), placement)
}

/// Makes a PMP session as in the original: in a protected host, unless the flag for an unprotected process is set.
pub fn pmp_session(host: host::Host, flags: PmpFlags) -> MediaSessionBuilder {
    MediaSessionBuilder::pmp(registry(), host, flags)
}

/// Resolves an input here, before there is a session, which is made only if the content needs a protected host.
pub fn resolve(input: impl Into<Input>) -> Resolution {
    Resolution::new(registry(), input)
}
