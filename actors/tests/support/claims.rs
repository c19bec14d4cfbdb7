//! What a test program with a `main` of its own needs: it runs its claims by name, each within a deadline.

use std::future::Future;
use std::time::Duration;

/// Longer than anything takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Runs claims, of which the command line may name some.
pub(crate) struct Claims {
    wanted: Vec<String>,
    failed: u32,
}

impl Claims {
    pub(crate) fn of_command_line() -> Self {
        let arguments = std::env::args().skip(1);
        Self {
            wanted: arguments.filter(|arg| !arg.starts_with('-')).collect(),
            failed: 0,
        }
    }

    pub(crate) fn run(&mut self, name: &str, claim: fn()) {
        let is_wanted = |wanted: &String| name.contains(wanted.as_str());
        if !self.wanted.is_empty() && !self.wanted.iter().any(is_wanted) {
            return;
        }
        let outcome = std::panic::catch_unwind(claim);
        let said = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {said}");
        self.failed += u32::from(outcome.is_err());
    }

    /// Fails the program if a claim has failed.
    pub(crate) fn end(self) {
        if self.failed > 0 {
            std::process::exit(1);
        }
    }
}

/// Runs a test to its end, or fails it.
pub(crate) fn within_deadline<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(DEADLINE, test)
            .await
            .expect("within the deadline")
    })
}
