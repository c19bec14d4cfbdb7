//! Fails on purpose: a component for tests and demonstrations of what a host does with a failure.

use std::hint::black_box;

use portcullis_engine::{
    Component, ComponentInfo, Error, MediaType, Output, Registry, Result, Sample, Transform,
};
use serde::{Deserialize, Serialize};

pub(crate) fn register(registry: &mut Registry) {
    registry.transform::<Fault>();
}

/// How to fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FaultKind {
    /// Answer `Undecodable` for the sample, once, and go on.
    #[default]
    Error,
    /// Panic.
    Panic,
    /// Abort the process (`SIGABRT`).
    Abort,
    /// Never return.
    Spin,
    /// Recurse until the stack ends (`SIGSEGV` or `SIGABRT`).
    StackOverflow,
    /// Allocate and write memory without end.
    Memory,
    /// Exit the process with code 3, as a library that calls `exit` would.
    Exit,
}

/// When and how to fail.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultSettings {
    /// How to fail.
    pub kind: FaultKind,
    /// Samples that pass before.
    pub after: u64,
}

/// A test component: passes samples on and fails at one of them.
///
/// Everything but `error` and `panic` takes the whole process down: put it into a host.
#[derive(Debug)]
pub struct Fault {
    settings: FaultSettings,
    passed: u64,
}

impl Component for Fault {
    type Settings = FaultSettings;
    const INFO: ComponentInfo = ComponentInfo::transform(
        "synthetic.fault",
        "Test component: fails in the way that its settings say",
    );

    fn new(settings: FaultSettings) -> Result<Self> {
        Ok(Self {
            settings,
            passed: 0,
        })
    }
}

impl Transform for Fault {
    fn set_input(&mut self, input: &MediaType) -> Result<Vec<MediaType>> {
        Ok(vec![input.clone()])
    }

    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        let number = self.passed;
        self.passed = self.passed.saturating_add(1);
        if number != self.settings.after {
            output.push(input);
            return Ok(());
        }
        match self.settings.kind {
            FaultKind::Error => Err(Error::undecodable(
                "synthetic.fault",
                input.time,
                "on purpose",
            )),
            FaultKind::Panic => panic!("synthetic.fault panics on purpose at sample {number}"),
            FaultKind::Abort => std::process::abort(),
            FaultKind::Exit => std::process::exit(3),
            FaultKind::Spin => loop {
                std::hint::spin_loop();
            },
            FaultKind::StackOverflow => {
                output.push(input.with_payload(vec![recurse(number)]));
                Ok(())
            }
            FaultKind::Memory => {
                let mut blocks: Vec<Vec<u8>> = Vec::new();
                loop {
                    blocks.push(black_box(vec![1; 16 << 20]));
                }
            }
        }
    }
}

/// Recurses without end, in a way that no optimiser turns into a loop.
#[expect(
    unconditional_recursion,
    reason = "running out of stack is what it is for"
)]
fn recurse(depth: u64) -> u8 {
    let frame = black_box([depth as u8; 4096]);
    let below = recurse(depth.wrapping_add(1));
    below ^ black_box(frame)[depth as usize % 4096]
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use portcullis_engine::{ErrorKind, MediaTime};

    use super::*;

    fn sample() -> Sample {
        Sample::new(MediaTime::ZERO, MediaTime::ZERO, vec![1])
    }

    #[test]
    fn an_error_concerns_one_sample() {
        let mut fault = Fault::new(FaultSettings {
            after: 1,
            ..FaultSettings::default()
        })
        .expect("new");
        let mut output = Output::default();
        fault.process(sample(), &mut output).expect("passes");
        let error = fault.process(sample(), &mut output).expect_err("fails");
        assert!(matches!(error.kind(), ErrorKind::Undecodable { .. }));
        fault.process(sample(), &mut output).expect("goes on");
        assert_eq!(output.len(), 2);
    }

    #[test]
    fn a_panic_says_that_it_is_meant() {
        let mut fault = Fault::new(FaultSettings {
            kind: FaultKind::Panic,
            after: 0,
        })
        .expect("new");
        let panic = catch_unwind(AssertUnwindSafe(|| {
            fault.process(sample(), &mut Output::default())
        }))
        .expect_err("panics");
        let text = panic.downcast_ref::<String>().expect("a text");
        assert!(text.contains("on purpose"));
    }
}
