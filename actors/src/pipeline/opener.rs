//! The opener: the one place that opens anything. It lives in the application; a host opens nothing by itself.

mod policy;

use std::sync::Arc;

use actix::{Actor, Handler};
use portcullis_derive::Remote;
use portcullis_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

pub use policy::OpenPolicy;

use super::byte_stream::{Input, OpenedStream};
use crate::bridge::{Context, FileDescriptor, Handle, ReplyFuture};

crate::interface! {
    /// Opens what its policy grants.
    pub Opener = "portcullis.Opener" { OpenUrl, CreateUrl }
}

/// Opens an input for reading.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = OpenedStream, deadline_ms = 30000)]
pub struct OpenUrl {
    /// What to open: what the application granted, or what that refers to.
    pub url: String,
}

/// Opens a file for writing. Its old content goes with the first write.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = FileDescriptor, deadline_ms = 30000)]
pub struct CreateUrl {
    /// What to write: only what the application granted.
    pub url: String,
}

/// Files that are being opened at a time: each costs a thread and a descriptor.
const OPENING: usize = 8;

impl OpenPolicy {
    /// Starts the opener of a session on this arbiter.
    pub(crate) fn start(self) -> Handle<Opener> {
        let opener = OpenerActor {
            policy: self,
            opening: Arc::new(Semaphore::new(OPENING)),
        };
        Handle::start(opener)
    }
}

#[derive(Debug)]
struct OpenerActor {
    policy: OpenPolicy,
    opening: Arc<Semaphore>,
}

/// Runs `work` when there is room for it.
async fn in_turn<T>(opening: Arc<Semaphore>, work: impl Future<Output = Result<T>>) -> Result<T> {
    let _turn = opening.acquire().await.map_err(|_| Error::cancelled())?;
    work.await
}

impl Actor for OpenerActor {
    type Context = Context<Self>;
}

impl Handler<OpenUrl> for OpenerActor {
    type Result = ReplyFuture<OpenedStream>;

    fn handle(&mut self, message: OpenUrl, _: &mut Self::Context) -> Self::Result {
        let OpenUrl { url } = message;
        let opening = Arc::clone(&self.opening);
        match self.policy.take(&url) {
            Ok(granted) => ReplyFuture::new(in_turn(opening, granted.open(url))),
            Err(error) => ReplyFuture::ready(Err(error)),
        }
    }
}

impl Handler<CreateUrl> for OpenerActor {
    type Result = ReplyFuture<FileDescriptor>;

    fn handle(&mut self, message: CreateUrl, _: &mut Self::Context) -> Self::Result {
        let url = message.url;
        if let Err(error) = self.policy.grants_output(&url) {
            return ReplyFuture::ready(Err(error));
        }
        let Some(path) = Input::from(url.as_str()).local_path() else {
            return ReplyFuture::ready(Err(Error::invalid_argument(format!(
                "{url}: only files can be written"
            ))));
        };
        let inputs = self.policy.input_files();
        let create = async move {
            let what = url.clone();
            tokio::task::spawn_blocking(move || policy::create(&path, &inputs))
                .await
                .map_err(|_| Error::cancelled())?
                .map(|file| FileDescriptor::new(file.into()))
                .map_err(|error| match error.kind() {
                    std::io::ErrorKind::InvalidInput => policy::refused(&what, "it is an input"),
                    _ => Error::io(what, &error),
                })
        };
        ReplyFuture::new(in_turn(Arc::clone(&self.opening), create))
    }
}
