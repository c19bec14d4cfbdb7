//! A filter's rules as a program for the kernel.

use libc::sock_filter;

use super::rules::{Condition, Rule, Rules, Verdict, Width};

/// Where the kernel puts what a filter looks at: `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Most instructions that the kernel takes.
const MAX_INSTRUCTIONS: usize = 4096;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// `AUDIT_ARCH_*` of this program.
const fn architecture() -> Option<u32> {
    if cfg!(target_arch = "x86_64") {
        Some(0xc000_003e)
    } else if cfg!(target_arch = "aarch64") {
        Some(0xc000_00b7)
    } else {
        None
    }
}

/// Makes the program: another architecture's call ends the process, the rest is decided by a search tree over call numbers.
pub(super) fn program(rules: &Rules) -> Result<Vec<sock_filter>, String> {
    let architecture = architecture().ok_or("there is no filter for this architecture")?;
    let mut program = vec![
        load(ARCHITECTURE),
        instruction(IF_EQUAL, architecture, 1, 0),
        instruction(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
        load(NUMBER),
    ];
    program.extend(tree(&spans(rules)));
    if program.len() > MAX_INSTRUCTIONS {
        return Err(format!("{} instructions are too many", program.len()));
    }
    Ok(program)
}

/// From this number on, to the next span, calls are decided by this code.
struct Span {
    first: u32,
    code: Vec<sock_filter>,
}

fn spans(rules: &Rules) -> Vec<Span> {
    let trap = || vec![verdict(Verdict::Trap)];
    let mut spans = vec![Span {
        first: 0,
        code: trap(),
    }];
    let mut add = |first: u32, code: Vec<sock_filter>| match spans.last_mut() {
        Some(last) if last.first == first => last.code = code,
        Some(last) if is_same(&last.code, &code) => {}
        _ => spans.push(Span { first, code }),
    };
    let mut next = 0;
    for (&number, alternatives) in rules {
        if number > next {
            add(next, trap());
        }
        add(number, decide(alternatives));
        next = number + 1;
    }
    add(next, trap());
    spans
}

fn is_same(one: &[sock_filter], other: &[sock_filter]) -> bool {
    let parts = |part: &sock_filter| (part.code, part.jt, part.jf, part.k);
    one.iter().map(parts).eq(other.iter().map(parts))
}

/// Every way through it ends with a verdict, and the call's number is loaded when it begins.
fn tree(spans: &[Span]) -> Vec<sock_filter> {
    let (below, above) = spans.split_at(spans.len() / 2);
    let Some(middle) = above.first() else {
        return vec![verdict(Verdict::Trap)];
    };
    if below.is_empty() {
        return middle.code.clone();
    }
    let (first, below, above) = (middle.first, tree(below), tree(above));
    let mut code = Vec::with_capacity(below.len() + above.len() + 2);
    match u8::try_from(below.len()) {
        Ok(over) => code.push(instruction(IF_AT_LEAST, first, over, 0)),
        Err(_) => {
            // A condition reaches 255 instructions far, a jump as far as one likes.
            code.push(instruction(IF_AT_LEAST, first, 0, 1));
            code.push(instruction(JUMP, below.len() as u32, 0, 0));
        }
    }
    code.extend(below);
    code.extend(above);
    code
}

fn decide(alternatives: &[Rule]) -> Vec<sock_filter> {
    let mut code = Vec::new();
    for rule in alternatives {
        let tests: Vec<_> = rule.conditions.iter().flat_map(test).collect();
        let len = tests.len();
        for (at, part) in tests.into_iter().enumerate() {
            code.push(match part {
                Test::Do(part) => part,
                // What does not hold goes on behind the verdict.
                Test::MustEqual(value) => instruction(
                    IF_EQUAL,
                    value,
                    0,
                    u8::try_from(len - at).unwrap_or(u8::MAX),
                ),
            });
        }
        code.push(verdict(rule.verdict));
        if len == 0 {
            return code;
        }
    }
    code.push(verdict(Verdict::Trap));
    code
}

enum Test {
    Do(sock_filter),
    MustEqual(u32),
}

fn test(condition: &Condition) -> Vec<Test> {
    let at = ARGUMENTS + 8 * u32::from(condition.argument);
    let (low, high) = if cfg!(target_endian = "little") {
        (at, at + 4)
    } else {
        (at + 4, at)
    };
    let mut tests = Vec::new();
    let mut half = |at: u32, mask: u32, value: u32| {
        tests.push(Test::Do(load(at)));
        if mask != u32::MAX {
            tests.push(Test::Do(instruction(AND, mask, 0, 0)));
        }
        tests.push(Test::MustEqual(value));
    };
    half(low, condition.mask as u32, condition.value as u32);
    if condition.width == Width::Pointer {
        half(
            high,
            (condition.mask >> 32) as u32,
            (condition.value >> 32) as u32,
        );
    }
    tests
}

fn load(at: u32) -> sock_filter {
    instruction(LOAD, at, 0, 0)
}

fn verdict(verdict: Verdict) -> sock_filter {
    let action = match verdict {
        Verdict::Errno(number) => libc::SECCOMP_RET_ERRNO | u32::from(number),
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Trap => libc::SECCOMP_RET_TRAP,
    };
    instruction(RETURN, action, 0, 0)
}

const fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::super::{FILES, rules};
    use super::*;
    use crate::testing::Prng;

    /// What the kernel would do.
    fn run(program: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let word = |at: u32| match at {
            NUMBER => number,
            ARCHITECTURE => architecture,
            _ => {
                let argument = arguments[((at - ARGUMENTS) / 8) as usize];
                if (at - ARGUMENTS).is_multiple_of(8) {
                    argument as u32
                } else {
                    (argument >> 32) as u32
                }
            }
        };
        let (mut at, mut a) = (0, 0);
        loop {
            let part = program[at];
            at += 1;
            let mut branch = |holds: bool| at += usize::from(if holds { part.jt } else { part.jf });
            match part.code {
                LOAD => a = word(part.k),
                AND => a &= part.k,
                JUMP => at += part.k as usize,
                IF_EQUAL => branch(a == part.k),
                IF_AT_LEAST => branch(a >= part.k),
                RETURN => return part.k,
                other => panic!("instruction {other}"),
            }
        }
    }

    fn expected(rules: &Rules, number: u32, arguments: [u64; 6]) -> u32 {
        let holds = |condition: &Condition| {
            let mut argument = arguments[usize::from(condition.argument)] & condition.mask;
            let mut value = condition.value;
            if condition.width == Width::Int {
                argument &= 0xffff_ffff;
                value &= 0xffff_ffff;
            }
            argument == value
        };
        let rules = rules.get(&number).map_or(&[][..], Vec::as_slice);
        let rule = rules.iter().find(|rule| rule.conditions.iter().all(holds));
        verdict(rule.map_or(Verdict::Trap, |rule| rule.verdict)).k
    }

    #[test]
    fn programs_decide_as_their_lines_say() {
        let mut random = Prng::new(7);
        let here = architecture().unwrap();
        for name in [
            "isolated.start",
            "isolated.serve",
            "protected.start",
            "protected.serve",
        ] {
            let rules = rules::read(name, FILES).unwrap();
            let program = program(&rules).unwrap();
            // Values that conditions ask for, and others.
            let values: Vec<u64> = rules
                .values()
                .flatten()
                .flat_map(|rule| &rule.conditions)
                .flat_map(|condition| [condition.value, condition.value | 1 << 40, condition.mask])
                .chain([0, 1, u64::MAX])
                .collect();
            for number in (0..600).chain([0x4000_0000, u32::MAX]) {
                for _ in 0..200 {
                    let arguments =
                        [(); 6].map(|()| values[random.below(values.len() as u64) as usize]);
                    assert_eq!(
                        run(&program, here, number, arguments),
                        expected(&rules, number, arguments),
                        "{name}: call {number} {arguments:x?}"
                    );
                }
            }
            let foreign = run(&program, 0x4000_0003, 1, [0; 6]);
            assert_eq!(foreign, libc::SECCOMP_RET_KILL_PROCESS);
        }
    }

    #[test]
    fn far_branches_arrive() {
        let rule = |errno| Rule {
            conditions: vec![Condition {
                argument: 0,
                width: Width::Pointer,
                mask: 0xffff_0000_ffff,
                value: u64::from(errno),
            }],
            verdict: Verdict::Errno(errno),
        };
        let rules: Rules = (0..300u32)
            .map(|number| (number, vec![rule(number as u16)]))
            .collect();
        let program = program(&rules).unwrap();
        let here = architecture().unwrap();
        for number in 0..310 {
            for argument in [number, number + 1] {
                let arguments = [u64::from(argument), 0, 0, 0, 0, 0];
                assert_eq!(
                    run(&program, here, number, arguments),
                    expected(&rules, number, arguments)
                );
            }
        }
    }
}
