//! Wakes: a thread that was asleep does nothing until another has woken it.
//!
//! A wake says how many events the woken thread had raised. It was asleep, so that this was still so when it was woken:
//! the event after these is its next, and ends after the wake, wherever it began.

use super::births::Births;
use super::{EdgeKind, Graph, Proof, Side, complete};
use crate::event::{Event, EventIndex, History, Op, Ring};

pub(super) fn edges(history: &History, births: &Births, graph: &mut Graph) {
    for (index, wake) in history.events.iter().enumerate() {
        if wake.op != Op::Wake {
            continue;
        }
        let Some(next) = next(history, graph, wake) else { continue };
        let until_ns = history.events[next as usize].time_ns;
        // Who has the number since then was not asleep then.
        if births.between((wake.host, wake.target), wake.time_ns, until_ns) {
            continue;
        }
        // Where events are missing, the number may have been given to another thread.
        let proven = history.hosts.get(usize::from(wake.host)).is_none_or(|host| {
            [Ring::Bulk, Ring::Rare]
                .into_iter()
                .all(|ring| complete(host, ring, wake.time_ns, until_ns))
        });
        let (from, to) = ((index as EventIndex, Side::End), (next, Side::End));
        let proof = if proven { Proof::Must } else { Proof::May };
        graph.push(from, to, EdgeKind::Wake, proof);
    }
}

/// The first event that the woken thread ended after a wake, if its count says that it is the next.
fn next(history: &History, graph: &Graph, wake: &Event) -> Option<EventIndex> {
    let event = |index: EventIndex| &history.events[index as usize];
    let first = graph.lives_of(wake.host, wake.target).iter().find_map(|life| {
        let events = graph.events_of_thread(life);
        let place = events.partition_point(|&e| event(e).time_ns < wake.time_ns);
        events.get(place).copied()
    })?;
    (i64::from(event(first).task_count) == wake.result + 1).then_some(first)
}
