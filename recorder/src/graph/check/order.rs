//! Each thread's events one after the other, by its numbers and times alone.

use std::collections::HashMap;

use crate::event::{EventIndex, History, Op};

/// By event; the event itself where there is no such one.
pub(super) struct Order {
    /// The next event of the thread, and the one before.
    pub next: Vec<EventIndex>,
    pub before: Vec<EventIndex>,
    /// The next one that is no wake.
    pub next_act: Vec<EventIndex>,
    /// Whether the thread may be gone: it is its exit or death, or what it still does when its exit has been noted.
    pub is_last: Vec<bool>,
}

impl Order {
    pub(super) fn new(history: &History) -> Self {
        let own: Vec<EventIndex> = (0..history.events.len() as EventIndex).collect();
        let is_last = vec![false; own.len()];
        let mut order = Self { next: own.clone(), before: own.clone(), next_act: own, is_last };
        let mut threads: HashMap<(u16, u32), Vec<EventIndex>> = HashMap::new();
        for (index, event) in history.events.iter().enumerate() {
            if event.tid != 0 {
                threads.entry((event.host, event.tid)).or_default().push(index as EventIndex);
            }
        }
        let event = |index: EventIndex| &history.events[index as usize];
        for events in threads.values_mut() {
            events.sort_by_key(|&e| (event(e).time_ns, event(e).task_count, e));
            for pair in events.windows(2) {
                order.next[pair[0] as usize] = pair[1];
                order.before[pair[1] as usize] = pair[0];
            }
            let mut exited = false;
            for &at in events.iter() {
                let op = event(at).op;
                exited = op == Op::Exit || exited && still_done(op);
                order.is_last[at as usize] = exited || op == Op::Deliver;
            }
            let mut act = None;
            for &at in events.iter().rev() {
                order.next_act[at as usize] = act.unwrap_or(at);
                if event(at).op != Op::Wake {
                    act = Some(at);
                }
            }
        }
        order
    }
}

/// Closing its files, telling its parent, waking who waits for it.
fn still_done(op: Op) -> bool {
    matches!(op, Op::Close | Op::Abort | Op::Unlisten | Op::Signal | Op::Wake)
}
