//! The filters of system calls: small data files, compiled in the host when it starts.
//!
//! A line is `allow NAMES` or `errno NAME NAMES`, perhaps with `when argN == V` or `when argN & MASK == V` (the low half of
//! an argument, which is all that the kernel reads of an `int`; `ptrN` is the whole of it; several with `and`), perhaps with `@ARCH` for calls that only one architecture has, or `include FILE`; `#` begins a comment. Several lines for one call
//! add up. Everything else is trapped, so that the host can say which call it was.
//!
//! An `errno` line becomes a filter of its own: a program has one action for what matches. The kernel runs all programs
//! and takes the strictest answer, so the main one allows what another one answers with an error.

use std::collections::BTreeMap;
use std::str::FromStr;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use syscalls::{Errno, Sysno};

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

/// The programs of a profile's stage, in the order in which they must be put on: the one that refuses the most comes last.
pub(crate) fn programs(
    profile: SandboxProfile,
    stage: Stage,
) -> Result<Vec<BpfProgram>, TransportError> {
    let stage = match stage {
        Stage::Start => "start",
        Stage::Serve => "serve",
    };
    let name = format!("{}.{stage}", profile.name());
    compile(&name, FILES)
        .map_err(|text| TransportError::io(format!("compile the filter {name}"), text))
}

/// Conditions of a call: one alternative for each line, all of which must hold; empty when it needs none.
type Calls = BTreeMap<i64, Vec<Vec<SeccompCondition>>>;

#[derive(Default)]
struct Lines {
    allowed: Calls,
    refused: BTreeMap<u32, Calls>,
}

fn compile(name: &str, files: &[(&str, &str)]) -> Result<Vec<BpfProgram>, String> {
    let mut lines = Lines::default();
    read(name, files, 0, &mut lines)?;
    let mut programs = Vec::new();
    for (errno, calls) in &lines.refused {
        for (call, conditions) in calls {
            let allowed = lines.allowed.entry(*call).or_default();
            allowed.extend(conditions.iter().cloned());
        }
        programs.push(program(
            calls.clone(),
            SeccompAction::Allow,
            SeccompAction::Errno(*errno),
        )?);
    }
    programs.push(program(
        lines.allowed,
        SeccompAction::Trap,
        SeccompAction::Allow,
    )?);
    Ok(programs)
}

fn program(
    calls: Calls,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, String> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|error| format!("{error}: there is no filter for it"))?;
    let mut rules = BTreeMap::new();
    for (call, conditions) in calls {
        // Without conditions the call matches always.
        let alternatives = if conditions.iter().any(Vec::is_empty) {
            Vec::new()
        } else {
            let rules: Result<_, _> = conditions.into_iter().map(SeccompRule::new).collect();
            rules.map_err(|error| error.to_string())?
        };
        rules.insert(call, alternatives);
    }
    let filter = SeccompFilter::new(rules, otherwise, matching, architecture);
    filter
        .and_then(BpfProgram::try_from)
        .map_err(|error| error.to_string())
}

/// How deep files may include each other.
const MAX_DEPTH: u32 = 4;

fn read(name: &str, files: &[(&str, &str)], depth: u32, into: &mut Lines) -> Result<(), String> {
    let text = files.iter().find(|(known, _)| *known == name);
    let (_, text) = text.ok_or_else(|| format!("no file {name}"))?;
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let parsed = match line.split_once(char::is_whitespace) {
            None if line.is_empty() => continue,
            None => Err("expected a word and names".into()),
            Some(("include", _)) if depth >= MAX_DEPTH => Err("included too deep".into()),
            Some(("include", file)) => read(file.trim(), files, depth + 1, into),
            Some((verb, rest)) => rule(verb, rest.trim(), into),
        };
        parsed.map_err(|what: String| format!("{name}, line {}: {what}", index + 1))?;
    }
    Ok(())
}

fn rule(verb: &str, rest: &str, into: &mut Lines) -> Result<(), String> {
    let (rest, architecture) = match rest.split_once('@') {
        Some((rest, architecture)) => (rest, Some(architecture.trim())),
        None => (rest, None),
    };
    if architecture.is_some_and(|name| name != std::env::consts::ARCH) {
        return Ok(());
    }
    let (names, conditions) = match rest.split_once(" when ") {
        Some((names, text)) => {
            let conditions: Result<Vec<_>, _> = text.split(" and ").map(parse_condition).collect();
            (names, conditions?)
        }
        None => (rest, Vec::new()),
    };
    let mut names = names.split_whitespace();
    let calls = match verb {
        "allow" => &mut into.allowed,
        "errno" => {
            let errno = names.next().unwrap_or_default();
            let errno = error_number(errno).ok_or_else(|| format!("no error {errno}"))?;
            into.refused.entry(errno).or_default()
        }
        other => return Err(format!("{other} is not one of allow, errno, include")),
    };
    for name in names {
        let call = Sysno::from_str(name).map_err(|()| format!("no system call {name}"))?;
        let entry = calls.entry(i64::from(call.id())).or_default();
        entry.push(conditions.clone());
    }
    Ok(())
}

/// `argN == V` or `argN & MASK == V`.
fn parse_condition(text: &str) -> Result<SeccompCondition, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (argument, operator, value) = match words[..] {
        [argument, "==", value] => (argument, SeccompCmpOp::Eq, value),
        [argument, "&", mask, "==", value] => {
            (argument, SeccompCmpOp::MaskedEq(number(mask)?), value)
        }
        _ => return Err(format!("`{text}` is not a condition")),
    };
    let (index, length) = match argument.split_at_checked(3) {
        Some(("arg", index)) => (index.parse().ok(), SeccompCmpArgLen::Dword),
        Some(("ptr", index)) => (index.parse().ok(), SeccompCmpArgLen::Qword),
        _ => (None, SeccompCmpArgLen::Dword),
    };
    let index = index.ok_or_else(|| format!("{argument} is not arg0 to arg5 or ptr0 to ptr5"))?;
    SeccompCondition::new(index, length, operator, number(value)?)
        .map_err(|error| error.to_string())
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text} is not a number"))
}

fn error_number(name: &str) -> Option<u32> {
    let errno = [
        Errno::EACCES,
        Errno::EPERM,
        Errno::ENOSYS,
        Errno::ENOTTY,
        Errno::ENOENT,
    ];
    let errno = errno.into_iter().find(|errno| {
        errno
            .name_and_description()
            .is_some_and(|(known, _)| known == name)
    })?;
    u32::try_from(errno.into_raw()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_compiles_and_ends_with_the_strictest() {
        for profile in [SandboxProfile::Isolated, SandboxProfile::Protected] {
            for stage in [Stage::Start, Stage::Serve] {
                let programs = programs(profile, stage).unwrap();
                assert!(programs.len() > 1);
                let longest = programs.iter().map(Vec::len).max();
                assert_eq!(programs.last().map(Vec::len), longest);
            }
        }
    }

    #[test]
    fn a_bad_line_is_named_with_its_number() {
        for (text, says) in [
            (
                "allow read\nallow nonsense",
                "a, line 2: no system call nonsense",
            ),
            ("permit read", "permit is not one of"),
            ("allow", "expected a word"),
            ("errno EWHAT read", "no error EWHAT"),
            ("allow mmap when arg9 == 1", "a, line 1"),
            ("allow mmap when argx == 1", "argx is not"),
            ("allow mmap when arg1 = 1", "is not a condition"),
            ("allow mmap when arg1 == 1 and", "is not a condition"),
            ("allow mmap when arg1 == zwei", "zwei is not a number"),
            ("include b", "no file b"),
            ("include a", "included too deep"),
        ] {
            let error = compile("a", &[("a", text)]).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
