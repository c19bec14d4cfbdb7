//! What a user of Portcullis sees, area by area.
//!
//! One program: claims run in every placement (`support::Place`), with deadlines instead of sleeps. The test program
//! cannot be its own host (the harness owns `main`), so hosts are `portcullis-host` or an example program.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

mod architecture;
mod bad_input;
mod bridge_host;
mod cli;
mod components;
mod corpus;
mod custom_host;
mod examples;
mod external_crate;
mod host_lifetime;
mod host_loss;
mod hostile_component;
mod reader;
mod session;
mod trust;
