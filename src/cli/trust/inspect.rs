//! `portcullis trust inspect`: what a file says, believed or not.

use std::path::PathBuf;

use clap::Args;
use portcullis_engine::trust::{
    Envelope, MANIFEST_TYPE, MAX_KEY_FILE, Manifest, PrivateKey, PublicKey,
};
use serde_json::json;

use super::{NO_PROTECTION, files, form, warn_of_development};
use crate::cli::failure::{Failure, one_line};
use crate::cli::output;

/// Shows a signed manifest or a key file, without verifying anything.
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// The file
    file: PathBuf,
    /// Prints a JSON object
    #[arg(long)]
    pub(super) json: bool,
}

impl Inspect {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let bytes = files::envelope(&self.file)?;
        if bytes.len() <= MAX_KEY_FILE {
            if let Ok(key) = PublicKey::parse(&bytes) {
                return self.show_key("public key", &key);
            }
            if let Ok(key) = PrivateKey::parse(&bytes) {
                return self.show_key("private key", &key.public());
            }
        }
        let refused = |error| files::refused(&self.file, error);
        let envelope = Envelope::parse(&bytes).map_err(refused)?;
        let manifest = match envelope.payload_type() {
            MANIFEST_TYPE => Some(Manifest::parse(envelope.payload()).map_err(refused)?),
            // A type of document that a later version may know.
            _ => None,
        };
        let well_known = PublicKey::development().id();
        let signers: Vec<_> = envelope.signatures().iter().map(|s| s.key_id).collect();
        let development = signers.contains(&well_known)
            || manifest
                .as_ref()
                .is_some_and(|manifest| manifest.development);
        if development {
            warn_of_development(&self.file.display().to_string());
        }
        if self.json {
            return output::document(&json!({
                "verified": false,
                "development": development,
                "payload_type": envelope.payload_type(),
                "payload_bytes": envelope.payload().len(),
                "signers": signers,
                "manifest": manifest.as_ref().map(form::of_manifest),
            }));
        }
        let mut lines = vec![
            "NOT VERIFIED: this is what the file says; `portcullis trust verify` checks it".into(),
            format!("type        {}", one_line(envelope.payload_type())),
            format!("signed by   {}", form::keys(signers)),
        ];
        if development {
            lines.push(format!("            {NO_PROTECTION}"));
        }
        lines.extend(manifest.iter().flat_map(form::lines));
        output::line(&lines.join("\n"))
    }

    fn show_key(&self, what: &str, key: &PublicKey) -> Result<(), Failure> {
        let development = key.is_development();
        if development {
            warn_of_development(&self.file.display().to_string());
        }
        if self.json {
            return output::document(&json!({
                "type": what,
                "key_id": key.id(),
                "development": development,
            }));
        }
        let mark = if development { NO_PROTECTION } else { "" };
        output::line(format!("{what}  {}\n{mark}", key.id()).trim_end())
    }
}
