//! What the command logs to standard error. Hosts log what RUST_LOG says.

use std::io;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Has warnings about hosts shown where nothing else is asked for.
pub(super) fn warn_of_hosts() {
    print(Targets::new().with_target("portcullis_actors::host", Level::WARN));
}

/// Starts logging, if it is asked for by `-v` or RUST_LOG.
pub(super) fn start(verbose: u8) {
    let wanted = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty());
    let targets = match (wanted.map(|text| text.parse::<Targets>()), verbose) {
        (Some(Ok(targets)), _) => targets,
        (Some(Err(error)), _) => {
            eprintln!("portcullis: RUST_LOG: {error}");
            return;
        }
        (None, 0) => return,
        (None, 1) => Targets::new().with_default(Level::INFO),
        (None, 2) => Targets::new().with_default(Level::DEBUG),
        (None, _) => Targets::new().with_default(Level::TRACE),
    };
    print(targets);
}

fn print(targets: Targets) {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(false);
    // Where there is one already, more was asked for, or this is a test.
    let _ = tracing_subscriber::registry()
        .with(targets)
        .with(lines)
        .try_init();
}
