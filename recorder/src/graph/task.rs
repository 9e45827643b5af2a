//! Tasks: a fork precedes all that the new thread does.

use super::build::lossless;
use super::{EdgeKind, Graph, Proof, Side};
use crate::event::{EventIndex, History, Op};

/// From each fork to the first event of the life that it began.
pub(super) fn edges(history: &History, rare: &[EventIndex], graph: &mut Graph) {
    for (place, &index) in rare.iter().enumerate() {
        let fork = &history.events[index as usize];
        if fork.op != Op::Fork {
            continue;
        }
        let born = graph.lives_of(fork.host, fork.target).iter().find_map(|life| {
            let first = graph.events_of_thread(life)[0];
            // The fork's hook fires before the child can run.
            (history.events[first as usize].time_ns > fork.time_ns).then_some(first)
        });
        let Some(first) = born else { continue };
        // Forked again before it did anything: the event belongs to the later fork.
        let between = rare[place + 1..].iter().take_while(|&&other| other < first);
        let mut between = between.map(|&other| &history.events[other as usize]);
        if !between.any(|e| e.op == Op::Fork && e.target == fork.target) {
            // Where forks may be lost, the thread must have begun while this one was under way.
            let born = history.events[first as usize].begin_ns;
            let proven =
                lossless(history, fork.host) || (fork.begin_ns..=fork.time_ns).contains(&born);
            let (from, to) = ((index, Side::Begin), (first, Side::Begin));
            let proof = if proven { Proof::Must } else { Proof::May };
            graph.push(from, to, EdgeKind::Task, proof);
        }
    }
}
