//! Why something is not trusted: each refusal has a name of its own.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{ImageDigest, KeyId, Sha256, UnixTime};
use crate::error::{Error, ErrorKind};

type Text = Cow<'static, str>;

/// Why a manifest, or what it is to vouch for, is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TrustError {
    // The envelope.
    /// Nobody signed it.
    #[error("it is not signed")]
    Unsigned,
    /// None of the signers is a trust root.
    #[error("it is signed by {}, and none of these is a trust root", list(.signers))]
    UnknownSigner {
        /// Who signed, by their own word.
        signers: Vec<KeyId>,
    },
    /// A trust root's signature that is not over these bytes, or not made with that key.
    #[error("the signature of key {signer} is wrong")]
    BadSignature {
        /// Whose signature it claims to be.
        signer: KeyId,
    },
    /// The payload is not the one that was put into the envelope.
    #[error("it was changed after it was signed: its payload has digest {found}, not {expected}")]
    Tampered {
        /// The digest that the envelope gives.
        expected: Sha256,
        /// The digest that the payload has.
        found: Sha256,
    },
    /// Two signatures of one key.
    #[error("key {signer} signed twice")]
    DuplicateSigner {
        /// The key.
        signer: KeyId,
    },
    /// The document is of another type.
    #[error("it is a document of type {found:?}, not {expected:?}")]
    WrongType {
        /// The type that was wanted.
        expected: Text,
        /// The type that it has.
        found: Text,
    },

    // Its form.
    /// Something that is not of its form.
    #[error("the {what} is malformed: {why}")]
    Malformed {
        /// Envelope, manifest, key, digest.
        what: Text,
        /// The rule that is broken, and where.
        why: Text,
    },
    /// A field that this version does not know; it may be a condition, so it is not ignored.
    #[error("the {what} has the unknown field {field:?}")]
    UnknownField {
        /// Envelope, manifest or key.
        what: Text,
        /// The field.
        field: Text,
    },
    /// A manifest of another version of the format.
    #[error("the manifest has schema {found}; this program knows schema {known}")]
    UnsupportedSchema {
        /// Its schema.
        found: u64,
        /// What is known here.
        known: u64,
    },
    /// More or longer than there may be.
    #[error("{what}: {found} is more than {max}")]
    Oversize {
        /// Of what.
        what: Text,
        /// The limit.
        max: u64,
        /// What was found.
        found: u64,
    },
    /// A component that is listed twice.
    #[error("component {class} is listed twice")]
    DuplicateComponent {
        /// The class id.
        class: Text,
    },

    // Time.
    /// It was valid, and is no more.
    #[error("it expired at {at} and it is {now}; sign it again")]
    Expired {
        /// When.
        at: UnixTime,
        /// The time of the check.
        now: UnixTime,
    },
    /// It is not valid yet, or the clock here is wrong.
    #[error("it is valid from {from} on and it is {now}")]
    NotYetValid {
        /// From when on.
        from: UnixTime,
        /// The time of the check.
        now: UnixTime,
    },
    /// It wants to be checked against a revocation list, and there is none.
    #[error("it needs revocation list {version} or later and there is none")]
    RevocationListMissing {
        /// The oldest list that will do.
        version: u64,
    },

    // What it vouches for.
    /// Another program.
    #[error("the host program has digest {}, the manifest is of {}", .found.sha256, .expected.sha256)]
    ImageMismatch {
        /// What the manifest lists.
        expected: ImageDigest,
        /// What the program is.
        found: ImageDigest,
    },
    /// A program of another size.
    #[error("the host program has {found} bytes, the manifest is of one with {expected}")]
    SizeMismatch {
        /// What the manifest lists.
        expected: u64,
        /// What the program has.
        found: u64,
    },
    /// A component that the manifest does not list.
    #[error("component {class} is not listed")]
    ComponentNotListed {
        /// The class id.
        class: Text,
    },
    /// A component of another version.
    #[error("component {class} has version {found}, version {listed} is listed")]
    ComponentVersion {
        /// The class id.
        class: Text,
        /// What the manifest lists.
        listed: u32,
        /// What was found.
        found: u32,
    },

    // Roots.
    /// There is no key that could be believed.
    #[error("no trust root is named")]
    NoRoots,
}

impl TrustError {
    pub(super) fn malformed(what: &'static str, why: impl Into<Text>) -> Self {
        Self::Malformed {
            what: what.into(),
            why: why.into(),
        }
    }

    /// What serde says, with unknown fields by their name.
    pub(super) fn of_json(what: &'static str, error: &serde_json::Error) -> Self {
        let text = error.to_string();
        // serde has no other way to tell; a test notices if its words change.
        let field = text
            .strip_prefix("unknown field `")
            .and_then(|rest| rest.split_once('`'))
            .map(|(field, _)| field.to_owned());
        match field {
            Some(field) => Self::UnknownField {
                what: what.into(),
                field: shortened(field).into(),
            },
            None => Self::malformed(what, shortened(text)),
        }
    }
}

impl From<TrustError> for Error {
    fn from(error: TrustError) -> Self {
        Self::new(ErrorKind::NotTrusted(error))
    }
}

/// What is quoted may be as long as its file.
fn shortened(text: String) -> String {
    const LONGEST: usize = 300;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn list(signers: &[KeyId]) -> String {
    let texts: Vec<_> = signers.iter().map(KeyId::to_string).collect();
    texts.join(", ")
}
