//! The `portcullis` command. It is its own host.

use std::process::ExitCode;

fn main() -> ExitCode {
    portcullis::cli::bench::init_host();
    portcullis::cli::main()
}
