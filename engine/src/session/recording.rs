//! What a session was told, to be told again.

use serde::{Deserialize, Serialize};

use super::{Effect, Input, SessionMachine};
use crate::clock::SystemTime100ns;
use crate::error::Result;

/// One input with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedInput {
    /// When.
    pub now: SystemTime100ns,
    /// What.
    pub input: Input,
}

/// The inputs of one session in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Recording(Vec<RecordedInput>);

impl Recording {
    /// An empty recording.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes one input; the machine is told the same.
    pub fn push(&mut self, input: Input, now: SystemTime100ns) {
        self.0.push(RecordedInput { now, input });
    }

    /// The inputs.
    pub fn inputs(&self) -> &[RecordedInput] {
        &self.0
    }

    /// What a fresh machine answers to each input.
    pub fn replay(&self) -> Vec<Result<Vec<Effect>>> {
        let mut machine = SessionMachine::new();
        self.0
            .iter()
            .map(|step| machine.handle(step.input.clone(), step.now))
            .collect()
    }
}
