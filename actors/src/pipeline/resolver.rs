//! The source resolver: from a URL or byte stream to a source. Where it runs is where the source will be.

use std::sync::Arc;

use actix::{Actor, Handler};
use portcullis_derive::Remote;
use portcullis_engine::component::{Hints, OpenContext};
use portcullis_engine::{ContentLimits, Error, ErrorKind, Result, resolve};
use serde::{Deserialize, Serialize};

use super::byte_stream::{CancelGuard, OpenedStream};
use super::memory::NodeMemory;
use super::opener::{OpenUrl, Opener};
use super::source::{SourceActor, SourceObject};
use crate::bridge::{Context, Handle, ReplyFuture};
use crate::registry::Registry;

crate::interface! {
    /// Makes sources.
    pub SourceResolver = "portcullis.SourceResolver" { ResolveUrl, ResolveByteStream }
}

/// Opens a URL through the session's opener and makes a source of it. Dropping the request gives up the opening.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = SourceObject, no_deadline)]
pub struct ResolveUrl {
    /// What to open.
    pub url: String,
    /// Who opens it.
    pub opener: Handle<Opener>,
    /// What the content may ask for.
    pub limits: ContentLimits,
}

/// Makes a source of an opened input. Dropping the request gives up the opening.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = SourceObject, no_deadline)]
pub struct ResolveByteStream {
    /// The input.
    pub stream: OpenedStream,
    /// What the content may ask for.
    pub limits: ContentLimits,
}

/// Makes sources with the components of a registry.
#[derive(Debug)]
pub(crate) struct SourceResolverActor {
    registry: Arc<Registry>,
}

impl SourceResolverActor {
    /// Starts a resolver on this arbiter.
    pub(crate) fn create(registry: Arc<Registry>) -> Handle<SourceResolver> {
        Handle::start(Self { registry })
    }
}

/// Makes a source of an opened input, on a thread of its own.
pub(crate) async fn resolve(
    registry: Arc<Registry>,
    stream: OpenedStream,
    limits: ContentLimits,
) -> Result<SourceObject> {
    let (guard, cancel) = CancelGuard::new();
    let name = stream.name.clone();
    let context = OpenContext {
        limits,
        hints: Hints {
            extension: stream.extension.clone(),
            mime_type: stream.mime_type.clone(),
        },
    };
    let reader = stream.into_source(cancel)?;
    let object = SourceActor::create(
        false,
        limits,
        NodeMemory::default(),
        Some(guard),
        move || {
            resolve::open_source(registry.components(), reader, &context).map_err(|error| {
                match error.kind() {
                    // One of those that the manifest refuses might have recognised it.
                    ErrorKind::UnsupportedByteStream { .. } => registry
                        .refused()
                        .fold(error, |error, why| error.because(why.to_string())),
                    _ => error,
                }
            })
        },
    )
    .await;
    object.map_err(|error| error.of_input(name))
}

impl Handle<SourceResolver> {
    /// The synchronous twin of [`ResolveUrl`], for resolvers of this process.
    ///
    /// # Errors
    /// `NotRemotable`, at once and with nothing started, when the resolver lives in another process: a thread that blocks on
    /// another process could be waited for by it (reference 2.12).
    pub fn resolve_url_blocking(&self, request: ResolveUrl) -> Result<SourceObject> {
        if self.is_remote() {
            return Err(Error::new(ErrorKind::NotRemotable {
                what: "the blocking form of ResolveUrl".into(),
            }));
        }
        if actix_rt::System::try_current().is_some() {
            return Err(Error::invalid_request(
                "a blocking call on an arbiter would never end",
            ));
        }
        futures::executor::block_on(self.send(request))
    }
}

impl Actor for SourceResolverActor {
    type Context = Context<Self>;
}

impl Handler<ResolveUrl> for SourceResolverActor {
    type Result = ReplyFuture<SourceObject>;

    fn handle(&mut self, message: ResolveUrl, _: &mut Self::Context) -> Self::Result {
        let registry = Arc::clone(&self.registry);
        ReplyFuture::new(async move {
            let ResolveUrl {
                url,
                opener,
                limits,
            } = message;
            let stream = opener.send(OpenUrl { url }).await?;
            resolve(registry, stream, limits).await
        })
    }
}

impl Handler<ResolveByteStream> for SourceResolverActor {
    type Result = ReplyFuture<SourceObject>;

    fn handle(&mut self, message: ResolveByteStream, _: &mut Self::Context) -> Self::Result {
        ReplyFuture::new(resolve(
            Arc::clone(&self.registry),
            message.stream,
            message.limits,
        ))
    }
}
