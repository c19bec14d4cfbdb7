//! What a host program is, as its publisher signs it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{
    ImageDigest, MAX_COMPONENTS, MAX_NAME, MAX_PAYLOAD, Sha256, TrustError, UnixTime, bounded,
};

/// The version of the format that this program writes, and the only one that it reads.
const SCHEMA: u64 = 1;

/// What a host program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The program's name.
    pub name: String,
    /// The manifest's version, which only grows for a name.
    pub version: u64,
    /// From when on it is valid.
    pub issued: UnixTime,
    /// When it is valid no more.
    pub expires: UnixTime,
    /// The program.
    pub host: HostEntry,
    /// The components that it may offer, in these versions.
    pub components: Vec<ClassVersion>,
    /// Whether it was signed for development: no protection, whoever signed it.
    pub development: bool,
    /// The oldest revocation list that may be used with it. Such lists come with a later version: this one refuses a
    /// manifest that asks for one.
    pub min_revocation_version: Option<u64>,
}

/// A program, as a manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostEntry {
    /// The digest of its file.
    pub sha256: Sha256,
    /// The size of its file in bytes.
    pub size: u64,
    /// What it runs on, such as `x86_64-linux`. Only for people: the digest says it already.
    pub target: String,
}

impl HostEntry {
    /// The program with this digest.
    pub fn new(image: ImageDigest, target: impl Into<String>) -> Self {
        Self {
            sha256: image.sha256,
            size: image.size,
            target: target.into(),
        }
    }

    /// Its digest and size.
    pub fn image(&self) -> ImageDigest {
        ImageDigest {
            sha256: self.sha256,
            size: self.size,
        }
    }
}

/// A component's class and version; as text `class@version`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassVersion {
    /// The class id.
    pub class: String,
    /// The version.
    pub version: u32,
}

impl ClassVersion {
    /// Refuses this component if the list has it not, or in another version.
    ///
    /// # Errors
    /// [`TrustError::ComponentNotListed`] or [`TrustError::ComponentVersion`].
    pub fn check_listed(&self, list: &[Self]) -> Result<(), TrustError> {
        let class = || self.class.clone().into();
        match list.iter().find(|listed| listed.class == self.class) {
            None => Err(TrustError::ComponentNotListed { class: class() }),
            Some(listed) if listed.version != self.version => Err(TrustError::ComponentVersion {
                class: class(),
                listed: listed.version,
                found: self.version,
            }),
            Some(_) => Ok(()),
        }
    }
}

impl fmt::Display for ClassVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}@{}", self.class, self.version)
    }
}

impl FromStr for ClassVersion {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        text.rsplit_once('@')
            .filter(|(class, _)| !class.is_empty())
            .and_then(|(class, version)| {
                Some(Self {
                    class: class.to_owned(),
                    version: version.parse().ok()?,
                })
            })
            .ok_or_else(|| {
                TrustError::malformed("component", "expected CLASS@VERSION, such as audio.gain@1")
            })
    }
}

impl Manifest {
    /// The bytes to sign.
    ///
    /// # Errors
    /// What [`Manifest::parse`] would refuse.
    pub fn to_json(&self) -> Result<Vec<u8>, TrustError> {
        self.check()?;
        let this = self.clone();
        let file = ManifestFile {
            schema: SCHEMA,
            name: this.name,
            version: this.version,
            issued: this.issued,
            expires: this.expires,
            host: this.host,
            components: this.components,
            development: this.development,
            min_revocation_version: this.min_revocation_version,
        };
        let bytes = serde_json::to_vec(&file).expect("texts and numbers are always JSON");
        bounded("bytes of a manifest", bytes.len(), MAX_PAYLOAD)?;
        Ok(bytes)
    }

    /// Reads a manifest. Only what was verified is to be believed: use [`verify`](super::verify) for that.
    ///
    /// # Errors
    /// [`TrustError::Malformed`], [`TrustError::UnknownField`], [`TrustError::UnsupportedSchema`], [`TrustError::Oversize`]
    /// or [`TrustError::DuplicateComponent`].
    pub fn parse(payload: &[u8]) -> Result<Self, TrustError> {
        /// What is the same in every version of the format.
        #[derive(Deserialize)]
        struct Versioned {
            schema: u64,
        }
        bounded("bytes of a manifest", payload.len(), MAX_PAYLOAD)?;
        let of_json = |error| TrustError::of_json(MANIFEST, &error);
        let Versioned { schema } = serde_json::from_slice(payload).map_err(of_json)?;
        if schema != SCHEMA {
            return Err(TrustError::UnsupportedSchema {
                found: schema,
                known: SCHEMA,
            });
        }
        let file: ManifestFile = serde_json::from_slice(payload).map_err(of_json)?;
        let manifest = Self {
            name: file.name,
            version: file.version,
            issued: file.issued,
            expires: file.expires,
            host: file.host,
            components: file.components,
            development: file.development,
            min_revocation_version: file.min_revocation_version,
        };
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), TrustError> {
        check_name("name", &self.name)?;
        check_name("target", &self.host.target)?;
        if self.expires <= self.issued {
            return Err(TrustError::malformed(
                MANIFEST,
                "it expires before it is valid",
            ));
        }
        bounded("components", self.components.len(), MAX_COMPONENTS)?;
        let mut seen = BTreeSet::new();
        for component in &self.components {
            check_name("class", &component.class)?;
            if !seen.insert(component.class.as_str()) {
                return Err(TrustError::DuplicateComponent {
                    class: component.class.clone().into(),
                });
            }
        }
        Ok(())
    }
}

const MANIFEST: &str = "manifest";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestFile {
    schema: u64,
    name: String,
    version: u64,
    issued: UnixTime,
    expires: UnixTime,
    host: HostEntry,
    components: Vec<ClassVersion>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    development: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_revocation_version: Option<u64>,
}

/// Names are printed and compared: no control characters, no white space, nothing that looks like something else.
fn check_name(what: &'static str, name: &str) -> Result<(), TrustError> {
    bounded(what, name.len(), MAX_NAME)?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TrustError::malformed(
            MANIFEST,
            format!("{what} {name:?}: expected printable ASCII without spaces"),
        ));
    }
    Ok(())
}
