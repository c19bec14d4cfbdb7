//! Where a command's pipeline runs, and what its content may ask for.

use clap::{Args, ValueEnum};
use portcullis_engine::ContentLimits;

use crate::{Placement, SourceSide};

/// Where the pipeline runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum PlacementName {
    /// In this process: a crash of a parser or decoder is a crash of the command
    InProcess,
    /// In a process of its own, not yet sandboxed: a crash there is an error here
    #[default]
    Isolated,
}

impl PlacementName {
    pub(super) fn placement(self) -> Placement {
        match self {
            Self::InProcess => Placement::InProcess,
            Self::Isolated => Placement::isolated(),
        }
    }
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

/// `--placement` and the limits.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct PlacementArgs {
    /// Where the pipeline runs
    #[arg(long, value_name = "WHERE", value_enum, default_value_t)]
    placement: PlacementName,
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
    pub(super) fn placement(&self) -> Placement {
        self.placement.placement()
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
