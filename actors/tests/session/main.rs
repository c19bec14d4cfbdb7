//! Sessions in every placement, with tiny components: what they do, and that nothing of them is left when they are gone.
//!
//! This program is its own host, so it has a `main` of its own: `host::init` must come before any thread.

#[path = "../support/claims.rs"]
mod claims;
mod components;
mod leaks;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use portcullis_actors::client::{MediaSession, MediaSessionBuilder, Placement};
use portcullis_actors::pipeline::session::Pacing;
use portcullis_engine::Settings;
use portcullis_engine::StreamId;
use portcullis_engine::topology::{NodeKind, ObjectRef, Topology};

use claims::{Claims, within_deadline};
use components::CounterSettings;

fn main() {
    portcullis_actors::host::init(components::registry());
    let mut claims = Claims::of_command_line();
    let mut run = |name: &str, claim: fn()| claims.run(name, claim);
    leaks::claims(&mut run);
    reading::claims(&mut run);
    claims.end();
}

/// The placements that every claim holds in.
fn placements() -> [Placement; 2] {
    [Placement::InProcess, Placement::isolated()]
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
