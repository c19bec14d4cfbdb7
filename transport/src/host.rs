//! Host processes: starting one, talking to it, knowing how it ended.
//!
//! A host gets exactly two descriptors beyond its standard streams: its end of a Unix socket pair, and a pipe for a last
//! note about its end. It has a process group of its own (a terminal's interrupt is for the application), an empty standard
//! input, an environment of a few named variables, and dies with the application: the kernel kills it when the launcher
//! thread goes, and its link ends. What else is kept from it says its [`Sandbox`](crate::Sandbox).

mod birth;
mod check;
mod control_group;
mod elf;
mod endpoint;
mod exit;
mod image;
mod launch;
mod pipes;
mod plan;
mod spare_network;
mod watch;

pub use check::check;
pub use endpoint::{HostEndpoint, SOCKET_VARIABLE, endpoint, pid, serve, settle};
pub use exit::{
    BlockedCall, ExitCause, HostExit, MAX_LAST_WORDS_BYTES, MAX_LAST_WORDS_LINES, Quota,
};
pub use image::{HostImage, ImageFacts, ImageSource, ProgramFacts, inspect};
pub use launch::{HostCommand, HostProgram};
pub use watch::HostProcess;
