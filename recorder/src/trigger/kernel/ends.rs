//! A pattern as tests of the kernel half: where its events are met, who raises them, and how they end.

use probe_ebpf::watch::{EXITED, RESET_RECEIVED, RESET_SENT, Test};

use super::Planned;
use crate::event::Op;
use crate::fault::plan::{alternatives, watch};
use crate::pattern::{self, Key, Pattern, Relation, Value};

/// How an event ended, from and to; both included.
pub type Ends = (i64, i64);

pub const ANY: Ends = (i64::MIN, i64::MAX);
/// Calls that failed, processes that died.
pub const FAILED: Ends = (i64::MIN, -1);
/// Processes that ended with a status.
pub const STATUS: Ends = (1, i64::MAX);
const SUCCEEDED: Ends = (0, i64::MAX);

/// All ways in which an event that ended so can be what a pattern means.
///
/// # Errors
/// What the kernel cannot test, and why.
pub fn tests(pattern: &Pattern, counts: u32, within: &[Ends]) -> Result<Vec<Planned>, String> {
    let of_end = |test: &&pattern::Test| matches!(test.key, Key::Error | Key::Result | Key::Signal);
    let (ends, others): (Vec<_>, Vec<_>) = pattern.tests.iter().partition(of_end);
    let met = Met::of(pattern)?;
    let others = Pattern { tests: others.into_iter().cloned().collect() };
    let sketches = match met {
        Met::Calls => watch(&others, counts),
        Met::Exits => alternatives(&others, counts, 1 << EXITED),
        Met::Resets(hooks) => alternatives(&others, counts, hooks),
    }?;
    let mut ways = within.to_vec();
    for test in ends {
        let allowed = allowed(test, &met)?;
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

fn both(a: Ends, b: Ends) -> Ends {
    (a.0.max(b.0), a.1.min(b.1))
}

/// Where a pattern's events are met: one of these, since each knows other things of its events.
#[derive(PartialEq, Eq)]
enum Met {
    /// In the thread that made a call.
    Calls,
    /// In the last thread of a process.
    Exits,
    /// At a socket, whichever thread is current; by hooks.
    Resets(u64),
}

impl Met {
    fn of(pattern: &Pattern) -> Result<Self, String> {
        let tests = pattern.tests.iter().filter(|test| test.key == Key::Op);
        let ops: Vec<&Value> = tests.flat_map(|test| &test.values).collect();
        let hook = |value: &Value| match value {
            Value::Op(Op::Exit) => Some(EXITED),
            Value::Op(Op::ResetSent) => Some(RESET_SENT),
            Value::Op(Op::ResetReceived) => Some(RESET_RECEIVED),
            _ => None,
        };
        let hooks: Vec<u32> = ops.iter().filter_map(|value| hook(value)).collect();
        let bits = hooks.iter().fold(0, |bits, hook| bits | 1 << hook);
        let met = match bits {
            0 => return Ok(Self::Calls),
            bits if bits == 1 << EXITED => Self::Exits,
            bits => Self::Resets(bits),
        };
        if hooks.len() < ops.len() || (met != Self::Exits && hooks.contains(&EXITED)) {
            return Err(format!("`{pattern}`: calls, `exit` and resets are watched for apart"));
        }
        let unknown = pattern.tests.iter().find(|test| match met {
            Self::Exits => matches!(test.key, Key::Local | Key::Remote | Key::Protocol),
            _ => matches!(test.key, Key::Comm | Key::Pid | Key::Tid | Key::Cgroup),
        });
        match (unknown, &met) {
            (None, _) => Ok(met),
            (Some(test), Self::Exits) => {
                Err(format!("`{test}`: the end of a process has no socket"))
            }
            (Some(test), _) => Err(format!("`{test}`: no thread makes a reset, the kernel does")),
        }
    }
}

/// The ends that one test allows.
fn allowed(test: &pattern::Test, met: &Met) -> Result<Vec<Ends>, String> {
    let refuse = |why: &str| Err(format!("`{test}`: {why}"));
    match (test.key, met) {
        (_, Met::Resets(_)) => return refuse("a reset has none"),
        (Key::Signal, Met::Calls) => return refuse("the kernel tests it of `op=exit` alone"),
        (Key::Error, Met::Exits) => return refuse("a process ends with a `signal` or a `result`"),
        _ => {}
    }
    let mut all = Vec::new();
    for value in &test.values {
        all.push(match *value {
            Value::None => SUCCEEDED,
            Value::Any if test.key == Key::Result => SUCCEEDED,
            Value::Any => FAILED,
            Value::Error(errno) => (-i64::from(errno), -i64::from(errno)),
            Value::Signal(signal) => (-i64::from(signal), -i64::from(signal)),
            Value::Number(number) => compared(test, number)?,
            _ => return refuse("the kernel does not test this"),
        });
    }
    match test.relation {
        Relation::IsNot => Ok(all.into_iter().fold(vec![ANY], without)),
        _ => Ok(all),
    }
}

/// What is left of ends without some in their middle.
fn without(ends: Vec<Ends>, (least, most): Ends) -> Vec<Ends> {
    let below = least.checked_sub(1).map(|below| (i64::MIN, below));
    let above = most.checked_add(1).map(|above| (above, i64::MAX));
    let sides = [below, above];
    let left = ends.iter().flat_map(|&a| sides.into_iter().flatten().map(move |b| both(a, b)));
    left.filter(|(least, most)| least <= most).collect()
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
        let told = match tests(&pattern.parse().expect("a pattern"), 0, &[ANY]) {
            Err(why) => why,
            Ok(planned) => {
                let one = |p: &Planned| {
                    let end = |n: i64| match n {
                        i64::MIN => "..".to_owned(),
                        i64::MAX => "..".to_owned(),
                        n => n.to_string(),
                    };
                    format!(
                        "{:#x} {} {}",
                        p.test.matcher.hooks,
                        end(p.test.least),
                        end(p.test.most)
                    )
                };
                planned.iter().map(one).collect::<Vec<_>>().join(", ")
            }
        };
        expected.assert_eq(&told);
    }

    #[test]
    fn ends_become_ranges() {
        check("op=recv error=ECONNRESET", expect!["0x10 -104 -104"]);
        check(
            "op=recv error=ECONNRESET,EPIPE comm=a,b",
            expect!["0x10 -104 -104, 0x10 -32 -32, 0x10 -104 -104, 0x10 -32 -32"],
        );
        check("op=send,recv error=*", expect!["0x18 .. -1"]);
        check("op=send error!=none", expect!["0x8 .. -1"]);
        check("op=send result>=100 result<200", expect!["0x8 100 199"]);
        check("op=exit", expect!["0x80000000 .. .."]);
        check("op=exit signal!=SIGTERM", expect!["0x80000000 .. -16, 0x80000000 -14 .."]);
        check("op=reset_received remote=:80", expect!["0x40000000 .. .."]);
        check("op=reset_*", expect!["0x60000000 .. .."]);
        check(
            "op=recv error=* error!=EAGAIN,EINTR",
            expect!["0x10 .. -12, 0x10 -10 -5, 0x10 -3 -1"],
        );
        check(
            "op=exit comm=x signal=SIGKILL,SIGSEGV",
            expect!["0x80000000 -9 -9, 0x80000000 -11 -11"],
        );
        check("op=exit result=3", expect!["0x80000000 3 3"]);
    }

    #[test]
    fn what_the_kernel_cannot_test_is_refused() {
        check("comm=nginx", expect!["`comm=nginx` does not say which events: add `op=`"]);
        check(
            "op=recv flag=eof",
            expect![
                "`flag=eof`: the kernel tests comm, pid, tid, cgroup (a path), protocol, local and peer"
            ],
        );
        check(
            "op=recv error=EC*",
            expect![
                "0x10 -10 -10, 0x10 -44 -44, 0x10 -70 -70, 0x10 -103 -103, 0x10 -104 -104, 0x10 -111 -111, 0x10 -125 -125"
            ],
        );
        check("op=reset_received error=*", expect!["`error=*`: a reset has none"]);
        check(
            "op=reset_received comm=nginx",
            expect!["`comm=nginx`: no thread makes a reset, the kernel does"],
        );
        check(
            "op=reset_received,recv",
            expect!["`op=reset_received,recv`: calls, `exit` and resets are watched for apart"],
        );
        check(
            "op=exit,recv",
            expect!["`op=exit,recv`: calls, `exit` and resets are watched for apart"],
        );
        check("op=exit remote=:80", expect!["`remote=:80`: the end of a process has no socket"]);
        check(
            "op=recv signal=9",
            expect!["`signal=SIGKILL`: the kernel tests it of `op=exit` alone"],
        );
        check("op=recv result=1 result=2", expect!["`op=recv result=1 result=2` can never hold"]);
    }
}
