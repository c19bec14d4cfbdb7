//! Standard output, where nobody may be reading any more.

use std::io::{self, Write};

use serde_json::Value;

use super::failure::Failure;

/// Prints one line at once.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output("standard output", error))
}

/// Prints an indented JSON document.
pub(super) fn document(value: &Value) -> Result<(), Failure> {
    line(&format!("{value:#}"))
}
