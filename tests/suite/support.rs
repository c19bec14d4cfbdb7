//! What the areas share: placements, media, deadlines, processes.

pub(crate) mod media;
pub(crate) mod outcome;
pub(crate) mod process;
pub(crate) mod session;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis::host::{Host, ProtectedHost, Trust};
use portcullis::{Input, Placement, SourceReaderBuilder, SourceSide};

/// How long anything may take that is not a whole corpus.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where a claim is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Everything in this process.
    InProcess,
    /// The session in a host, with its source.
    IsolatedSourceInHost,
    /// The session in a host, its source here.
    IsolatedSourceInApp,
    /// The session and its source in a host with the complete sandbox.
    Protected,
}

impl Place {
    pub(crate) const ALL: [Self; 4] = [
        Self::InProcess,
        Self::IsolatedSourceInHost,
        Self::IsolatedSourceInApp,
        Self::Protected,
    ];

    pub(crate) fn placement(self) -> Placement {
        self.placement_in(host())
    }

    /// The same with another host program.
    pub(crate) fn placement_in(self, host: Host) -> Placement {
        match self {
            Self::InProcess => Placement::InProcess,
            Self::IsolatedSourceInHost | Self::IsolatedSourceInApp => Placement::Isolated(host),
            Self::Protected => Placement::Protected(ProtectedHost::new(host, Trust::development())),
        }
    }

    pub(crate) fn side(self) -> SourceSide {
        match self {
            Self::IsolatedSourceInApp => SourceSide::Application,
            Self::InProcess | Self::IsolatedSourceInHost | Self::Protected => SourceSide::Host,
        }
    }

    pub(crate) fn is_in_host(self) -> bool {
        self != Self::InProcess
    }

    /// A reader of this input.
    pub(crate) fn open(self, input: impl Into<Input>) -> SourceReaderBuilder {
        portcullis::open(input)
            .placement(self.placement())
            .source_side(self.side())
    }
}

/// The host program.
pub(crate) fn host() -> Host {
    Host::program(env!("CARGO_BIN_EXE_portcullis-host"))
}

/// Runs a test on an executor of many threads, as an application has, within the deadline.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    run_for(DEADLINE, test)
}

/// The same with a deadline of its own.
pub(crate) fn run_for<T>(deadline: Duration, test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let outcome = runtime.block_on(async { tokio::time::timeout(deadline, test).await });
    // A blocked read of standard input or a pipe must not keep the test.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|_| panic!("not within {deadline:?}"))
}

/// Waits until something is so, asking again and again; for what has no event to wait for, such as the table of processes.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let asked = async {
        let mut again = tokio::time::interval(Duration::from_millis(5));
        while !so() {
            again.tick().await;
        }
    };
    if tokio::time::timeout(DEADLINE, asked).await.is_err() {
        panic!("never: {what}");
    }
}

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An example program, which `cargo test` has built.
pub(crate) fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.push("examples");
    path.push(name);
    assert!(
        path.is_file(),
        "{} is not built: run `cargo build --examples` first",
        path.display()
    );
    path
}

/// The workspace's target directory: where programs are built for a named target, cargo's folder is one of that target.
pub(crate) fn target_directory() -> &'static Path {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let name = folder.file_name().unwrap().to_string_lossy();
    if name.contains("-linux-") {
        folder.parent().unwrap()
    } else {
        folder
    }
}
