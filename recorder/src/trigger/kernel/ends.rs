//! A pattern as tests of the kernel half: where its events are met, who raises them, and how they end.

use probe_ebpf::watch::{EXITED, Test};

use super::Planned;
use crate::event::Op;
use crate::fault::plan::{alternatives, watch};
use crate::pattern::{self, Key, Pattern, Relation, Value};

/// How an event ended, from and to; both included.
type Ends = (i64, i64);

const ANY: Ends = (i64::MIN, i64::MAX);
const FAILED: Ends = (i64::MIN, -1);

/// All ways in which an event can be what a pattern means.
///
/// # Errors
/// What the kernel cannot test, and why.
pub fn tests(pattern: &Pattern, counts: u32) -> Result<Vec<Planned>, String> {
    let of_end = |test: &&pattern::Test| matches!(test.key, Key::Error | Key::Result | Key::Signal);
    let (ends, others): (Vec<_>, Vec<_>) = pattern.tests.iter().partition(of_end);
    let is_exit = is_exit(pattern)?;
    let others = Pattern { tests: others.into_iter().cloned().collect() };
    let sketches = match is_exit {
        true => alternatives(&others, counts, 1 << EXITED),
        false => watch(&others, counts),
    }?;
    let mut ways = match is_exit && ends.is_empty() {
        true => vec![FAILED, (1, i64::MAX)],
        false => vec![ANY],
    };
    for test in ends {
        let allowed = allowed(test, is_exit)?;
        let both = |a: Ends, b: Ends| (a.0.max(b.0), a.1.min(b.1));
        ways = ways.iter().flat_map(|a| allowed.iter().map(move |b| both(*a, *b))).collect();
    }
    ways.retain(|(least, most)| least <= most);
    if ways.is_empty() {
        return Err(format!("`{pattern}` can never hold"));
    }
    let planned = sketches.iter().flat_map(|sketch| {
        ways.iter().map(|&(least, most)| Planned {
            test: Test { matcher: sketch.matcher, least, most },
            cgroup: sketch.cgroup.clone(),
        })
    });
    Ok(planned.collect())
}

/// Whether it means ends of processes, and nothing else.
fn is_exit(pattern: &Pattern) -> Result<bool, String> {
    let ops = pattern.tests.iter().filter(|test| test.key == Key::Op).flat_map(|test| &test.values);
    let exits = ops.clone().filter(|value| **value == Value::Op(Op::Exit)).count();
    if exits > 0 && exits < ops.count() {
        return Err(format!("`{pattern}`: `op=exit` cannot be watched for together with calls"));
    }
    let of_socket = |key| matches!(key, Key::Local | Key::Remote | Key::Protocol);
    match pattern.tests.iter().find(|test| exits > 0 && of_socket(test.key)) {
        Some(test) => Err(format!("`{test}`: the end of a process has no socket")),
        None => Ok(exits > 0),
    }
}

/// The ends that one test allows.
fn allowed(test: &pattern::Test, is_exit: bool) -> Result<Vec<Ends>, String> {
    let refuse = |why: &str| Err(format!("`{test}`: {why}"));
    match (test.key, is_exit) {
        (Key::Signal, false) => return refuse("the kernel tests it of `op=exit` alone"),
        (Key::Error, true) => return refuse("a process ends with a `signal` or a `result`"),
        _ => {}
    }
    let negated = |ends: Ends| match (test.relation, ends) {
        (Relation::Is, ends) => Some(ends),
        (Relation::IsNot, (0, i64::MAX)) => Some(FAILED),
        (Relation::IsNot, FAILED) => Some((0, i64::MAX)),
        _ => None,
    };
    let mut all = Vec::new();
    for value in &test.values {
        let ends = match *value {
            Value::None => Some((0, i64::MAX)),
            Value::Any if test.key == Key::Result => Some((0, i64::MAX)),
            Value::Any => Some(FAILED),
            Value::Error(errno) => Some((-i64::from(errno), -i64::from(errno))),
            Value::Signal(signal) => Some((-i64::from(signal), -i64::from(signal))),
            Value::Number(number) => {
                all.push(compared(test, number)?);
                continue;
            }
            _ => None,
        };
        match ends.and_then(negated) {
            Some(ends) => all.push(ends),
            None => return refuse("the kernel does not test this"),
        }
    }
    Ok(all)
}

/// Results that stand so to a number; what failed has none.
fn compared(test: &pattern::Test, number: i128) -> Result<Ends, String> {
    let number = i64::try_from(number).map_err(|_| format!("`{test}` can never hold"))?;
    Ok(match test.relation {
        Relation::Is => (number.max(0), number),
        Relation::Greater => (number.saturating_add(1).max(0), i64::MAX),
        Relation::GreaterOrEqual => (number.max(0), i64::MAX),
        Relation::Less => (0, number.saturating_sub(1)),
        Relation::LessOrEqual => (0, number),
        Relation::IsNot => return Err(format!("`{test}`: the kernel does not test `!=` of this")),
    })
}

#[cfg(test)]
mod tests_of_ends {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(pattern: &str, expected: Expect) {
        let told = match tests(&pattern.parse().expect("a pattern"), 0) {
            Err(why) => why,
            Ok(planned) => {
                let one = |p: &Planned| {
                    let end = |n: i64| match n {
                        i64::MIN => "..".to_owned(),
                        i64::MAX => "..".to_owned(),
                        n => n.to_string(),
                    };
                    format!("{:#x} {} {}", p.test.matcher.hooks, end(p.test.least), end(p.test.most))
                };
                planned.iter().map(one).collect::<Vec<_>>().join(", ")
            }
        };
        expected.assert_eq(&told);
    }

    #[test]
    fn ends_become_ranges() {
        check("op=recv error=ECONNRESET", expect!["0x10 -104 -104"]);
        check("op=recv error=ECONNRESET,EPIPE comm=a,b", expect![""]);
        check("op=send,recv error=*", expect![""]);
        check("op=send error!=none", expect![""]);
        check("op=send result>=100 result<200", expect![""]);
        check("op=exit", expect![""]);
        check("op=exit comm=x signal=SIGKILL,SIGSEGV", expect![""]);
        check("op=exit result=3", expect![""]);
    }

    #[test]
    fn what_the_kernel_cannot_test_is_refused() {
        check("comm=nginx", expect![""]);
        check("op=recv flag=eof", expect![""]);
        check("op=recv error!=EAGAIN", expect![""]);
        check("op=reset_received", expect![""]);
        check("op=exit,recv", expect![""]);
        check("op=exit remote=:80", expect![""]);
        check("op=recv signal=9", expect![""]);
        check("op=recv result=1 result=2", expect![""]);
    }
}
