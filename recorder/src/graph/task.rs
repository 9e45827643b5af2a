//! Tasks: a fork precedes all that the new thread does.

use super::{EdgeKind, Graph, Proof, Side};
use crate::event::{History, Op};

/// From each fork to the first event of the life that it began.
pub(super) fn edges(history: &History, graph: &mut Graph) {
    for (index, fork) in history.events.iter().enumerate().filter(|(_, e)| e.op == Op::Fork) {
        let index = index as u32;
        let born = graph.lives_of(fork.host, fork.target).iter().find_map(|life| {
            let first = graph.events_of_thread(life)[0];
            (first > index).then_some(first)
        });
        let Some(first) = born else { continue };
        // Forked again before it did anything: the event belongs to the later fork.
        let again = history.events[index as usize + 1..first as usize].iter();
        let mut again = again.take_while(|e| e.host == fork.host);
        if !again.any(|e| e.op == Op::Fork && e.target == fork.target) {
            graph.push((index, Side::Begin), (first, Side::Begin), EdgeKind::Task, Proof::Must);
        }
    }
}
