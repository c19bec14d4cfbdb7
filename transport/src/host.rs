//! Host processes: starting one, talking to it, knowing how it ended.
//!
//! A host gets exactly one descriptor beyond its standard streams: its end of a Unix socket pair. It has a process group of
//! its own (a terminal's interrupt is for the application), an empty standard input, an environment of a few named
//! variables, and dies with the application: the kernel kills it when the launcher thread goes, and its link ends.

mod endpoint;
mod exit;
mod launch;
mod watch;

pub use endpoint::{SOCKET_VARIABLE, endpoint};
pub use exit::{ExitCause, HostExit, MAX_LAST_WORDS_BYTES, MAX_LAST_WORDS_LINES};
pub use launch::{HostCommand, HostProgram};
pub use watch::HostProcess;
