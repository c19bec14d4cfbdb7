//! A session that is created while its source is resolved, only if the content needs one (reference P14).

use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use portcullis_engine::topology::Placement;
use portcullis_engine::{ContentLimits, Error, ErrorKind, Result};

use super::session::MediaSession;
use crate::pipeline::byte_stream::Input;
use crate::pipeline::opener::{OpenPolicy, OpenUrl};
use crate::pipeline::resolver;
use crate::pipeline::source::{SetPmpHost, SourceObject};
use crate::registry::Registry;
use crate::runtime;

type CreateSession = Box<dyn FnOnce() -> BoxFuture<'static, Result<MediaSession>> + Send>;

/// Resolves an input in the application, before there is a session.
pub struct Resolution {
    registry: Arc<Registry>,
    input: Input,
    limits: ContentLimits,
    create: Option<CreateSession>,
}

impl Resolution {
    /// Of this input, by the components of `registry`.
    pub fn new(registry: Arc<Registry>, input: impl Into<Input>) -> Self {
        Self {
            registry,
            input: input.into(),
            limits: ContentLimits::default(),
            create: None,
        }
    }

    /// What the content may ask for.
    #[must_use]
    pub fn limits(mut self, limits: ContentLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Makes the session if the content is protected: then the source is given its host before anything else.
    #[must_use]
    pub fn create_session<F, W>(mut self, create: F) -> Self
    where
        F: FnOnce() -> W + Send + 'static,
        W: Future<Output = Result<MediaSession>> + Send + 'static,
    {
        self.create = Some(Box::new(move || create().boxed()));
        self
    }

    /// Resolves; the session is there if one was needed. Dropping the future gives up, and ends a session that was made.
    ///
    /// # Errors
    /// What opening and resolving find, naming the input; `NoPmpHost` if the content is protected and
    /// [`create_session`](Self::create_session) was not called; `InvalidRequest` if the session made is in no protected host; what
    /// making it finds.
    pub async fn resolve(self) -> Result<(SourceObject, Option<MediaSession>)> {
        let Self {
            registry,
            input,
            limits,
            create,
        } = self;
        let name = input.name();
        let mut policy = OpenPolicy::new();
        let url = policy.grant(input);
        let resolved = runtime::run(move || async move {
            let stream = policy.start().send(OpenUrl { url }).await?;
            resolver::resolve(registry, stream, limits).await
        });
        let source = resolved
            .await
            .map_err(|error| error.of_input(name.clone()))?;
        if !source.presentation.requires_protected_host() {
            return Ok((source, None));
        }
        let create =
            create.ok_or_else(|| Error::new(ErrorKind::NoPmpHost).of_input(name.clone()))?;
        let session = create().await?;
        if session.host().placement() != Placement::Protected {
            return Err(Error::invalid_request(
                "the content is protected, and the session made for it is in no protected host",
            )
            .of_input(name));
        }
        let host = session.pmp_host().clone();
        source.control.send(SetPmpHost { host }).await?;
        Ok((source, Some(session)))
    }
}

impl fmt::Debug for Resolution {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Resolution({:?})", self.input)
    }
}
