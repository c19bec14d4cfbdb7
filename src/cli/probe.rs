//! `portcullis probe`: what an input offers.

mod form;
mod human;

use std::path::PathBuf;

use clap::Args;

use super::arguments;
use super::failure::Failure;
use super::output;
use super::placement::PlacementArgs;
use crate::SourceReaderBuilder;

/// Shows the streams of a file, with ffprobe's names.
#[derive(Debug, Args)]
pub(super) struct Probe {
    /// A path, a file: URL, or - for standard input
    file: PathBuf,
    /// Prints one JSON object with `format` and `streams`: ffprobe's keys, and its forms of values
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    place: PlacementArgs,
}

/// What a probe knows of the input itself.
#[derive(Debug)]
struct File {
    name: String,
    size: Option<u64>,
}

impl Probe {
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let input = arguments::input(&self.file)?;
        let size = std::fs::metadata(&self.file)
            .ok()
            .filter(std::fs::Metadata::is_file)
            .map(|file| file.len());
        let name = self.file.display().to_string();
        let file = File { name, size };
        let reader = SourceReaderBuilder::new(crate::registry(), self.place.placement()?, input)
            .limits(self.place.limits())
            .open()
            .await?;
        if self.json {
            output::document(&form::document(&file, reader.presentation()))
        } else {
            output::line(&human::text(&file, reader.presentation()))
        }
    }
}
