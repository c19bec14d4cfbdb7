//! Digests: of payloads, of keys, of host programs.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};

use super::TrustError;

/// A SHA-256 digest; as text 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256([u8; 32]);

impl From<[u8; 32]> for Sha256 {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl Sha256 {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_ring(digest(&SHA256, bytes))
    }

    /// A digest that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn from_ring(digest: ring::digest::Digest) -> Self {
        Self(digest.as_ref().try_into().expect("SHA-256 gives 32 bytes"))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for Sha256 {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        HEXLOWER
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| Some(Self(bytes.try_into().ok()?)))
            .ok_or_else(|| TrustError::Malformed {
                what: "digest".into(),
                why: "expected 64 lower-case hexadecimal digits".into(),
            })
    }
}

impl TryFrom<String> for Sha256 {
    type Error = TrustError;

    fn try_from(text: String) -> Result<Self, TrustError> {
        text.parse()
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        digest.to_string()
    }
}

/// What identifies a program: digest and size of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageDigest {
    /// The digest.
    pub sha256: Sha256,
    /// The size in bytes.
    pub size: u64,
}

impl ImageDigest {
    /// Of a program that is in memory.
    pub fn of(image: &[u8]) -> Self {
        let mut hasher = ImageHasher::new();
        hasher.update(image);
        hasher.finish()
    }
}

/// Computes an [`ImageDigest`] piece by piece.
#[derive(Clone)]
pub struct ImageHasher {
    context: Context,
    size: u64,
}

impl ImageHasher {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self {
            context: Context::new(&SHA256),
            size: 0,
        }
    }

    /// Adds the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.context.update(piece);
        self.size = self.size.saturating_add(piece.len() as u64);
    }

    /// The digest of all pieces.
    pub fn finish(self) -> ImageDigest {
        ImageDigest {
            sha256: Sha256::from_ring(self.context.finish()),
            size: self.size,
        }
    }
}

impl Default for ImageHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ImageHasher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ImageHasher({} bytes)", self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_have_one_text() {
        let digest = Sha256::of(b"");
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(digest));
        for wrong in [&EMPTY[1..], &EMPTY.to_uppercase(), "", "zz"] {
            assert!(wrong.parse::<Sha256>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn pieces_make_the_whole() {
        let mut hasher = ImageHasher::new();
        hasher.update(b"a");
        hasher.update(b"");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), ImageDigest::of(b"abc"));
        assert_eq!(ImageDigest::of(b"abc").size, 3);
    }
}
