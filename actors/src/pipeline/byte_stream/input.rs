//! What an application can give as input, and the task that reads it.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use portcullis_engine::{Error, ErrorKind, Result};
use rustix::fs::{OFlags, fcntl_getfl};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeek, AsyncSeekExt};

use super::readable::Readable;
use super::{Access, ByteStreamActor, OpenedStream};
use crate::bridge::FileDescriptor;

/// What an application can give as input.
///
/// A path, a `file:` URL and an opened file cross a process wall as one read-only descriptor; everything else stays in the
/// application and is read through an actor.
pub enum Input {
    /// A file by its path.
    Path(PathBuf),
    /// A URL; `file:` is supported.
    Url(String),
    /// Bytes in memory.
    Bytes(Bytes),
    /// An opened file.
    File(File),
    /// Anything that reads and seeks.
    Seekable(Box<dyn AsyncReadSeek>),
    /// A body that comes once, from its beginning to its end: an upload.
    Stream(BoxStream<'static, io::Result<Bytes>>),
}

/// Something that reads and seeks without blocking.
pub trait AsyncReadSeek: AsyncRead + AsyncSeek + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncSeek + Send + Unpin + 'static> AsyncReadSeek for T {}

impl Input {
    /// An input that reads and seeks.
    pub fn seekable(input: impl AsyncRead + AsyncSeek + Send + Unpin + 'static) -> Self {
        Self::Seekable(Box::new(input))
    }

    /// An input that comes once, such as the body of an upload.
    pub fn stream(body: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self::Stream(body.boxed())
    }

    /// The path of a path or `file:` URL.
    fn path(&self) -> Result<Option<PathBuf>> {
        match self {
            Self::Path(path) => Ok(Some(path.clone())),
            Self::Url(url) => file_path(url).map(Some),
            _ => Ok(None),
        }
    }

    /// The path, if this is a file by its path or URL.
    pub fn local_path(&self) -> Option<PathBuf> {
        self.path().ok().flatten()
    }

    /// A name for messages: the path or URL, or what kind of input it is.
    pub fn name(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Url(url) => url.clone(),
            Self::Bytes(bytes) => format!("{} bytes in memory", bytes.len()),
            Self::File(_) => "opened file".into(),
            Self::Seekable(_) => "reader".into(),
            Self::Stream(_) => "stream".into(),
        }
    }

    /// Opens the input in this process, on an arbiter.
    pub(crate) async fn open(self) -> Result<OpenedStream> {
        let name = self.name();
        let path = self.path()?;
        let extension = path
            .as_deref()
            .and_then(Path::extension)
            .map(|extension| extension.to_string_lossy().to_lowercase());
        let stream = |access, len, seekable| OpenedStream {
            access,
            len,
            seekable,
            name: name.clone(),
            extension: extension.clone(),
            mime_type: None,
        };
        let file = match (self, path) {
            (Self::File(file), _) => read_only(file)?,
            (_, Some(path)) => {
                let what = path.display().to_string();
                tokio::task::spawn_blocking(move || File::open(path))
                    .await
                    .map_err(|_| Error::cancelled())?
                    .map_err(|error| Error::io(what, &error))?
            }
            (Self::Bytes(bytes), _) => {
                let len = bytes.len() as u64;
                if len <= 64 << 10 {
                    return Ok(stream(Access::Bytes(bytes), Some(len), true));
                }
                let actor = ByteStreamActor::create(Readable::Bytes(bytes));
                return Ok(stream(Access::Actor(actor), Some(len), true));
            }
            (Self::Seekable(mut input), _) => {
                let len = input
                    .seek(io::SeekFrom::End(0))
                    .await
                    .map_err(|error| Error::io(name.clone(), &error))?;
                let actor = ByteStreamActor::create(Readable::Seekable(input));
                return Ok(stream(Access::Actor(actor), Some(len), true));
            }
            (Self::Stream(body), _) => {
                let actor = ByteStreamActor::create(Readable::stream(body));
                return Ok(stream(Access::Actor(actor), None, false));
            }
            (Self::Path(_) | Self::Url(_), None) => {
                return Err(Error::invalid_argument("an input without a path"));
            }
        };
        let metadata = file
            .metadata()
            .map_err(|error| Error::io(name.clone(), &error))?;
        if metadata.is_dir() {
            return Err(Error::new(ErrorKind::Io {
                what: name.into(),
                os: "it is a directory".into(),
            }));
        }
        if metadata.is_file() {
            let descriptor = FileDescriptor::new(file.into());
            return Ok(stream(Access::File(descriptor), Some(metadata.len()), true));
        }
        // A pipe or device comes once, from its beginning to its end.
        let body = tokio_file_stream(file);
        let actor = ByteStreamActor::create(Readable::stream(body));
        Ok(stream(Access::Actor(actor), None, false))
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Input({})", self.name())
    }
}

impl From<PathBuf> for Input {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<&Path> for Input {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }
}

impl From<&str> for Input {
    /// A path, or a URL if it has a scheme of two letters or more.
    fn from(text: &str) -> Self {
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        match scheme {
            Some(s)
                if s.len() > 1
                    && s.chars()
                        .all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c)) =>
            {
                Self::Url(text.to_owned())
            }
            _ => Self::Path(text.into()),
        }
    }
}

impl From<String> for Input {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<Bytes> for Input {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Input {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<File> for Input {
    fn from(file: File) -> Self {
        Self::File(file)
    }
}

impl From<tokio::fs::File> for Input {
    fn from(file: tokio::fs::File) -> Self {
        match file.try_into_std() {
            Ok(file) => Self::File(file),
            // An operation is under way: it goes on as a reader.
            Err(file) => Self::seekable(file),
        }
    }
}

/// The path of a `file:` URL (RFC 8089): `file:/a`, `file:///a`, `file://localhost/a`, with percent escapes; `file:a` is relative.
fn file_path(url: &str) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;

    let (scheme, rest) = url.split_once(':').unwrap_or(("file", url));
    if !scheme.eq_ignore_ascii_case("file") {
        return Err(Error::new(ErrorKind::UnsupportedScheme {
            scheme: scheme.to_lowercase().into(),
        }));
    }
    let path = match rest.strip_prefix("//") {
        Some(authority) => {
            let slash = authority.find('/').unwrap_or(authority.len());
            let host = &authority[..slash];
            if !host.is_empty() && !host.eq_ignore_ascii_case("localhost") {
                return Err(Error::invalid_argument(format!(
                    "{url}: files of another machine"
                )));
            }
            &authority[slash..]
        }
        None => rest,
    };
    let mut bytes = Vec::with_capacity(path.len());
    let mut left = path.as_bytes();
    while let [first, tail @ ..] = left {
        let escape = (*first == b'%')
            .then(|| std::str::from_utf8(tail.get(..2)?).ok())
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escape {
            Some(byte) => {
                bytes.push(byte);
                left = &tail[2..];
            }
            None => {
                bytes.push(*first);
                left = tail;
            }
        }
    }
    if bytes.contains(&0) {
        return Err(Error::invalid_argument(format!(
            "{url}: a path with a zero byte"
        )));
    }
    Ok(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// A regular file that can also be written is opened again for reading only: what crosses a wall must not be writable.
fn read_only(file: File) -> Result<File> {
    let what = || "an opened file".to_owned();
    let flags = fcntl_getfl(&file).map_err(|error| Error::io(what(), &error.into()))?;
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if !is_file || flags & OFlags::ACCMODE == OFlags::RDONLY {
        return Ok(file);
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::open(path).map_err(|error| Error::io(what(), &error))
}

fn tokio_file_stream(file: File) -> BoxStream<'static, io::Result<Bytes>> {
    let file = tokio::fs::File::from_std(file);
    futures::stream::try_unfold(file, |mut file| async move {
        let mut chunk = BytesMut::with_capacity(64 << 10);
        let count = file.read_buf(&mut chunk).await?;
        Ok((count > 0).then(|| (chunk.freeze(), file)))
    })
    .boxed()
}
