//! `portcullis trust keygen`: a new pair of keys.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use portcullis_engine::trust::PrivateKey;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;

use super::{files, warn_of_development};
use crate::cli::failure::Failure;
use crate::cli::output;

/// Makes an Ed25519 key to sign with, and beside it its public half with the ending .pub.
///
/// The private key is not encrypted: only its permissions (0600) protect it.
#[derive(Debug, Args)]
pub(super) struct Keygen {
    /// The file of the private key
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Marks the key as one for development: everything works, and whatever it signs says that it protects nothing
    #[arg(long)]
    development: bool,
    /// Replaces a key that is there
    #[arg(long)]
    force: bool,
    /// Prints a JSON object
    #[arg(long)]
    pub(super) json: bool,
}

impl Keygen {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let public_path = public_path(&self.output);
        if !self.force {
            // Both before either: half a pair helps nobody.
            refuse_existing(&self.output)?;
            refuse_existing(&public_path)?;
        }
        let mut seed = [0; 32];
        SystemRandom::new()
            .fill(&mut seed)
            .map_err(|_| Failure::output("random numbers", io::Error::other("there are none")))?;
        let mut key = PrivateKey::from_seed(seed);
        if self.development {
            key = key.for_development();
            warn_of_development(&self.output.display().to_string());
        }
        let public = key.public();
        files::write_new(&self.output, &key.to_json(), 0o600, self.force)?;
        files::write_new(&public_path, &public.to_json(), 0o644, self.force)?;
        if self.json {
            return output::document(&json!({
                "key_id": public.id(),
                "development": public.is_development(),
                "private_key": self.output,
                "public_key": public_path,
            }));
        }
        output::line(&format!(
            "key          {}\nprivate key  {} (keep it secret)\npublic key   {}",
            public.id(),
            self.output.display(),
            public_path.display()
        ))
    }
}

fn public_path(private: &Path) -> PathBuf {
    let mut name = OsString::from(private);
    name.push(".pub");
    PathBuf::from(name)
}

fn refuse_existing(path: &Path) -> Result<(), Failure> {
    // A link that leads nowhere is there too.
    if path.symlink_metadata().is_ok() {
        let error = io::Error::new(
            io::ErrorKind::AlreadyExists,
            "is there already; --force replaces it",
        );
        return Err(Failure::output(path.display().to_string(), error));
    }
    Ok(())
}
