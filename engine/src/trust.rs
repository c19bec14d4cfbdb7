//! Which host programs an application trusts: signed manifests, keys and trust roots.
//!
//! A *manifest* says what a host program is: its name and version, how long that holds, the hash and size of its image, and the
//! components that it may offer. An *envelope* carries the manifest's exact bytes with Ed25519 signatures over their type and
//! themselves (the idea of DSSE v1, so the bytes are never written again to be checked, and a signature of one type of
//! document is none of another). An application names its *trust roots*, the keys that it believes; [`verify`] gives a
//! [`VerifiedManifest`], or the [`TrustError`] that says which of the checks refused it. A manifest is only parsed after a
//! signature of a root over it was found good.
//!
//! ```
//! use portcullis_engine::trust::{
//!     Envelope, HostEntry, ImageDigest, MANIFEST_TYPE, Manifest, PrivateKey, TrustRoots, UnixTime, verify,
//! };
//!
//! # fn main() -> Result<(), portcullis_engine::trust::TrustError> {
//! let program = b"\x7fELF and so on";
//! let key = PrivateKey::from_seed([7; 32]); // from a random source
//! let manifest = Manifest {
//!     name: "my-host".into(),
//!     version: 1,
//!     issued: UnixTime(1_800_000_000),
//!     expires: UnixTime(1_810_000_000),
//!     host: HostEntry::new(ImageDigest::of(program), "x86_64-linux"),
//!     components: Vec::new(),
//!     development: false,
//!     min_revocation_version: None,
//! };
//! let file = Envelope::sign(MANIFEST_TYPE, manifest.to_json()?, &[&key])?.to_json();
//!
//! let roots = TrustRoots::new([key.public()])?;
//! let verified = verify(&file, &roots, UnixTime(1_800_000_060))?;
//! verified.check_image(&ImageDigest::of(program))?;
//! assert!(verified.check_image(&ImageDigest::of(b"another")).is_err());
//! # Ok(())
//! # }
//! ```
//!
//! # What later versions add, and where
//! - *Roles*: a key is trusted for types of document, by the envelope's payload type, which the signature covers; a root
//!   document gives each role its keys and threshold ([`TrustRoots`] has one role with threshold 1).
//! - *Revocation*: [`Manifest::min_revocation_version`] names the oldest list of revoked images, classes and keys that may be
//!   used with this manifest. A verifier without such a list, as this one, refuses a manifest that asks for one.
//! - *Renewal*: [`Manifest::version`] only grows for a name; whoever keeps the highest one seen can refuse to go back.
//! - New fields come with a new `schema` number; unknown ones are refused, never ignored.

mod digest;
mod envelope;
mod error;
mod key;
mod manifest;
mod time;
mod verify;

pub use digest::{ImageDigest, ImageHasher, Sha256};
pub use envelope::{Envelope, Signature};
pub use error::TrustError;
pub use key::{KeyId, PrivateKey, PublicKey};
pub use manifest::{ClassVersion, HostEntry, Manifest};
pub use time::UnixTime;
pub use verify::{TrustRoots, VerifiedManifest, verify};

/// The payload type of a manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.portcullis.manifest+json";

/// Bytes that an envelope may have.
pub const MAX_ENVELOPE: usize = 512 << 10;
/// Bytes that a payload may have.
pub const MAX_PAYLOAD: usize = 256 << 10;
/// Signatures of an envelope.
pub const MAX_SIGNATURES: usize = 16;
/// Keys of a set of roots.
pub const MAX_ROOTS: usize = 64;
/// Components of a manifest.
pub const MAX_COMPONENTS: usize = 1024;
/// Bytes of a name, a class id or a payload type.
pub const MAX_NAME: usize = 128;
/// Bytes of a key file.
pub const MAX_KEY_FILE: usize = 4 << 10;

/// Refuses more than there may be.
fn bounded(what: &'static str, found: usize, max: usize) -> Result<(), TrustError> {
    if found > max {
        return Err(TrustError::Oversize {
            what: what.into(),
            max: max as u64,
            found: found as u64,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
