//! Why a protected host's program is believed.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_engine::trust::{
    ClassVersion, ImageDigest, MAX_ENVELOPE, Sha256, TrustError, TrustRoots, UnixTime,
    VerifiedManifest, verify,
};
use portcullis_engine::{Error, ErrorKind, Result};
use portcullis_transport::{HostImage, HostProgram, Layer};

use crate::runtime;

/// A signed manifest and the keys that an application believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust(Grounds);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Grounds {
    Manifest {
        manifest: Manifest,
        roots: TrustRoots,
    },
    Development,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Manifest {
    Bytes(Arc<[u8]>),
    File(PathBuf),
}

impl Trust {
    /// The manifest's exact bytes.
    pub fn manifest(manifest: impl Into<Arc<[u8]>>, roots: TrustRoots) -> Self {
        Self(Grounds::Manifest {
            manifest: Manifest::Bytes(manifest.into()),
            roots,
        })
    }

    /// The manifest in this file, which is read at each start.
    pub fn file(path: impl Into<PathBuf>, roots: TrustRoots) -> Self {
        Self(Grounds::Manifest {
            manifest: Manifest::File(path.into()),
            roots,
        })
    }

    /// Any static program, with all that it registers: for development. It gives the complete sandbox and no verification,
    /// and logs a warning at each start.
    pub fn development() -> Self {
        Self(Grounds::Development)
    }

    /// Whether nothing is verified.
    pub fn is_development(&self) -> bool {
        matches!(self.0, Grounds::Development)
    }

    /// Checks the manifest and the image against it.
    pub(super) async fn vouch(&self, program: &HostProgram, image: &HostImage) -> Result<Vouched> {
        let Grounds::Manifest { manifest, roots } = &self.0 else {
            tracing::warn!(%program, "protected host for development: its program is not verified, so this is no protection");
            return Ok(Vouched(None));
        };
        let envelope = manifest.read().await?;
        let verified = verify(&envelope, roots, now()).map_err(not_trusted)?;
        let facts = image.facts();
        let Some(sha256) = facts.sha256 else {
            return Err(Error::new(ErrorKind::LayerMissing {
                layer: Layer::SealedImage.name().into(),
                why: format!("{program} is dynamically linked: build it with -C target-feature=+crt-static and --target").into(),
            }));
        };
        let digest = ImageDigest {
            sha256: Sha256::from(sha256),
            size: facts.size,
        };
        verified.check_image(&digest).map_err(not_trusted)?;
        Ok(Vouched(Some(verified)))
    }
}

/// Who vouches for a protected host's program, and for which of its components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched(Option<VerifiedManifest>);

impl Vouched {
    /// The verified manifest; `None` when nothing was verified ([`Trust::development`]).
    pub fn manifest(&self) -> Option<&VerifiedManifest> {
        self.0.as_ref()
    }

    /// Whether this is for development only: nothing was verified, or only a development key signed. No protection.
    pub fn is_development(&self) -> bool {
        self.0.as_ref().is_none_or(VerifiedManifest::is_development)
    }

    /// The components that the host may offer, or `None` for all.
    pub(super) fn components(&self) -> Option<&[ClassVersion]> {
        let manifest = self.0.as_ref()?.manifest();
        Some(&manifest.components)
    }

    /// Whether what was verified at the start would not be any more.
    pub(super) fn has_expired(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|verified| now() >= verified.manifest().expires)
    }
}

impl Manifest {
    async fn read(&self) -> Result<Arc<[u8]>> {
        match self {
            Self::Bytes(bytes) => Ok(Arc::clone(bytes)),
            Self::File(path) => {
                let path = path.clone();
                // A file system may hang: not on a thread that serves others.
                runtime::run(move || async move {
                    tokio::task::spawn_blocking(move || read_bounded(&path))
                        .await
                        .unwrap_or_else(|_| Err(Error::cancelled()))
                })
                .await
            }
        }
    }
}

fn read_bounded(path: &Path) -> Result<Arc<[u8]>> {
    let failed = |error: std::io::Error| {
        Error::io("the manifest", &error).of_input(path.display().to_string())
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to be refused.
    file.take(MAX_ENVELOPE as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes.into())
}

fn not_trusted(error: TrustError) -> Error {
    Error::new(ErrorKind::NotTrusted(error))
}

fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 makes everything not yet valid.
    UnixTime(since.map_or(0, |since| since.as_secs()))
}
