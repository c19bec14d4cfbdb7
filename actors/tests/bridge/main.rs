//! The bridged mailbox between real processes, with actors that have nothing to do with media.
//!
//! This program is its own host, so it has a `main` of its own: `host::init_actor` must come before any thread.

// What the derive macros write names the facade.
extern crate portcullis_actors as portcullis;

#[path = "../support/claims.rs"]
mod claims;
mod hosts;
mod kill;
mod lab;
mod spans;
mod traced;

use claims::Claims;
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
    let mut claims = Claims::of_command_line();
    let mut run = |name: &str, claim: fn()| claims.run(name, claim);
    hosts::claims(&mut run);
    traced::claims(&mut run);
    kill::claims(&mut run);
    claims.end();
}
