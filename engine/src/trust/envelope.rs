//! What carries a signed document: its exact bytes and the signatures over their type and themselves.
//!
//! The form is DSSE's (`payloadType`, `payload`, `signatures` with `keyid` and `sig`) with one field more: `payloadSha256` tells
//! damage and edits from a wrong key. It protects nothing; the signatures do.

use std::fmt;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::{
    KeyId, MAX_ENVELOPE, MAX_NAME, MAX_PAYLOAD, MAX_SIGNATURES, PrivateKey, Sha256, TrustError,
    TrustRoots, bounded,
};

/// A document with its signatures. Nothing in it is to be believed before it is verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    digest: Sha256,
    signatures: Vec<Signature>,
}

/// One signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Whose it claims to be.
    pub key_id: KeyId,
    /// The 64 bytes of an Ed25519 signature, if they are.
    pub bytes: Vec<u8>,
}

impl Envelope {
    /// Puts a document into an envelope that these keys sign.
    ///
    /// # Errors
    /// [`TrustError::Oversize`], or [`TrustError::DuplicateSigner`] for a key that is there twice.
    pub fn sign(
        payload_type: &str,
        payload: Vec<u8>,
        keys: &[&PrivateKey],
    ) -> Result<Self, TrustError> {
        let mut envelope = Self {
            payload_type: payload_type.to_owned(),
            digest: Sha256::of(&payload),
            payload,
            signatures: Vec::new(),
        };
        for key in keys {
            envelope.add_signature(key);
        }
        envelope.check()?;
        Ok(envelope)
    }

    fn add_signature(&mut self, key: &PrivateKey) {
        let bytes = key.sign(&self.signed_bytes());
        self.signatures.push(Signature {
            key_id: key.public().id(),
            bytes,
        });
    }

    /// Reads an envelope; it is not verified by that.
    ///
    /// # Errors
    /// [`TrustError::Malformed`], [`TrustError::UnknownField`], [`TrustError::Oversize`] or [`TrustError::DuplicateSigner`].
    pub fn parse(file: &[u8]) -> Result<Self, TrustError> {
        bounded("bytes of an envelope", file.len(), MAX_ENVELOPE)?;
        let file: EnvelopeFile =
            serde_json::from_slice(file).map_err(|error| TrustError::of_json(ENVELOPE, &error))?;
        bounded("signatures", file.signatures.len(), MAX_SIGNATURES)?;
        let signatures = file.signatures.iter().map(|signature| {
            Ok(Signature {
                key_id: signature.keyid,
                bytes: decode(&signature.sig, "sig")?,
            })
        });
        let envelope = Self {
            payload: decode(&file.payload, "payload")?,
            signatures: signatures.collect::<Result<_, TrustError>>()?,
            payload_type: file.payload_type,
            digest: file.payload_sha256,
        };
        envelope.check()?;
        Ok(envelope)
    }

    /// Its file: one line without white space, so that there is nothing in it that could change unnoticed.
    pub fn to_json(&self) -> Vec<u8> {
        let signatures = self.signatures.iter().map(|signature| SignatureFile {
            keyid: signature.key_id,
            sig: BASE64.encode(&signature.bytes),
        });
        let file = EnvelopeFile {
            payload_type: self.payload_type.clone(),
            payload: BASE64.encode(&self.payload),
            payload_sha256: self.digest,
            signatures: signatures.collect(),
        };
        serde_json::to_vec(&file).expect("texts are always JSON")
    }

    /// What the document says that it is.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The document, not verified.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The signatures, not verified.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The document, once it is of this type and a root has signed it, and the roots that have.
    ///
    /// Signatures of others are not looked at; a wrong one of a root is refused even beside a good one.
    pub(super) fn authenticate(
        &self,
        expected: &'static str,
        roots: &TrustRoots,
    ) -> Result<(&[u8], Vec<KeyId>), TrustError> {
        if self.payload_type != expected {
            return Err(TrustError::WrongType {
                expected: expected.into(),
                found: self.payload_type.clone().into(),
            });
        }
        if self.signatures.is_empty() {
            return Err(TrustError::Unsigned);
        }
        let found = Sha256::of(&self.payload);
        if found != self.digest {
            return Err(TrustError::Tampered {
                expected: self.digest,
                found,
            });
        }
        let signed = self.signed_bytes();
        let mut signers = Vec::new();
        for signature in &self.signatures {
            let signer = signature.key_id;
            let Some(key) = roots.get(signer) else {
                continue;
            };
            if !key.has_signed(&signed, &signature.bytes) {
                return Err(TrustError::BadSignature { signer });
            }
            signers.push(signer);
        }
        if signers.is_empty() {
            let signers = self.signatures.iter().map(|signature| signature.key_id);
            return Err(TrustError::UnknownSigner {
                signers: signers.collect(),
            });
        }
        Ok((&self.payload, signers))
    }

    /// What is signed: DSSE's pre-authentication encoding, in which each part says its length first.
    fn signed_bytes(&self) -> Vec<u8> {
        let head = format!(
            "DSSEv1 {} {} {} ",
            self.payload_type.len(),
            self.payload_type,
            self.payload.len()
        );
        [head.as_bytes(), &self.payload].concat()
    }

    fn check(&self) -> Result<(), TrustError> {
        bounded("bytes of a payload type", self.payload_type.len(), MAX_NAME)?;
        bounded("bytes of a payload", self.payload.len(), MAX_PAYLOAD)?;
        bounded("signatures", self.signatures.len(), MAX_SIGNATURES)?;
        for (index, signature) in self.signatures.iter().enumerate() {
            let signer = signature.key_id;
            if self.signatures[..index].iter().any(|s| s.key_id == signer) {
                return Err(TrustError::DuplicateSigner { signer });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Envelope")
            .field("payload_type", &self.payload_type)
            .field("payload_bytes", &self.payload.len())
            .field("signatures", &self.signatures)
            .finish()
    }
}

const ENVELOPE: &str = "envelope";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct EnvelopeFile {
    payload_type: String,
    payload: String,
    payload_sha256: Sha256,
    signatures: Vec<SignatureFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureFile {
    keyid: KeyId,
    sig: String,
}

fn decode(text: &str, field: &'static str) -> Result<Vec<u8>, TrustError> {
    BASE64
        .decode(text.as_bytes())
        .map_err(|error| TrustError::malformed(ENVELOPE, format!("{field}: {error}")))
}
