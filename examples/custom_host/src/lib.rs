//! What the host program has: the built-in components and one of our own.

use portcullis::{Component, Output, Registry, Result, Sample, Transform};
use serde::{Deserialize, Serialize};

/// Makes sound quieter. It runs in the host, and its manifest names it as `my.quieter@2`.
#[derive(Debug, Serialize, Deserialize, Component)]
#[component(
    transform,
    class = "my.quieter",
    about = "Divides sound by a whole number",
    version = 2,
    accepts = [PCM_S16],
    produces = [PCM_S16]
)]
#[serde(deny_unknown_fields)]
pub struct Quieter {
    /// What values are divided by; 0 counts as 1.
    pub by: i16,
}

impl Transform for Quieter {
    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        let by = self.by.max(1);
        output.push(input.map_i16(|value| value / by));
        Ok(())
    }
}

/// The registry of `my-host`.
pub fn registry() -> Registry {
    portcullis::builtin().with_transform::<Quieter>()
}
