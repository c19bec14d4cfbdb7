//! Sessions in every placement, with tiny components: what they do, and that nothing of them is left when they are gone.
//!
//! This program is its own host, so it has a `main` of its own: `host::init` must come before any thread.

mod components;
mod leaks;
mod reading;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use portcullis_actors::client::{MediaSession, MediaSessionBuilder, Placement};
use portcullis_actors::pipeline::session::Pacing;
use portcullis_engine::Settings;
use portcullis_engine::StreamId;
use portcullis_engine::topology::{NodeKind, ObjectRef, Topology};

use components::CounterSettings;

fn main() {
    portcullis_actors::host::init(components::registry());
    let wanted: Vec<_> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let mut failed = 0;
    let mut run = |name: &str, claim: fn()| {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| name.contains(wanted)) {
            return;
        }
        let outcome = std::panic::catch_unwind(claim);
        println!(
            "test {name} ... {}",
            if outcome.is_ok() { "ok" } else { "FAILED" }
        );
        failed += i32::from(outcome.is_err());
    };
    leaks::claims(&mut run);
    reading::claims(&mut run);
    if failed > 0 {
        std::process::exit(1);
    }
}

/// The placements that every claim holds in.
fn placements() -> [Placement; 2] {
    [Placement::InProcess, Placement::isolated()]
}

/// Runs a test to its end, or fails it.
fn within_deadline<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test)
            .await
            .expect("within the deadline")
    })
}

/// Waits for a state that nothing announces.
async fn eventually(what: &str, mut reached: impl FnMut() -> bool) {
    let reach = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reach)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

fn builder(placement: &Placement) -> MediaSessionBuilder {
    MediaSessionBuilder::new(Arc::new(components::registry()), placement.clone())
        .pacing(Pacing::Presentation)
}

async fn session(placement: &Placement) -> MediaSession {
    builder(placement).start().await.expect("a session")
}

/// A counter, a transform and a sink.
fn topology(samples: u64) -> Topology {
    let settings = Settings::of(&CounterSettings { samples }).expect("is JSON");
    let mut topology = Topology::new();
    let counter = ObjectRef::with_settings("test.counter", settings);
    let source = topology.add_node(NodeKind::source(counter, StreamId(0)));
    let pass = topology.add_node(NodeKind::transform(ObjectRef::activation("test.pass")));
    let sink = topology.add_node(NodeKind::output(ObjectRef::activation("test.null"), 0));
    topology
        .connect(source, 0, pass, 0)
        .expect("both are there");
    topology.connect(pass, 0, sink, 0).expect("both are there");
    topology
}
