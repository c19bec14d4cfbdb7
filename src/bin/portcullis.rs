//! The `portcullis` command. It is its own host.

use std::process::ExitCode;

fn main() -> ExitCode {
    portcullis::host::init(portcullis::cli::bench::registry());
    portcullis::cli::main()
}
