//! What a host can do to the rest of the machine, shown by trying it: each attack in a host of its own, made as any host
//! is, with no sandbox (it must succeed), with each layer alone, and with all of them (it must be refused).
//!
//! Attacks run only inside user, mount, process, network, IPC, UTS and control-group surroundings that this program makes
//! itself and that vanish with it (`jail`). Where the kernel gives none nothing is tried, and that is said.
//!
//! `cargo test -p portcullis-transport --test attack_matrix` tries no sandbox and the whole one, and 100 races of a
//! debugger. `PORTCULLIS_ATTACKS=all` tries every layer alone too and 1,000 races, in some minutes; an argument leaves out
//! the attacks whose names do not contain it. The table is printed and written to `target/attack-matrix.md`.
//!
//! `unsafe` is allowed here, as nowhere else in tests: an attacker makes any system call with any arguments.

#![allow(clippy::unwrap_used, unsafe_code, reason = "attacks are raw calls")]

mod application;
mod attacks;
mod debugger;
mod jail;
mod table;

use std::process::ExitCode;

/// What this process is; none of these for the test itself.
const STAGE: &str = "PORTCULLIS_ATTACK_STAGE";

/// Whether every layer is tried alone.
fn is_whole() -> bool {
    std::env::var("PORTCULLIS_ATTACKS").is_ok_and(|which| which == "all")
}

/// The one word that attacks' names must contain.
fn filter() -> Option<String> {
    std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
}

fn main() -> ExitCode {
    match std::env::var(STAGE).as_deref() {
        Err(_) => jail::run(),
        Ok("application") => application::main(),
        Ok("host") => attacks::host_main(),
        Ok("victim") => loop {
            std::thread::park();
        },
        Ok("set-user-id program") => attacks::privileged_main(),
        Ok("racer") => debugger::racer_main(),
        Ok("secretive") => debugger::secretive_main(),
        Ok(other) => panic!("no stage {other}"),
    }
}
