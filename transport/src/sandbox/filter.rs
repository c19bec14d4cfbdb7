//! The filters of system calls: small data files, compiled in the host when it starts.
//!
//! A line is `allow NAMES` or `errno NAME NAMES`, perhaps with `when argN == V` or `when argN & MASK == V` (the low half of
//! an argument, which is all that the kernel reads of an `int`; `ptrN` is the whole of it; several with `and`), perhaps with
//! `@ARCH` for calls that only one architecture has, or `include FILE`; `#` begins a comment. Several lines for one call add
//! up; where an `errno` line matches as well as an `allow` line, the error holds. Everything else is trapped, so that the
//! host can say which call it was.
//!
//! One program for each stage, a search tree over the numbers of calls: when a program is put on, the kernel compiles it and
//! walks through it once for every call that there is, which is most of what a filter costs a start.

mod assemble;
mod rules;

use libc::sock_filter;

use super::SandboxProfile;
use crate::error::TransportError;

/// When a filter is put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// While the host starts.
    Start,
    /// Before it serves.
    Serve,
}

const FILES: &[(&str, &str)] = &[
    ("files", include_str!("filters/files.filter")),
    ("serve", include_str!("filters/serve.filter")),
    ("start", include_str!("filters/start.filter")),
    (
        "isolated.start",
        include_str!("filters/isolated.start.filter"),
    ),
    (
        "isolated.serve",
        include_str!("filters/isolated.serve.filter"),
    ),
    (
        "protected.start",
        include_str!("filters/protected.start.filter"),
    ),
    (
        "protected.serve",
        include_str!("filters/protected.serve.filter"),
    ),
];

/// The program of a profile's stage.
pub(crate) fn program(
    profile: SandboxProfile,
    stage: Stage,
) -> Result<Vec<sock_filter>, TransportError> {
    let stage = match stage {
        Stage::Start => "start",
        Stage::Serve => "serve",
    };
    let name = format!("{}.{stage}", profile.name());
    rules::read(&name, FILES)
        .and_then(|rules| assemble::program(&rules))
        .map_err(|text| TransportError::io(format!("compile the filter {name}"), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_compiles() {
        for profile in [SandboxProfile::Isolated, SandboxProfile::Protected] {
            let [start, serve] = [Stage::Start, Stage::Serve].map(|stage| {
                let program = program(profile, stage).unwrap();
                program.len()
            });
            assert!(start > 0 && serve > 0);
        }
    }
}
