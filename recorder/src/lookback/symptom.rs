//! Finds the event that a question is about, reading parts from the newest backwards.

use crate::event::{Event, EventIndex, Ring};
use crate::explain::{is_wait, last_error, last_match};
use crate::pattern::{Key, Pattern, Relation, Test, Value};
use crate::recording::index::Part;
use crate::recording::partial::Partial;
use crate::recording::read::ReadError;

/// Parts that are decoded at once.
const AT_ONCE: usize = 2;

/// The last event that matches, or the last error. What is read then are the parts around it.
pub(super) fn find(
    partial: &mut Partial,
    pattern: Option<&Pattern>,
) -> Result<Option<EventIndex>, ReadError> {
    let mut parts: Vec<usize> = partial.unread(|part| may_hold(part, pattern)).collect();
    // The newest last, by the wall clocks, since hosts' own clocks cannot be compared. Without an index nothing is
    // known: look there first.
    let until = |partial: &Partial, part: usize| match partial.index(part) {
        Some(index) => partial.wall_ns(partial.host(part), index.to_ns),
        None => i128::MAX,
    };
    parts.sort_by_key(|&part| until(partial, part));
    let mut best: Option<(Event, Vec<usize>)> = None;
    while let Some(&newest) = parts.last() {
        let wall_ns = |event: &Event| partial.wall_ns(event.host, event.time_ns);
        if best.as_ref().is_some_and(|(event, _)| until(partial, newest) < wall_ns(event)) {
            break;
        }
        let these = parts.split_off(parts.len().saturating_sub(AT_ONCE));
        partial.forget();
        partial.read(&these)?;
        let Some(found) = last_of(partial, pattern) else { continue };
        let found = partial.history().events[found as usize];
        let order = |event: &Event| order(partial, event);
        if best.as_ref().is_none_or(|(event, _)| order(event) < order(&found)) {
            best = Some((found, these));
        }
    }
    let Some((event, parts)) = best else { return Ok(None) };
    if parts.iter().any(|&part| !partial.is_read(part)) {
        partial.forget();
        partial.read(&parts)?;
    }
    Ok(partial.find(&event))
}

fn order(partial: &Partial, event: &Event) -> (i128, u16, u64, u16, Ring, u64) {
    let wall_ns = partial.wall_ns(event.host, event.time_ns);
    (wall_ns, event.host, event.time_ns, event.cpu, event.ring, event.position)
}

fn last_of(partial: &Partial, pattern: Option<&Pattern>) -> Option<EventIndex> {
    let history = partial.history();
    match pattern {
        Some(pattern) => last_match(history, &pattern.bind(history)).map(|(event, _)| event),
        None => last_error(history),
    }
}

/// Whether a part may have an event that is asked for.
fn may_hold(part: &Part, pattern: Option<&Pattern>) -> bool {
    match pattern {
        Some(pattern) => pattern.tests.iter().all(|test| may_pass(part, test)),
        None => part.errors_seen.iter().any(|&error| !is_wait(error)),
    }
}

/// Whether a part may have an event that passes a test. Of most columns the index says nothing.
fn may_pass(part: &Part, test: &Test) -> bool {
    if test.relation != Relation::Is {
        return true;
    }
    test.values.iter().any(|value| match (test.key, value) {
        (Key::Comm, Value::Text(glob)) => part.comms.iter().any(|comm| glob.matches(comm)),
        (Key::Op, Value::Op(op)) => part.ops >> *op as u32 & 1 == 1,
        (Key::Error, Value::Error(error)) => part.errors_seen.binary_search(error).is_ok(),
        (Key::Error, Value::Any) => !part.errors_seen.is_empty(),
        (Key::Pid, Value::Number(pid)) => part.threads.iter().any(|t| i128::from(t.pid) == *pid),
        (Key::Tid, Value::Number(tid)) => part.threads.iter().any(|t| i128::from(t.tid) == *tid),
        (Key::Target, Value::Number(target)) => {
            part.targets.iter().any(|&t| i128::from(t) == *target)
        }
        (Key::Socket, Value::Number(cookie)) => {
            u64::try_from(*cookie).is_ok_and(|cookie| part.socket(cookie).is_some())
        }
        _ => true,
    })
}
