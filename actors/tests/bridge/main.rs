//! The bridged mailbox between real processes, with actors that have nothing to do with media.
//!
//! This program is its own host, so it has a `main` of its own: `host::init_actor` must come before any thread.

// What the derive macros write names the facade.
extern crate portcullis_actors as portcullis;

mod hosts;
mod kill;
mod lab;
mod spans;
mod traced;

use std::future::Future;
use std::time::Duration;

use portcullis_actors::bridge::{Handle, InterfaceTable};
use portcullis_actors::host::init_actor_with;

fn main() {
    // The same on both sides of the wall.
    spans::collect();
    let table = InterfaceTable::new().with::<lab::Lab>();
    init_actor_with(
        table,
        || Handle::<lab::Lab>::start(lab::LabActor::default()),
    );
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
    hosts::claims(&mut run);
    traced::claims(&mut run);
    kill::claims(&mut run);
    if failed > 0 {
        std::process::exit(1);
    }
}

/// Runs a test to its end, or fails it.
fn within_deadline<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(120), test)
            .await
            .expect("within the deadline")
    })
}
