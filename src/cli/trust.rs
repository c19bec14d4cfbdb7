//! `portcullis trust`: keys, signed manifests of host programs, and their checks.

mod files;
mod form;
mod inspect;
mod keygen;
mod sign;
mod verify;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use portcullis_engine::Error;
use portcullis_engine::trust::{ClassVersion, TrustRoots, UnixTime};

use super::failure::Failure;
use crate::host::{DescribeHost, Host, ProgramFacts};

/// Makes keys, signs host programs, and checks what is signed.
///
/// A protected host starts only from a program whose signed manifest verifies against the keys that the application trusts.
#[derive(Debug, Args)]
pub(super) struct Trust {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Keygen(keygen::Keygen),
    Sign(sign::Sign),
    Verify(verify::Verify),
    Inspect(inspect::Inspect),
}

impl Trust {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Keygen(keygen) => keygen.run(),
            Command::Sign(sign) => sign.run().await,
            Command::Verify(verify) => verify.run().await,
            Command::Inspect(inspect) => inspect.run(),
        }
    }

    pub(super) fn is_json(&self) -> bool {
        match &self.command {
            Command::Keygen(keygen) => keygen.json,
            Command::Sign(sign) => sign.json,
            Command::Verify(verify) => verify.json,
            Command::Inspect(inspect) => inspect.json,
        }
    }
}

fn now() -> UnixTime {
    // A clock before 1970 makes every manifest one of the future, which is refused.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixTime(since.map_or(0, |since| since.as_secs()))
}

/// What a host program's file is.
async fn facts_of(program: &Path) -> Result<ProgramFacts, Failure> {
    let name = program.display().to_string();
    if let Err(error) = program.metadata() {
        return Err(Failure::from(Error::io(name, &error)));
    }
    let refused = |error: Error| Failure::usage(error.to_string());
    crate::host::inspect(program).await.map_err(refused)
}

/// The components of a host program, by its own word: it is started in an isolated host and asked.
async fn components_of(program: &Path) -> Result<Vec<ClassVersion>, Failure> {
    let name = program.display().to_string();
    // The whole path: a bare name would be looked for elsewhere.
    let path = program
        .canonicalize()
        .map_err(|error| Error::io(name.clone(), &error))?;
    let asked = async {
        let host = Host::program(path).start().await?;
        host.pmp_host().send(DescribeHost).await
    };
    let facts = asked
        .await
        .map_err(|error| Failure::from(error).of_input(&name))?;
    Ok(facts.components)
}

/// Said wherever a development key is used.
const NO_PROTECTION: &str = "development key: no protection";

/// The keys in these files, to believe.
pub(super) fn roots(paths: &[PathBuf]) -> Result<TrustRoots, Failure> {
    files::roots(paths, false)
}

pub(super) fn warn_of_development(what: &str) {
    eprintln!("portcullis: {what}: {NO_PROTECTION}");
    tracing::warn!(what, "{NO_PROTECTION}");
}
