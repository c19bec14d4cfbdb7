//! `portcullis trust verify`: whether a manifest is to be believed, and whether a program is the one it lists.

use std::path::PathBuf;

use clap::Args;
use portcullis_engine::trust;
use serde_json::json;

use super::{NO_PROTECTION, files, form, warn_of_development};
use crate::cli::failure::Failure;
use crate::cli::output;

/// Checks a signed manifest: signatures, form, time, and, if named, the program and its components.
///
/// Exits with 7 and says why if anything is refused.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The signed manifest
    manifest: PathBuf,
    /// The file of a public key that is trusted; may be given again
    #[arg(
        long = "root",
        value_name = "FILE",
        required_unless_present = "development_root"
    )]
    roots: Vec<PathBuf>,
    /// Trusts the development key that everybody has
    #[arg(long)]
    development_root: bool,
    /// The host program, which must be the listed one
    #[arg(long, value_name = "PROGRAM")]
    host: Option<PathBuf>,
    /// Starts the program, once it is the listed one, in an isolated host and checks every component that it offers
    #[arg(long, requires = "host")]
    all_components: bool,
    /// Prints a JSON object
    #[arg(long)]
    pub(super) json: bool,
}

impl Verify {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let roots = files::roots(&self.roots, self.development_root)?;
        let envelope = files::envelope(&self.manifest)?;
        let verified = trust::verify(&envelope, &roots, super::now())
            .map_err(|error| files::refused(&self.manifest, error))?;
        let mut checked = Vec::new();
        if let Some(host) = &self.host {
            let image = super::facts_of(host).await?;
            verified
                .check_image(&image.digest)
                .map_err(|error| files::refused(host, error))?;
            checked.push("host");
            if self.all_components {
                // The file could be exchanged meanwhile: a protected host runs the very copy that it has hashed.
                let components = super::components_of(host).await?;
                verified
                    .check_components(&components)
                    .map_err(|error| files::refused(host, error))?;
                checked.push("components");
            }
        }
        if verified.is_development() {
            warn_of_development(&self.manifest.display().to_string());
        }
        if self.json {
            return output::document(&json!({
                "verified": true,
                "development": verified.is_development(),
                "signers": verified.signers(),
                "checked": checked,
                "manifest": form::of_manifest(verified.manifest()),
            }));
        }
        let mut lines = vec![format!(
            "verified: signed by {}",
            form::keys(verified.signers().iter().copied())
        )];
        if verified.is_development() {
            lines.push(format!("            {NO_PROTECTION}"));
        }
        lines.extend(form::lines(verified.manifest()));
        lines.push(match checked[..] {
            [] => "the program was not checked: name it with --host".into(),
            [_] => "the program is the listed one".into(),
            _ => "the program is the listed one, and so are its components".into(),
        });
        output::line(&lines.join("\n"))
    }
}
