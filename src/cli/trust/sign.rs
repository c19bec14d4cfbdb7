//! `portcullis trust sign`: a signed manifest of a host program.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use portcullis_engine::Error;
use portcullis_engine::trust::{
    ClassVersion, Envelope, HostEntry, MANIFEST_TYPE, Manifest, PrivateKey,
};
use serde_json::json;

use super::{files, form, warn_of_development};
use crate::cli::failure::Failure;
use crate::cli::output;

/// Signs a host program: which one it is, which components it may offer, and for how long that holds.
#[derive(Debug, Args)]
pub(super) struct Sign {
    /// The file of the private key
    #[arg(long, value_name = "FILE", required_unless_present = "development_key")]
    key: Option<PathBuf>,
    /// Signs with the development key that everybody has: tries out everything, protects nothing
    #[arg(long, conflicts_with = "key")]
    development_key: bool,
    /// The host program
    #[arg(long, value_name = "PROGRAM")]
    host: PathBuf,
    /// A component that the program may offer; may be given again
    #[arg(
        long = "component",
        value_name = "CLASS@VERSION",
        required_unless_present = "all_components"
    )]
    components: Vec<ClassVersion>,
    /// Every component that the program has: starts it in an isolated host and asks it. Only for a program that you built
    #[arg(long)]
    all_components: bool,
    /// The program's name [default: that of its file]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The manifest's version, which must grow from one to the next [default: seconds since 1970]
    #[arg(long, value_name = "N")]
    manifest_version: Option<u64>,
    /// For how long the signature holds, such as 90d or 12h
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = validity)]
    expires: Duration,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Prints a JSON object
    #[arg(long)]
    pub(super) json: bool,
}

impl Sign {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let key = match &self.key {
            Some(path) => files::private_key(path)?,
            None => PrivateKey::development(),
        };
        let image = super::facts_of(&self.host).await?;
        let host = self.host.display().to_string();
        if !image.is_static {
            eprintln!(
                "portcullis: {host}: needs a loader, so it can be an isolated host but no protected one; link it statically"
            );
        }
        let mut components = self.components;
        if self.all_components {
            let all = super::components_of(&self.host).await?;
            // What was named keeps its version: the program is asked only for the others.
            let unnamed = all
                .into_iter()
                .filter(|found| components.iter().all(|named| named.class != found.class));
            components.extend(unnamed.collect::<Vec<_>>());
        }
        components.sort();
        let name = match self.name {
            Some(name) => name,
            None => {
                let name = self.host.file_name().unwrap_or_default();
                name.to_string_lossy().into_owned()
            }
        };
        let issued = super::now();
        let development = key.public().is_development();
        let manifest = Manifest {
            name,
            version: self.manifest_version.unwrap_or(issued.0),
            issued,
            expires: issued.after(self.expires),
            host: HostEntry::new(image.digest, image.target),
            components,
            development,
            min_revocation_version: None,
        };
        let signed = manifest
            .to_json()
            .and_then(|payload| Envelope::sign(MANIFEST_TYPE, payload, &[&key]))
            .map_err(|error| Failure::usage(Error::from(error).to_string()))?;
        let path = self.output.display().to_string();
        std::fs::write(&self.output, signed.to_json())
            .map_err(|error| Failure::output(path.as_str(), error))?;
        if development {
            warn_of_development(&path);
        }
        let signer = key.public().id();
        if self.json {
            return output::document(&json!({
                "output": self.output,
                "signers": [signer],
                "development": development,
                "manifest": form::of_manifest(&manifest),
            }));
        }
        let mut lines = vec![format!("{path}: signed by {signer}")];
        lines.extend(form::lines(&manifest));
        output::line(&lines.join("\n"))
    }
}

/// A length of time in whole days, hours, minutes or seconds.
fn validity(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text}: expected a time such as 90d, 12h, 30m or 10s");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "d" => 86_400,
        "h" => 3600,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validities_are_whole_and_have_units() {
        for (text, seconds) in [
            ("90d", 7_776_000),
            ("12h", 43_200),
            ("30m", 1800),
            ("1s", 1),
        ] {
            assert_eq!(validity(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "90",
            "d",
            "0d",
            "-1d",
            "1.5d",
            "1w",
            "99999999999999999999d",
            "1é",
        ] {
            assert!(validity(text).is_err(), "{text}");
        }
    }
}
