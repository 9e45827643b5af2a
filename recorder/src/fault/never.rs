//! Patterns that no event can match: better refused than waited for.

use crate::event::Op;
use crate::pattern::{Key, Pattern, Relation, Test, Value};

/// Why the pattern can never match, if that is so.
pub(super) fn matches(pattern: &Pattern) -> Option<String> {
    let tests = || pattern.tests.iter().filter(|test| test.relation == Relation::Is);
    for (i, one) in tests().enumerate() {
        // These have more than one name each.
        let named = matches!(one.key, Key::Container | Key::Pod | Key::Netns);
        let mut rest = tests().skip(i + 1).filter(|other| other.key == one.key && !named);
        let other = rest.find(|other| disjoint(one, other));
        if let Some(other) = other {
            return Some(format!("`{one}` and `{other}` exclude each other"));
        }
    }
    let ops = tests().find(|test| test.key == Key::Op)?;
    let all = |holds: fn(Op) -> bool| {
        ops.values.iter().all(|value| matches!(value, Value::Op(op) if holds(*op)))
    };
    let of_socket = [Key::Local, Key::Remote, Key::Socket, Key::Protocol, Key::Netns];
    let asked = tests().find(|test| of_socket.contains(&test.key) && !only_none(test));
    match asked {
        Some(test) if all(|op| !op.of_socket()) => {
            Some(format!("`{ops}` has no socket, so `{test}` never holds"))
        }
        _ => None,
    }
}

fn only_none(test: &Test) -> bool {
    test.values.iter().all(|value| *value == Value::None)
}

/// Whether no value is both's; only values that are compared as a whole can tell.
fn disjoint(one: &Test, other: &Test) -> bool {
    let exact = |value: &Value| match value {
        Value::Text(glob) => glob.pieces.len() == 1,
        Value::Number(_) | Value::Op(_) | Value::Error(_) | Value::Signal(_) => true,
        _ => false,
    };
    one.values.iter().chain(&other.values).all(exact)
        && one.values.iter().all(|value| !other.values.contains(value))
}
