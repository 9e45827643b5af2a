//! Program order: a thread does one thing after another.

use super::births::{Births, next};
use super::group::group;
use super::{EdgeKind, Graph, Proof, Side, Thread};
use crate::event::{Event, EventIndex, Flags, History, Op};

/// Finds the threads and their events. A tid that is used again is another thread.
pub(super) fn index(history: &History, births: &Births, graph: &mut Graph) {
    let (groups, mut members) =
        group(&history.events, |e| (!e.in_kernel_lane()).then_some((e.host, e.tid)));
    for ((host, tid), range) in groups {
        let events = &mut members[range.start as usize..range.end as usize];
        order_ties(history, events);
        let born = births.of((host, tid));
        let mut start = 0;
        for end in 1..=events.len() {
            if end < events.len() && !begins_anew(history, &events[start..=end], born) {
                continue;
            }
            graph.threads.push(Thread {
                host,
                pid: history.events[events[start] as usize].pid,
                tid,
                events: range.start + start as u32..range.start + end as u32,
            });
            start = end;
        }
    }
    graph.thread_events = members;
}

/// Two events of a thread in the same nanosecond, in different rings, are told apart by its own counter.
fn order_ties(history: &History, events: &mut [EventIndex]) {
    let key = |&e: &EventIndex| {
        (history.events[e as usize].time_ns, history.events[e as usize].task_count)
    };
    if !events.is_sorted_by_key(key) {
        events.sort_by_key(key);
    }
}

/// Whether the last of a tid's events belongs to another thread than those before it.
fn begins_anew(history: &History, life: &[EventIndex], born: &[u64]) -> bool {
    let [.., previous, event] = life else { return false };
    let (previous, event) = (&history.events[*previous as usize], &history.events[*event as usize]);
    if previous.pid != event.pid {
        return true;
    }
    let counted = previous.task_count != 0 && event.task_count != 0;
    if counted && event.task_count <= previous.task_count {
        return true;
    }
    if (previous.op == Op::Exit || after_exit(previous)) && !after_exit(event) {
        let exited = life.iter().rev().skip(1).map(|&e| &history.events[e as usize]);
        if exited.take_while(|e| e.op == Op::Exit || after_exit(e)).any(|e| e.op == Op::Exit) {
            return true;
        }
    }
    let killed = previous.op == Op::Deliver && i32::from(previous.signal) == libc::SIGKILL;
    let dying = matches!(event.op, Op::Exit | Op::Deliver) || after_exit(event);
    if killed && !dying {
        return true;
    }
    // Forked again in between: the thread before has ended, whether or not that was seen.
    next(born, previous.time_ns).is_some_and(|ns| ns < event.time_ns)
}

/// What a thread still does when its exit has been noted: closing its files, telling its parent, waking who waits for it.
fn after_exit(event: &Event) -> bool {
    matches!(event.op, Op::Close | Op::Abort | Op::Unlisten | Op::Signal | Op::Wake)
}

/// One edge from each event's end to the next one's begin; round a wake, which lies inside of what its thread ends next:
///
/// ```text
///   send ──────────────────▶ begin ··· end of the next
///      └───▶ wake ──▶ wake ────────────▲
/// ```
pub(super) fn edges(history: &History, graph: &mut Graph) {
    for thread in 0..graph.threads.len() {
        let (mut act, mut wake) = (None, None);
        for place in graph.threads[thread].events.clone() {
            let to = graph.thread_events[place as usize];
            if history.events[to as usize].op == Op::Wake {
                join(history, graph, wake.or(act), (to, Side::Begin));
                wake = Some(to);
            } else {
                join(history, graph, act, (to, Side::Begin));
                join(history, graph, wake.take(), (to, Side::End));
                act = Some(to);
            }
        }
    }
}

/// A lost event between two does not make their order less certain, unless the thread may have ended and its number been
/// used again meanwhile.
fn join(history: &History, graph: &mut Graph, from: Option<EventIndex>, to: (EventIndex, Side)) {
    let Some(from) = from else { return };
    let (previous, event) = (&history.events[from as usize], &history.events[to.0 as usize]);
    // A begin is known from the end before, or from when the thread began.
    let began = event.flags.has(Flags::AFTER_GAP) && event.begin_ns > previous.time_ns;
    let proof = if began { Proof::May } else { Proof::Must };
    graph.push((from, Side::End), to, EdgeKind::Program, proof);
}

/// Whether events of the thread are known to be missing between two neighbours in its program order.
pub fn gap_between(previous: &Event, event: &Event) -> bool {
    let counted = previous.task_count != 0 && event.task_count != 0;
    event.flags.has(Flags::AFTER_GAP)
        || counted && event.task_count != previous.task_count.wrapping_add(1)
}
