//! Files of keys and manifests.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use portcullis_engine::Error;
use portcullis_engine::trust::{
    MAX_ENVELOPE, MAX_KEY_FILE, PrivateKey, PublicKey, TrustError, TrustRoots,
};

use crate::cli::failure::Failure;

/// A file of at most so many bytes; of a longer one, one byte more than that.
pub(super) fn read(path: &Path, most: usize) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| Failure::from(Error::io(path.display().to_string(), &error));
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    Ok(bytes)
}

/// A signed manifest, not looked at yet.
pub(super) fn envelope(path: &Path) -> Result<Vec<u8>, Failure> {
    read(path, MAX_ENVELOPE)
}

/// A refusal of what is in this file.
pub(super) fn refused(path: &Path, error: TrustError) -> Failure {
    Failure::from(Error::from(error)).of_input(&path.display().to_string())
}

/// The key to sign with.
pub(super) fn private_key(path: &Path) -> Result<PrivateKey, Failure> {
    PrivateKey::parse(&read(path, MAX_KEY_FILE)?).map_err(|error| refused(path, error))
}

/// The keys that are believed.
pub(super) fn roots(paths: &[PathBuf], development: bool) -> Result<TrustRoots, Failure> {
    let mut keys = Vec::new();
    for path in paths {
        let key = PublicKey::parse(&read(path, MAX_KEY_FILE)?);
        keys.push(key.map_err(|error| refused(path, error))?);
    }
    if development {
        keys.push(PublicKey::development());
    }
    TrustRoots::new(keys).map_err(|error| Failure::from(Error::from(error)))
}

/// Writes a new file with these permissions, or, if told so, in place of the one that is there.
pub(super) fn write_new(path: &Path, bytes: &[u8], mode: u32, force: bool) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::output(path.display().to_string(), error);
    if force {
        // Not written over: the old one may have other permissions, or be a link.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .map_err(failed)
}
