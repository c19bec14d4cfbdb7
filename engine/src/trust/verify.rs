//! From bytes to something that can be believed.

use super::{
    ClassVersion, Envelope, ImageDigest, KeyId, MANIFEST_TYPE, MAX_ROOTS, Manifest, PublicKey,
    TrustError, UnixTime, bounded,
};

/// The keys that an application believes: any one of them is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustRoots {
    keys: Vec<PublicKey>,
}

impl TrustRoots {
    /// These keys; one that is named twice counts once.
    ///
    /// # Errors
    /// [`TrustError::NoRoots`] or [`TrustError::Oversize`].
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Result<Self, TrustError> {
        let mut unique: Vec<PublicKey> = Vec::new();
        for key in keys {
            match unique.iter_mut().find(|k| k.as_bytes() == key.as_bytes()) {
                // A key that is marked once is marked.
                Some(known) if key.is_development() => *known = key,
                Some(_) => {}
                None => unique.push(key),
            }
            bounded("trust roots", unique.len(), MAX_ROOTS)?;
        }
        if unique.is_empty() {
            return Err(TrustError::NoRoots);
        }
        Ok(Self { keys: unique })
    }

    /// The key that everybody has, and no other: tries out everything and protects nothing.
    pub fn development() -> Self {
        Self {
            keys: vec![PublicKey::development()],
        }
    }

    /// The keys.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// The key with this id.
    pub fn get(&self, id: KeyId) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.id() == id)
    }
}

/// A manifest that a trust root has signed and that is valid at the time of the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedManifest {
    manifest: Manifest,
    signers: Vec<KeyId>,
    development: bool,
}

/// Checks a signed manifest: its signatures by the roots, then its form, then its time.
///
/// # Errors
/// A [`TrustError`] that says which check refused it.
pub fn verify(
    envelope: &[u8],
    roots: &TrustRoots,
    now: UnixTime,
) -> Result<VerifiedManifest, TrustError> {
    let envelope = Envelope::parse(envelope)?;
    let (payload, signers) = envelope.authenticate(MANIFEST_TYPE, roots)?;
    let manifest = Manifest::parse(payload)?;
    if now < manifest.issued {
        return Err(TrustError::NotYetValid {
            from: manifest.issued,
            now,
        });
    }
    if now >= manifest.expires {
        return Err(TrustError::Expired {
            at: manifest.expires,
            now,
        });
    }
    if let Some(version) = manifest.min_revocation_version {
        return Err(TrustError::RevocationListMissing { version });
    }
    // Protection needs one key that is not for development.
    let development = manifest.development
        || signers
            .iter()
            .all(|id| roots.get(*id).is_none_or(PublicKey::is_development));
    if development {
        tracing::warn!(
            name = manifest.name,
            "the manifest is signed for development: no protection"
        );
    }
    Ok(VerifiedManifest {
        manifest,
        signers,
        development,
    })
}

impl VerifiedManifest {
    /// What it says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The roots that signed it.
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }

    /// Whether it is marked as signed for development or only development keys signed it: no protection.
    pub fn is_development(&self) -> bool {
        self.development
    }

    /// Refuses any program but the listed one.
    ///
    /// # Errors
    /// [`TrustError::SizeMismatch`] or [`TrustError::ImageMismatch`].
    pub fn check_image(&self, found: &ImageDigest) -> Result<(), TrustError> {
        let expected = self.manifest.host.image();
        if found.size != expected.size {
            return Err(TrustError::SizeMismatch {
                expected: expected.size,
                found: found.size,
            });
        }
        if found.sha256 != expected.sha256 {
            return Err(TrustError::ImageMismatch {
                expected,
                found: *found,
            });
        }
        Ok(())
    }

    /// Refuses the first component that is not listed in its version; one that is listed and not there is no harm.
    ///
    /// # Errors
    /// [`TrustError::ComponentNotListed`], [`TrustError::ComponentVersion`] or [`TrustError::Oversize`].
    pub fn check_components(&self, found: &[ClassVersion]) -> Result<(), TrustError> {
        bounded("components", found.len(), super::MAX_COMPONENTS)?;
        found
            .iter()
            .try_for_each(|component| component.check_listed(&self.manifest.components))
    }
}
