//! `portcullis components`: what this program can create.

use clap::Args;
use portcullis_engine::Subtype;
use serde_json::{Value, json};

use super::failure::Failure;
use super::output;

/// Lists the components that topologies can use.
#[derive(Debug, Args)]
pub(super) struct Components {
    /// Prints a JSON array
    #[arg(long)]
    json: bool,
}

impl Components {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let registry = crate::registry();
        let infos: Vec<_> = registry
            .components()
            .iter()
            .map(|entry| *entry.info())
            .collect();
        if self.json {
            let list: Result<Vec<Value>, _> = infos.iter().map(serde_json::to_value).collect();
            let list = list.map_err(|error| Failure::output("components", error.into()))?;
            return output::document(&json!(list));
        }
        let mut lines = Vec::new();
        for info in infos {
            lines.push(format!(
                "{:<22} {:<20} {}",
                info.class, info.role, info.about
            ));
            let flow = match (info.accepts, info.produces) {
                ([], []) => continue,
                (accepts, []) => names(accepts),
                (accepts, produces) => format!("{} -> {}", names(accepts), names(produces)),
            };
            lines.push(format!("{:<22} {:<20} {flow}", "", ""));
        }
        output::line(&lines.join("\n"))
    }
}

fn names(subtypes: &[Subtype]) -> String {
    let names: Vec<_> = subtypes.iter().map(Subtype::name).collect();
    names.join(" ")
}
