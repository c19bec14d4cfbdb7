//! The lines of a filter's data files.

use std::collections::BTreeMap;
use std::str::FromStr;

use syscalls::{Errno, Sysno};

/// What is said of each system call, by its number.
pub(super) type Rules = BTreeMap<u32, Vec<Rule>>;

/// One line's word on a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// All must hold; none holds always.
    pub(super) conditions: Vec<Condition>,
    pub(super) verdict: Verdict,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// It fails with this error number. Comes before `Allow`: where both match, it holds.
    Errno(u16),
    Allow,
    /// The host is told, says which call it was, and ends.
    Trap,
}

/// `argument & mask == value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) argument: u8,
    pub(super) width: Width,
    pub(super) mask: u64,
    pub(super) value: u64,
}

/// How much of an argument counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// The low half, which is all that the kernel reads of an `int`.
    Int,
    /// All of it.
    Pointer,
}

/// Files by name.
pub(super) type Files<'a> = &'a [(&'a str, &'a str)];

/// Reads the file and those that it includes.
pub(super) fn read(name: &str, files: Files<'_>) -> Result<Rules, String> {
    let mut rules = Rules::new();
    include(name, files, 0, &mut rules)?;
    for alternatives in rules.values_mut() {
        alternatives.sort_by_key(|rule| rule.verdict);
    }
    Ok(rules)
}

/// How deep files may include each other.
const MAX_DEPTH: u32 = 4;

fn include(name: &str, files: Files<'_>, depth: u32, into: &mut Rules) -> Result<(), String> {
    let text = files.iter().find(|(known, _)| *known == name);
    let (_, text) = text.ok_or_else(|| format!("no file {name}"))?;
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let parsed = match line.split_once(char::is_whitespace) {
            None if line.is_empty() => continue,
            None => Err("expected a word and names".into()),
            Some(("include", _)) if depth >= MAX_DEPTH => Err("included too deep".into()),
            Some(("include", file)) => include(file.trim(), files, depth + 1, into),
            Some((verb, rest)) => rule(verb, rest.trim(), into),
        };
        parsed.map_err(|what: String| format!("{name}, line {}: {what}", index + 1))?;
    }
    Ok(())
}

fn rule(verb: &str, rest: &str, into: &mut Rules) -> Result<(), String> {
    let (rest, architecture) = match rest.split_once('@') {
        Some((rest, architecture)) => (rest, Some(architecture.trim())),
        None => (rest, None),
    };
    if architecture.is_some_and(|name| name != std::env::consts::ARCH) {
        return Ok(());
    }
    let (names, conditions) = match rest.split_once(" when ") {
        Some((names, text)) => {
            let conditions: Result<Vec<_>, _> = text.split(" and ").map(condition).collect();
            (names, conditions?)
        }
        None => (rest, Vec::new()),
    };
    let mut names = names.split_whitespace();
    let verdict = match verb {
        "allow" => Verdict::Allow,
        "errno" => {
            let errno = names.next().unwrap_or_default();
            Verdict::Errno(error_number(errno).ok_or_else(|| format!("no error {errno}"))?)
        }
        other => return Err(format!("{other} is not one of allow, errno, include")),
    };
    for name in names {
        let call = Sysno::from_str(name).map_err(|()| format!("no system call {name}"))?;
        let number = u32::try_from(call.id()).map_err(|error| error.to_string())?;
        into.entry(number).or_default().push(Rule {
            conditions: conditions.clone(),
            verdict,
        });
    }
    Ok(())
}

/// `argN == V` or `argN & MASK == V`.
fn condition(text: &str) -> Result<Condition, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (name, mask, value) = match words[..] {
        [name, "==", value] => (name, u64::MAX, value),
        [name, "&", mask, "==", value] => (name, number(mask)?, value),
        _ => return Err(format!("`{text}` is not a condition")),
    };
    let (argument, width) = match name.split_at_checked(3) {
        Some(("arg", index)) => (index.parse().ok(), Width::Int),
        Some(("ptr", index)) => (index.parse().ok(), Width::Pointer),
        _ => (None, Width::Int),
    };
    let argument = argument
        .filter(|index| *index <= 5)
        .ok_or_else(|| format!("{name} is not arg0 to arg5 or ptr0 to ptr5"))?;
    Ok(Condition {
        argument,
        width,
        mask,
        value: number(value)?,
    })
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text} is not a number"))
}

fn error_number(name: &str) -> Option<u16> {
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
    u16::try_from(errno.into_raw()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let error = read("a", &[("a", text)]).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_error_comes_before_what_is_allowed() {
        let rules = read("a", &[("a", "allow read\nerrno EPERM read when arg0 == 1")]).unwrap();
        let verdicts: Vec<_> = rules.values().flatten().map(|rule| rule.verdict).collect();
        assert_eq!(verdicts, [Verdict::Errno(1), Verdict::Allow]);
    }
}
