//! The opener: the one place that opens anything. It lives in the application; a host opens nothing by itself.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use actix::{Actor, Context, Handler};
use portcullis_derive::Remote;
use portcullis_engine::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::byte_stream::{Input, OpenedStream};
use crate::bridge::{FileDescriptor, Handle, ReplyFuture};

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

/// Opens a file for writing, empty.
#[derive(Clone, Debug, Serialize, Deserialize, Remote)]
#[remote(reply = FileDescriptor, deadline_ms = 30000)]
pub struct CreateUrl {
    /// What to write: only what the application granted.
    pub url: String,
}

/// What a session may open.
///
/// Inputs are granted by the name under which the session asks for them. What a granted file refers to is granted when it
/// lies in the same directory, and not otherwise. Outputs are granted one by one.
#[derive(Debug, Default)]
pub struct OpenPolicy {
    inputs: HashMap<String, Input>,
    directories: Vec<PathBuf>,
    outputs: Vec<String>,
}

impl OpenPolicy {
    /// Grants nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Grants one input and answers the URL by which the session asks for it. It can be opened once.
    pub fn grant(&mut self, input: impl Into<Input>) -> String {
        let input = input.into();
        let url = match &input {
            Input::Path(path) => path.display().to_string(),
            Input::Url(url) => url.clone(),
            _ => format!("input:{}", self.inputs.len()),
        };
        if let Some(directory) = input.local_path().as_deref().and_then(directory) {
            self.directories.push(directory);
        }
        self.inputs.insert(url.clone(), input);
        url
    }

    /// Grants writing a file.
    pub fn grant_output(&mut self, path: impl Into<String>) -> &mut Self {
        self.outputs.push(path.into());
        self
    }

    fn take(&mut self, url: &str) -> Result<Input> {
        match self.inputs.get(url) {
            // What can be opened again is; what comes once is given away.
            Some(Input::Path(path)) => Ok(Input::Path(path.clone())),
            Some(Input::Url(url)) => Ok(Input::Url(url.clone())),
            Some(Input::Bytes(bytes)) => Ok(Input::Bytes(bytes.clone())),
            Some(_) => self
                .inputs
                .remove(url)
                .ok_or_else(|| refused(url, "it was opened before")),
            None => self.referred(url),
        }
    }

    fn referred(&self, url: &str) -> Result<Input> {
        let input = Input::from(url);
        let Some(path) = input.local_path() else {
            return Err(refused(url, "it was not granted"));
        };
        let real = path
            .canonicalize()
            .map_err(|error| Error::io(url.to_owned(), &error))?;
        let inside = real
            .parent()
            .is_some_and(|parent| self.directories.iter().any(|granted| granted == parent));
        if !inside {
            return Err(refused(
                url,
                "it lies outside of the directory of what was granted",
            ));
        }
        Ok(Input::Path(real))
    }

    /// Starts the opener of a session on this arbiter.
    pub(crate) fn start(self) -> Handle<Opener> {
        Handle::new(&OpenerActor { policy: self }.start())
    }
}

fn directory(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()?.parent().map(Path::to_owned)
}

fn refused(url: &str, why: &'static str) -> Error {
    Error::new(ErrorKind::OpenRefused {
        url: url.to_owned().into(),
        why: why.into(),
    })
}

#[derive(Debug)]
struct OpenerActor {
    policy: OpenPolicy,
}

impl Actor for OpenerActor {
    type Context = Context<Self>;
}

impl Handler<OpenUrl> for OpenerActor {
    type Result = ReplyFuture<OpenedStream>;

    fn handle(&mut self, message: OpenUrl, _: &mut Self::Context) -> Self::Result {
        let name = message.url.clone();
        match self.policy.take(&message.url) {
            Ok(input) => {
                ReplyFuture::new(
                    async move { input.open().await.map_err(|error| error.of_input(name)) },
                )
            }
            Err(error) => ReplyFuture::ready(Err(error)),
        }
    }
}

impl Handler<CreateUrl> for OpenerActor {
    type Result = ReplyFuture<FileDescriptor>;

    fn handle(&mut self, message: CreateUrl, _: &mut Self::Context) -> Self::Result {
        let url = message.url;
        if !self.policy.outputs.contains(&url) {
            return ReplyFuture::ready(Err(refused(&url, "writing it was not granted")));
        }
        let Some(path) = Input::from(url.as_str()).local_path() else {
            return ReplyFuture::ready(Err(Error::invalid_argument(format!(
                "{url}: only files can be written"
            ))));
        };
        ReplyFuture::new(async move {
            tokio::task::spawn_blocking(move || std::fs::File::create(path))
                .await
                .map_err(|_| Error::cancelled())?
                .map(|file| FileDescriptor::new(file.into()))
                .map_err(|error| Error::io(url, &error))
        })
    }
}
