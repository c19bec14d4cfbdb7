//! Ed25519 keys and the files that hold them.

use std::fmt;
use std::sync::OnceLock;

use data_encoding::BASE64;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use super::{MAX_KEY_FILE, Sha256, TrustError, bounded};

/// Which key: the SHA-256 digest of the public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub Sha256);

impl fmt::Display for KeyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeyId({})", self.0)
    }
}

/// A key that signatures are checked with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    bytes: [u8; 32],
    development: bool,
}

impl PublicKey {
    /// From the 32 bytes of an Ed25519 public key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self {
            bytes,
            development: false,
        }
    }

    /// The public half of [`PrivateKey::development`], with which anyone can sign.
    pub fn development() -> Self {
        PrivateKey::development().public()
    }

    /// Marked as a key for development: what it signs is no protection.
    #[must_use]
    pub const fn for_development(mut self) -> Self {
        self.development = true;
        self
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Its id.
    pub fn id(&self) -> KeyId {
        KeyId(Sha256::of(&self.bytes))
    }

    /// Whether it is marked as a key for development, or is the one that everybody has.
    pub fn is_development(&self) -> bool {
        self.development || &self.bytes == known_development_key()
    }

    /// Its file.
    pub fn to_json(&self) -> Vec<u8> {
        write(&PublicKeyFile {
            kind: PUBLIC_KIND.into(),
            key_id: self.id(),
            development: self.is_development(),
            key: BASE64.encode(&self.bytes),
        })
    }

    /// Reads its file.
    ///
    /// # Errors
    /// [`TrustError::Malformed`], [`TrustError::UnknownField`] or [`TrustError::Oversize`].
    pub fn parse(file: &[u8]) -> Result<Self, TrustError> {
        check_kind(file, PUBLIC_KIND)?;
        let file: PublicKeyFile =
            serde_json::from_slice(file).map_err(|error| TrustError::of_json(KEY, &error))?;
        let mut key = Self::from_bytes(decode(&file.key)?);
        key.development = file.development || key.is_development();
        check_id(file.key_id, &key)?;
        Ok(key)
    }

    /// Whether this is this key's signature over these bytes.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.bytes)
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.is_development() {
            ", for development"
        } else {
            ""
        };
        write!(out, "PublicKey({}{mark})", self.id())
    }
}

/// A key that signs.
#[derive(Clone)]
pub struct PrivateKey {
    seed: [u8; 32],
    development: bool,
}

impl PrivateKey {
    /// From 32 random bytes.
    pub const fn from_seed(seed: [u8; 32]) -> Self {
        Self {
            seed,
            development: false,
        }
    }

    /// The key that everybody has: signing with it tries out everything and protects nothing.
    pub fn development() -> Self {
        let seed = Sha256::of(b"portcullis development key: no protection");
        Self::from_seed(*seed.as_bytes()).for_development()
    }

    /// Marked as a key for development.
    #[must_use]
    pub const fn for_development(mut self) -> Self {
        self.development = true;
        self
    }

    /// Its public half, with the same mark.
    pub fn public(&self) -> PublicKey {
        let bytes = self.pair().public_key().as_ref().try_into();
        PublicKey {
            bytes: bytes.expect("an Ed25519 public key has 32 bytes"),
            development: self.development,
        }
    }

    /// Its file.
    pub fn to_json(&self) -> Vec<u8> {
        let public = self.public();
        write(&PrivateKeyFile {
            kind: PRIVATE_KIND.into(),
            key_id: public.id(),
            development: public.is_development(),
            seed: BASE64.encode(&self.seed),
        })
    }

    /// Reads its file.
    ///
    /// # Errors
    /// [`TrustError::Malformed`], [`TrustError::UnknownField`] or [`TrustError::Oversize`].
    pub fn parse(file: &[u8]) -> Result<Self, TrustError> {
        check_kind(file, PRIVATE_KIND)?;
        let file: PrivateKeyFile =
            serde_json::from_slice(file).map_err(|error| TrustError::of_json(KEY, &error))?;
        let key = Self {
            seed: decode(&file.seed)?,
            development: file.development,
        };
        check_id(file.key_id, &key.public())?;
        Ok(key)
    }

    /// Signs these bytes.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair().sign(message).as_ref().to_vec()
    }

    fn pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&self.seed)
            .expect("the only thing checked is that a seed has 32 bytes")
    }
}

impl fmt::Debug for PrivateKey {
    /// Without the secret.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PrivateKey of {:?}", self.public())
    }
}

const KEY: &str = "key file";
const PUBLIC_KIND: &str = "portcullis.public-key.ed25519";
const PRIVATE_KIND: &str = "portcullis.private-key.ed25519";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicKeyFile {
    #[serde(rename = "type")]
    kind: String,
    key_id: KeyId,
    development: bool,
    key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PrivateKeyFile {
    #[serde(rename = "type")]
    kind: String,
    key_id: KeyId,
    development: bool,
    seed: String,
}

/// Says first which kind of file it is: taking one key for the other is the commonest mistake.
fn check_kind(file: &[u8], expected: &str) -> Result<(), TrustError> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    bounded("bytes of a key file", file.len(), MAX_KEY_FILE)?;
    let Kind { kind } =
        serde_json::from_slice(file).map_err(|error| TrustError::of_json(KEY, &error))?;
    if kind != expected {
        return Err(TrustError::malformed(
            KEY,
            format!("it is a {kind:?}, expected a {expected:?}"),
        ));
    }
    Ok(())
}

fn check_id(found: KeyId, key: &PublicKey) -> Result<(), TrustError> {
    if found != key.id() {
        return Err(TrustError::malformed(KEY, "its id is not that of its key"));
    }
    Ok(())
}

fn decode(text: &str) -> Result<[u8; 32], TrustError> {
    BASE64
        .decode(text.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| TrustError::malformed(KEY, "expected 32 bytes in Base64"))
}

fn write(file: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(file).expect("texts and flags are always JSON");
    text.push(b'\n');
    text
}

fn known_development_key() -> &'static [u8; 32] {
    static KEY: OnceLock<[u8; 32]> = OnceLock::new();
    KEY.get_or_init(|| PrivateKey::development().public().bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_keys_and_marks() {
        for key in [
            PrivateKey::from_seed([1; 32]),
            PrivateKey::from_seed([2; 32]).for_development(),
            PrivateKey::development(),
        ] {
            let read = PrivateKey::parse(&key.to_json()).unwrap();
            assert_eq!(read.seed, key.seed);
            assert_eq!(read.public(), key.public());
            let public = PublicKey::parse(&key.public().to_json()).unwrap();
            assert_eq!(public, key.public());
        }
    }

    #[test]
    fn the_key_that_everybody_has_cannot_lose_its_mark() {
        let bytes = *PublicKey::development().as_bytes();
        assert!(PublicKey::from_bytes(bytes).is_development());
        assert!(!PrivateKey::from_seed([1; 32]).public().is_development());
    }

    #[test]
    fn files_that_are_no_keys_are_refused() {
        let key = PrivateKey::from_seed([1; 32]);
        let why = |file: &[u8]| PublicKey::parse(file).unwrap_err().to_string();
        assert!(why(&key.to_json()).contains("private-key"));
        assert!(why(b"").contains("malformed"));
        assert!(why(&vec![b' '; MAX_KEY_FILE + 1]).contains("more than"));
        let text = String::from_utf8(key.public().to_json()).unwrap();
        let other = PrivateKey::from_seed([2; 32]).public().id().to_string();
        assert!(
            why(text
                .replace(&key.public().id().to_string(), &other)
                .as_bytes())
            .contains("its id")
        );
        assert_eq!(
            PublicKey::parse(text.replace('{', "{\"colour\": 1,").as_bytes()),
            Err(TrustError::UnknownField {
                what: "key file".into(),
                field: "colour".into()
            })
        );
    }

    #[test]
    fn a_secret_is_not_printed() {
        let text = format!("{:?}", PrivateKey::from_seed([0x77; 32]));
        assert!(
            !text.contains("7777") && !text.contains("119, 119"),
            "{text}"
        );
    }
}
