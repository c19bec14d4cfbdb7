//! What a session may open.
//!
//! Whoever asks may be an attacker: names that were not granted are compared as text, and only a plain file name in a granted
//! directory is ever given to the system, relative to that directory as it was when it was granted and without following a
//! link. So neither the name nor what somebody puts into its place leads anywhere else, and an answer tells nothing of what
//! exists elsewhere.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use portcullis_engine::{Error, ErrorKind, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::super::byte_stream::{Input, OpenedStream};

/// Bytes of a URL that anybody may ask for.
const MAX_URL: usize = 8 << 10;

/// What a session may open.
///
/// Inputs are granted by the name under which the session asks for them. What a granted file refers to is granted when it
/// is a regular file in the same directory, and not otherwise. Outputs are granted one by one.
#[derive(Debug, Default)]
pub struct OpenPolicy {
    inputs: HashMap<String, Input>,
    directories: Vec<Directory>,
    /// Which files inputs were when they were granted.
    files: Vec<FileIdentity>,
    outputs: Vec<String>,
}

/// Device and inode.
pub(super) type FileIdentity = (u64, u64);

/// The files that inputs are: as they were granted, and by which paths they can be opened again.
#[derive(Debug)]
pub(super) struct InputFiles {
    files: Vec<FileIdentity>,
    paths: Vec<PathBuf>,
}

/// A directory whose files may be referred to.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    descriptor: Arc<OwnedFd>,
}

/// What the policy lets be opened.
#[derive(Debug)]
pub(super) enum Granted {
    /// An input that was granted itself.
    Input(Input),
    /// A file beside one.
    Beside(Arc<OwnedFd>, OsString),
}

impl OpenPolicy {
    /// Grants nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Grants one input and answers the URL by which the session asks for it. What cannot be read twice can be opened once.
    pub fn grant(&mut self, input: impl Into<Input>) -> String {
        let input = input.into();
        let url = match &input {
            Input::Path(path) => path.display().to_string(),
            Input::Url(url) => url.clone(),
            _ => format!("input:{}", self.inputs.len()),
        };
        if let Some(path) = input.local_path() {
            self.grant_directory(path.parent());
            let real = path.canonicalize().ok();
            self.grant_directory(real.as_deref().and_then(Path::parent));
        }
        let data = match &input {
            Input::File(file) => file.metadata().ok(),
            other => other.local_path().and_then(|path| fs::metadata(path).ok()),
        };
        self.files.extend(data.map(|data| (data.dev(), data.ino())));
        self.inputs.insert(url.clone(), input);
        url
    }

    /// Grants writing a file.
    pub fn grant_output(&mut self, path: impl Into<String>) -> &mut Self {
        self.outputs.push(path.into());
        self
    }

    fn grant_directory(&mut self, path: Option<&Path>) {
        let Some(path) = path else {
            return;
        };
        if self.directories.iter().any(|known| known.path == path) {
            return;
        }
        let here = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // One that cannot be opened grants nothing.
        if let Ok(descriptor) = openat(CWD, here, flags, Mode::empty()) {
            self.directories.push(Directory {
                path: path.to_owned(),
                descriptor: Arc::new(descriptor),
            });
        }
    }

    /// What must not be written.
    pub(super) fn input_files(&self) -> InputFiles {
        InputFiles {
            files: self.files.clone(),
            paths: self.inputs.values().filter_map(Input::local_path).collect(),
        }
    }

    pub(super) fn grants_output(&self, url: &str) -> Result<()> {
        match self.outputs.iter().any(|granted| granted == url) {
            true => Ok(()),
            false => Err(refused(url, "writing it was not granted")),
        }
    }

    pub(super) fn take(&mut self, url: &str) -> Result<Granted> {
        if url.len() > MAX_URL {
            return Err(Error::limit(
                "bytes of a URL",
                MAX_URL as u64,
                url.len() as u64,
            ));
        }
        let input = match self.inputs.get(url) {
            // What can be opened again is; what comes once is given away.
            Some(Input::Path(path)) => Input::Path(path.clone()),
            Some(Input::Url(url)) => Input::Url(url.clone()),
            Some(Input::Bytes(bytes)) => Input::Bytes(bytes.clone()),
            Some(_) => self
                .inputs
                .remove(url)
                .ok_or_else(|| refused(url, "it was opened before"))?,
            None => return self.beside(url),
        };
        Ok(Granted::Input(input))
    }

    /// What a granted file refers to.
    fn beside(&self, url: &str) -> Result<Granted> {
        let Some(path) = Input::from(url).local_path() else {
            return Err(refused(url, "it was not granted"));
        };
        let is_plain = path
            .components()
            .all(|part| !matches!(part, Component::ParentDir | Component::Prefix(_)));
        let name = path.file_name().map(OsStr::to_owned);
        let (true, Some(directory), Some(name)) = (is_plain, path.parent(), name) else {
            return Err(refused(url, "it is not the plain name of a file"));
        };
        let mut granted = self.directories.iter();
        match granted.find(|granted| granted.path == directory) {
            Some(granted) => Ok(Granted::Beside(Arc::clone(&granted.descriptor), name)),
            None => Err(refused(
                url,
                "it lies outside of the directory of what was granted",
            )),
        }
    }
}

impl Granted {
    /// Opens it, on an arbiter.
    pub(super) async fn open(self, url: String) -> Result<OpenedStream> {
        let opened = match self {
            Self::Input(input) => input.open().await,
            Self::Beside(directory, name) => {
                let extension = Path::new(&name).extension().map(OsStr::to_owned);
                let what = url.clone();
                let file = tokio::task::spawn_blocking(move || open_beside(&directory, &name))
                    .await
                    .map_err(|_| Error::cancelled())?;
                let file = file.map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidInput => refused(&what, "it is not a regular file"),
                    _ => Error::io(what, &error),
                })?;
                let opened = Input::File(file).open().await;
                opened.map(|stream| OpenedStream {
                    extension: extension.map(|text| text.to_string_lossy().to_lowercase()),
                    name: url.clone(),
                    ..stream
                })
            }
        };
        opened.map_err(|error| error.of_input(url))
    }
}

/// Opens a regular file in a directory; nothing else, however it is named, and without waiting.
fn open_beside(directory: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // A link.
        Err(rustix::io::Errno::LOOP) => return Err(io::ErrorKind::InvalidInput.into()),
        Err(error) => return Err(error.into()),
    };
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Opens a file for writing, as it is, unless it is an input: then it is `InvalidInput`. Whoever writes it first empties it.
pub(super) fn create(path: &Path, inputs: &InputFiles) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let data = file.metadata()?;
    if data.is_file() {
        let own = (data.dev(), data.ino());
        let now = inputs
            .paths
            .iter()
            .filter_map(|path| fs::metadata(path).ok());
        let mut now = now.map(|data| (data.dev(), data.ino()));
        if inputs.files.contains(&own) || now.any(|input| input == own) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
    }
    Ok(file)
}

pub(super) fn refused(url: &str, why: &'static str) -> Error {
    Error::new(ErrorKind::OpenRefused {
        url: url.to_owned().into(),
        why: why.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory of its own, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("portcullis-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("inside")).expect("can write");
            Self(path)
        }
        fn file(&self, name: &str) -> String {
            let path = self.0.join(name);
            std::fs::write(&path, name).expect("can write");
            path.display().to_string()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    async fn open(policy: &mut OpenPolicy, url: &str) -> Result<OpenedStream> {
        policy.take(url)?.open(url.to_owned()).await
    }

    #[test]
    fn only_regular_files_beside_what_was_granted_are_opened() {
        actix_rt::System::new().block_on(async {
            let scratch = Scratch::new("policy");
            let secret = scratch.file("secret");
            let list = scratch.file("inside/list.m3u8");
            scratch.file("inside/part.TS");
            let inside = scratch.0.join("inside");
            symlink(&secret, inside.join("link")).expect("can link");
            symlink("/", inside.join("root")).expect("can link");
            rustix::fs::mknodat(
                CWD,
                inside.join("fifo"),
                rustix::fs::FileType::Fifo,
                Mode::RWXU,
                0,
            )
            .expect("can make one");
            let mut policy = OpenPolicy::new();
            let url = policy.grant(list.as_str());
            open(&mut policy, &url).await.expect("is granted");
            open(&mut policy, &url).await.expect("again");
            let beside = |name: &str| inside.join(name).display().to_string();
            let part = open(&mut policy, &beside("part.TS")).await.expect("beside");
            assert_eq!(part.extension.as_deref(), Some("ts"));
            assert_eq!(part.name, beside("part.TS"));
            open(&mut policy, &format!("file://{}", beside("part.TS")))
                .await
                .expect("as a URL");

            let missing = open(&mut policy, &beside("none"))
                .await
                .expect_err("is not there");
            assert!(matches!(missing.kind(), ErrorKind::NotFound { .. }));
            for name in [
                &secret,
                "/etc/passwd",
                "/no/such/file",
                "part.TS",
                "",
                "/",
                "http://example.org/a",
                &beside("../secret"),
                &beside("../inside/part.TS"),
                &beside("root/etc/passwd"),
                &beside("link"),
                &beside("fifo"),
                &beside(".."),
                &format!("file://{}", beside("%2e%2e/secret")),
            ] {
                let error = open(&mut policy, name).await.expect_err(name);
                assert!(
                    matches!(error.kind(), ErrorKind::OpenRefused { .. }),
                    "{name}: {error}"
                );
            }
            assert!(open(&mut policy, &"x".repeat(10_000)).await.is_err());
            assert!(policy.grants_output(&beside("part.TS")).is_err());
        });
    }

    #[test]
    fn an_input_is_never_written_whatever_it_is_called() {
        let scratch = Scratch::new("overwrite");
        let input = scratch.file("in.wav");
        let other = scratch.file("other.wav");
        let link = scratch.0.join("link.wav");
        symlink(&input, &link).expect("can link");
        let hard = scratch.0.join("hard.wav");
        fs::hard_link(&input, &hard).expect("can link");
        for by_descriptor in [false, true] {
            let mut policy = OpenPolicy::new();
            match by_descriptor {
                true => policy.grant(File::open(&input).expect("is there")),
                false => policy.grant(input.as_str()),
            };
            let inputs = policy.input_files();
            for path in [Path::new(&input), &link, &hard] {
                let error = create(path, &inputs).expect_err("is the input");
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            }
            assert_eq!(fs::read(&input).expect("is there"), b"in.wav");
            create(Path::new(&other), &inputs).expect("is another");
            // Its content goes with the first write, not before.
            assert_eq!(fs::read(&other).expect("is there"), b"other.wav");
        }
    }

    #[test]
    fn what_comes_once_is_opened_once() {
        actix_rt::System::new().block_on(async {
            let mut policy = OpenPolicy::new();
            let body = Input::stream(futures::stream::empty());
            let url = policy.grant(body);
            open(&mut policy, &url).await.expect("the first time");
            assert!(open(&mut policy, &url).await.is_err());
        });
    }
}
