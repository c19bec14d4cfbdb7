//! `portcullis host`: what this machine can give to hosts.

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::Failure;
use super::output;
use crate::host::{Isolation, LayerState, SandboxProfile};

/// Says what this machine can give to host processes.
#[derive(Debug, Args)]
pub(super) struct HostCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Check),
}

/// Tries each layer of the sandbox and says which this machine gives, and why not.
///
/// Exits with 6 if an isolated host would not start with all that it requires.
#[derive(Debug, Args)]
struct Check {
    /// Prints a JSON object
    #[arg(long)]
    json: bool,
}

/// The exit code of a host that cannot start.
const CANNOT_START: u8 = 6;

impl HostCommand {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Command::Check(check) = self.command;
        let isolation = crate::host::check().await?;
        if check.json {
            output::document(&document(&isolation))?;
        } else {
            output::line(&text(&isolation))?;
        }
        match isolation.is_complete(SandboxProfile::Isolated) {
            true => Ok(()),
            false => Err(Failure::Told(CANNOT_START)),
        }
    }

    pub(super) fn is_json(&self) -> bool {
        let Command::Check(check) = &self.command;
        check.json
    }
}

const KINDS: [SandboxProfile; 2] = [SandboxProfile::Isolated, SandboxProfile::Protected];

fn document(isolation: &Isolation) -> serde_json::Value {
    let layers: Vec<_> = isolation
        .layers
        .iter()
        .map(|report| {
            let (is_given, why) = match &report.state {
                LayerState::InForce => (true, None),
                LayerState::NotAsked => (false, Some("not tried")),
                LayerState::Missing(why) => (false, Some(why.as_ref())),
            };
            let required = KINDS.map(|kind| report.layer.is_required(kind).then(|| kind.name()));
            json!({
                "layer": report.layer,
                "given": is_given,
                "why_not": why,
                "abi": report.abi,
                "required_for": required.into_iter().flatten().collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "isolated": isolation.is_complete(SandboxProfile::Isolated),
        "protected": isolation.is_complete(SandboxProfile::Protected),
        "layers": layers,
    })
}

fn text(isolation: &Isolation) -> String {
    let mut lines = Vec::new();
    for report in &isolation.layers {
        let state = match &report.state {
            LayerState::InForce => match report.abi {
                Some(abi) => format!("yes (ABI {abi})"),
                None => "yes".to_owned(),
            },
            LayerState::NotAsked => "not tried".to_owned(),
            LayerState::Missing(why) => format!("no: {why}"),
        };
        lines.push(format!("{:<20} {state}", report.layer.name()));
    }
    for kind in KINDS {
        let can = if isolation.is_complete(kind) {
            "can start here"
        } else {
            "cannot start here"
        };
        lines.push(format!("{} hosts {can}", kind.name()));
    }
    lines.join("\n")
}
