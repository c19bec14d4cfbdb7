//! Where a command's pipeline runs, and what its content may ask for.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use portcullis_engine::{ContentLimits, Error, ErrorKind};

use super::failure::Failure;
use super::{log, trust};
use crate::host::{Host, ProtectedHost, SandboxPolicy, Trust};
use crate::{Placement, SourceSide};

/// Where the pipeline runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum PlacementName {
    /// In this process: a crash of a parser or decoder is a crash of the command
    InProcess,
    /// In a sandboxed process of its own: a crash there is an error here
    #[default]
    Isolated,
    /// In a sandboxed process whose program is verified; clear samples still come back to this command
    Protected,
}

/// What happens when this machine lacks a layer of the sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum SandboxName {
    /// The host does not start
    #[default]
    Require,
    /// The host starts without the layer, and a warning names it. Not for protected hosts
    BestEffort,
}

/// On which side of the wall a source is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum SourceName {
    /// In this process; its compressed samples cross to the host
    App,
    /// Where the pipeline runs: parsing is the danger
    #[default]
    Host,
}

impl SourceName {
    pub(super) fn side(self) -> SourceSide {
        match self {
            Self::App => SourceSide::Application,
            Self::Host => SourceSide::Host,
        }
    }
}

/// `--placement`, and what the host has to be.
#[derive(Clone, Debug, Args)]
pub(super) struct HostArgs {
    /// Where the pipeline runs
    #[arg(long, value_name = "WHERE", value_enum, default_value_t)]
    pub(super) placement: PlacementName,
    /// What happens when this machine lacks a layer of the sandbox (see `portcullis host check`)
    #[arg(
        long,
        value_name = "POLICY",
        value_enum,
        default_value_t,
        help_heading = "Host"
    )]
    sandbox: SandboxName,
    /// Another host program than this one
    #[arg(long, value_name = "PROGRAM", help_heading = "Host")]
    host_program: Option<PathBuf>,
    /// The signed manifest of a protected host. Without one its program is not verified, which a warning says
    #[arg(long, value_name = "FILE", requires = "roots", help_heading = "Host")]
    manifest: Option<PathBuf>,
    /// The file of a public key that may have signed the manifest; may be given again
    #[arg(
        long = "root",
        value_name = "FILE",
        requires = "manifest",
        help_heading = "Host"
    )]
    roots: Vec<PathBuf>,
}

impl HostArgs {
    pub(super) fn placement(&self) -> Result<Placement, Failure> {
        let host = match &self.host_program {
            None => Host::current(),
            // The whole path: a bare name would be looked for elsewhere.
            Some(program) => Host::program(program.canonicalize().map_err(|error| {
                let why = format!("{}: {error}", program.display());
                Error::new(ErrorKind::HostStart(why.into()))
            })?),
        };
        if self.placement == PlacementName::Protected && self.sandbox == SandboxName::BestEffort {
            return Err(Failure::usage(
                "--sandbox best-effort is not for protected hosts, whose sandbox is complete",
            ));
        }
        if self.placement != PlacementName::Protected && self.manifest.is_some() {
            return Err(Failure::usage(
                "--manifest is for protected hosts: --placement protected",
            ));
        }
        if self.placement == PlacementName::InProcess && self.host_program.is_some() {
            return Err(Failure::usage(
                "--host-program: there is no host in --placement in-process",
            ));
        }
        let host = host.sandbox(match self.sandbox {
            SandboxName::Require => SandboxPolicy::Require,
            SandboxName::BestEffort => {
                log::warn_of_hosts();
                SandboxPolicy::BestEffort
            }
        });
        Ok(match self.placement {
            PlacementName::InProcess => Placement::InProcess,
            PlacementName::Isolated => Placement::Isolated(host),
            PlacementName::Protected => {
                Placement::Protected(ProtectedHost::new(host, self.trust()?))
            }
        })
    }

    fn trust(&self) -> Result<Trust, Failure> {
        let Some(manifest) = &self.manifest else {
            trust::warn_of_development("protected host without a manifest");
            return Ok(Trust::development());
        };
        let roots = trust::roots(&self.roots)?;
        Ok(Trust::file(manifest, roots))
    }
}

/// The placement and the limits.
#[derive(Clone, Debug, Args)]
pub(super) struct PlacementArgs {
    #[command(flatten)]
    host: HostArgs,
    /// Pixels that one picture may have
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_pixels: Option<u64>,
    /// Streams that the input may have
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_tracks: Option<u32>,
    /// Samples that may come out
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_samples: Option<u64>,
    /// Bytes that may come out of decoders
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_output_bytes: Option<u64>,
}

impl PlacementArgs {
    pub(super) fn placement(&self) -> Result<Placement, Failure> {
        self.host.placement()
    }

    pub(super) fn limits(&self) -> ContentLimits {
        let limits = ContentLimits::default();
        ContentLimits {
            max_pixels: self.max_pixels.unwrap_or(limits.max_pixels),
            max_tracks: self.max_tracks.unwrap_or(limits.max_tracks),
            max_samples: self.max_samples.unwrap_or(limits.max_samples),
            max_output_bytes: self.max_output_bytes.unwrap_or(limits.max_output_bytes),
            ..limits
        }
    }
}

/// `--source`.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct SourceArgs {
    /// On which side of the wall the container is parsed
    #[arg(long, value_name = "SIDE", value_enum, default_value_t)]
    source: SourceName,
}

impl SourceArgs {
    pub(super) fn side(&self) -> SourceSide {
        self.source.side()
    }
}
