//! By which pattern a symptom is known again in another run: what was asked for, without what is another every
//! time, and with what went wrong.

use super::{comm, is, port};
use crate::event::{Event, Flags, History, Op};
use crate::pattern::{FlagName, Key, Pattern, Test, Value};

/// The pattern of a symptom. `asked` is what the user wrote, if anything.
pub fn generalise(history: &History, symptom: &Event, asked: Option<&Pattern>) -> Pattern {
    let mut tests: Vec<Test> = match asked {
        Some(asked) => asked.tests.iter().filter(|test| lasts(test.key)).cloned().collect(),
        None => described(history, symptom),
    };
    let told = [Key::Error, Key::Flag, Key::Signal, Key::Result];
    if !tests.iter().any(|test| told.contains(&test.key)) {
        tests.extend(what_went_wrong(symptom));
    }
    if tests.is_empty() {
        tests = described(history, symptom);
    }
    Pattern { tests }
}

/// Whether a column can be the same in another run.
const fn lasts(key: Key) -> bool {
    !matches!(
        key,
        Key::Pid
            | Key::Tid
            | Key::Target
            | Key::Socket
            | Key::Iss
            | Key::Irs
            | Key::Position
            | Key::Time
            | Key::BeginNs
            | Key::TimeNs
            | Key::Cpu
    )
}

fn described(history: &History, event: &Event) -> Vec<Test> {
    let mut tests: Vec<Test> = comm(history, event).into_iter().collect();
    // A connect that the kernel refuses ends as an error of its socket, one that a fault refuses as its own.
    let refused = event.error != 0 && matches!(event.op, Op::Connect | Op::Error);
    let ops = if refused { vec![Op::Connect, Op::Error] } else { vec![event.op] };
    let values = ops.into_iter().map(Value::Op).collect();
    tests.push(Test { values, ..is(Key::Op, Value::Any) });
    tests.extend(port(history, event));
    tests
}

/// What is remarkable about the event; of one that went well, what it returned.
fn what_went_wrong(event: &Event) -> Option<Test> {
    Some(match event {
        e if e.error != 0 => is(Key::Error, Value::Error(e.error)),
        e if e.flags.has(Flags::EOF) => is(Key::Flag, Value::Flag(FlagName::Eof)),
        e if e.signal != 0 => is(Key::Signal, Value::Signal(e.signal)),
        e => is(Key::Result, Value::Number(e.outcome()?.into())),
    })
}
