//! Files that a command writes: never one that it reads, and none that a failed command has made for nothing.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::Input;

/// A file that is to be written. One that was made here is removed again, unless it is kept.
#[derive(Debug)]
pub(super) struct OutputFile {
    path: PathBuf,
    is_new: bool,
    is_kept: bool,
}

impl OutputFile {
    /// Makes the file where it is not there; what is in one that is there stays. An output that cannot be written is better
    /// known before anything else is done.
    pub(super) fn claim(path: &Path, input: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::output(path.display().to_string(), error);
        let is_new = match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(failed(error)),
        };
        let claimed = Self {
            path: path.to_owned(),
            is_new,
            is_kept: false,
        };
        // A pipe or a device is opened once, by whoever writes.
        let is_file = fs::metadata(path).map_or(true, |data| data.is_file());
        if is_file {
            let mut existing = OpenOptions::new();
            let existing = existing.write(true).create(true).truncate(false);
            let file = existing.open(path).map_err(failed)?;
            let own = file.metadata().map_err(failed)?;
            if identity(input) == Some((own.dev(), own.ino())) {
                let path = path.display();
                return Err(Failure::usage(format!("{path}: the output is the input")));
            }
        }
        Ok(claimed)
    }

    /// A file that somebody else will make.
    pub(super) fn expected(path: PathBuf) -> Self {
        Self {
            is_new: fs::symlink_metadata(&path).is_err(),
            path,
            is_kept: false,
        }
    }

    /// Empties it, to write it.
    pub(super) fn open(&self) -> io::Result<File> {
        File::create(&self.path)
    }

    /// It holds something.
    pub(super) fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if self.is_new && !self.is_kept {
            // Nobody may have made it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Which file an input is, where it is one.
fn identity(input: &Path) -> Option<(u64, u64)> {
    let data = if input == Path::new("-") {
        let stdin = io::stdin().as_fd().try_clone_to_owned().ok()?;
        File::from(stdin).metadata().ok()?
    } else {
        let named = || Input::from(input.to_string_lossy().as_ref()).local_path();
        fs::metadata(input)
            .or_else(|_| fs::metadata(named().unwrap_or_default()))
            .ok()?
    };
    data.is_file().then(|| (data.dev(), data.ino()))
}
