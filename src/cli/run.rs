//! `portcullis run`: a topology from a file.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use portcullis_engine::Error;
use portcullis_engine::topology::{NodeKind, ObjectRef, Topology};

use super::failure::Failure;
use super::outputs::OutputFile;
use super::placement::PlacementArgs;
use super::play::{Clock, EventPrinter};
use super::playback::{self, Program};
use super::progress::Progress;
use super::signals::Interrupt;
use crate::{Input, MediaSessionBuilder, OpenPolicy};

/// Runs a topology: a TOML file with nodes and connections, as in examples/topology.toml.
///
/// The session may open the sources that the topology names, and write the files that its sinks name in `url`, by
/// paths that are relative to the working directory.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The file
    topology: PathBuf,
    #[command(flatten)]
    place: PlacementArgs,
    /// When samples are rendered
    #[arg(long, value_name = "CLOCK", value_enum, default_value_t)]
    clock: Clock,
    /// Prints one JSON object a line: each event, and last a `summary`
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(super) async fn run(self, interrupt: &mut Interrupt) -> Result<(), Failure> {
        let mut printer = EventPrinter::new(self.json);
        match self.play(&mut printer, interrupt).await {
            Ok(outcome) => outcome,
            Err(failure) => {
                printer.summary_of_failure(&failure)?;
                Err(failure)
            }
        }
    }

    async fn play(
        &self,
        printer: &mut EventPrinter,
        interrupt: &mut Interrupt,
    ) -> Result<Result<(), Failure>, Failure> {
        let topology = self.read()?;
        let mut files = Vec::new();
        let builder = MediaSessionBuilder::new(crate::registry(), self.place.placement()?)
            .pacing(self.clock.pacing())
            .limits(self.place.limits())
            .policy(policy(&topology, &mut files));
        let session = interrupt.or(async { Ok(builder.start().await?) }).await?;
        let mut events = session.events();
        printer.host(session.host().pid());
        printer.name_outputs(&topology);
        let program = Program {
            input: None,
            topology,
            objects: Vec::new(),
            start: None,
        };
        let progress = Progress::new(None);
        let played = playback::play(
            &session,
            &mut events,
            program,
            interrupt,
            &progress,
            |event| printer.event(event),
        )
        .await;
        let samples = played.statistics.iter().map(|output| output.counts.samples);
        if played.code() == 0 || samples.sum::<u64>() > 0 {
            files.iter_mut().for_each(OutputFile::keep);
        }
        printer.summary(&played)?;
        Ok(played.outcome())
    }

    fn read(&self) -> Result<Topology, Failure> {
        let name = self.topology.display().to_string();
        let text = std::fs::read_to_string(&self.topology)
            .map_err(|error| Error::io(name.clone(), &error))?;
        toml::from_str(&text).map_err(|error| Failure::usage(format!("{name}: {error}")))
    }
}

/// Grants what the topology names; notes the files that are written.
fn policy(topology: &Topology, files: &mut Vec<OutputFile>) -> OpenPolicy {
    let mut policy = OpenPolicy::new();
    let mut sources = BTreeSet::new();
    for node in topology.nodes() {
        match &node.kind {
            NodeKind::SourceStream {
                source: Some(ObjectRef::Url(url)),
                ..
            } if sources.insert(url.as_str()) => {
                policy.grant(url.as_str());
            }
            NodeKind::Output {
                object: ObjectRef::Activation(sink),
                ..
            } => {
                let settings: Option<serde_json::Value> =
                    serde_json::from_str(sink.settings.as_json()).ok();
                let url = settings
                    .as_ref()
                    .and_then(|settings| settings["url"].as_str());
                if let Some(url) = url {
                    policy.grant_output(url);
                    files.extend(Input::from(url).local_path().map(OutputFile::expected));
                }
            }
            _ => {}
        }
    }
    policy
}
