//! Tasks: a fork precedes all that the new thread does, and a process's end the end of the call that tells of it.

use std::collections::{HashMap, HashSet};

use super::births::Births;
use super::build::lossless;
use super::{EdgeKind, Graph, Proof, Side, complete};
use crate::event::{Event, EventIndex, Flags, History, Op, Ring};

/// From each fork to the first event of the life that it began, and beyond wakes, which order no begin, to the first other.
pub(super) fn edges(history: &History, rare: &[EventIndex], births: &Births, graph: &mut Graph) {
    for &index in rare {
        let fork = &history.events[index as usize];
        if fork.op != Op::Fork {
            continue;
        }
        let born = graph.lives_of(fork.host, fork.target).iter().find_map(|life| {
            let events = graph.events_of_thread(life);
            let wakes = |&&e: &&EventIndex| history.events[e as usize].op == Op::Wake;
            let act = events.iter().find(|e| !wakes(e)).copied().filter(|&act| act != events[0]);
            // The fork's hook fires before the child can run.
            let begun = history.events[events[0] as usize].time_ns > fork.time_ns;
            begun.then_some((events[0], act))
        });
        let Some((first, act)) = born else { continue };
        // Forked again before it did anything: the event belongs to the later fork, which may not be recorded.
        let did_ns = history.events[first as usize].time_ns;
        if !births.between((fork.host, fork.target), fork.time_ns, did_ns) {
            // Where forks may be lost, the thread must have begun while this one was under way.
            let born = history.events[first as usize].begin_ns;
            let proven =
                lossless(history, fork.host) || (fork.begin_ns..=fork.time_ns).contains(&born);
            let proof = if proven { Proof::Must } else { Proof::May };
            for to in [Some(first), act].into_iter().flatten() {
                graph.push((index, Side::Begin), (to, Side::Begin), EdgeKind::Task, proof);
            }
        }
    }
}

/// From the last exit of each process to the ends of the calls by which its parent waited for it.
pub(super) fn wait_edges(history: &History, rare: &[EventIndex], graph: &mut Graph) {
    let lives = Lives::new(history, rare);
    for (index, wait) in history.events.iter().enumerate() {
        if wait.op != Op::Call || wait.target == 0 {
            continue;
        }
        if let Some((exit, alone)) = lives.ended(history, wait) {
            let exited_ns = history.events[exit as usize].time_ns;
            let host = history.hosts.get(usize::from(wait.host));
            let whole = host.is_none_or(|h| complete(h, Ring::Rare, exited_ns, wait.time_ns));
            let proven = whole && alone;
            let (from, to) = ((exit, Side::End), (index as EventIndex, Side::End));
            let proof = if proven { Proof::Must } else { Proof::May };
            graph.push(from, to, EdgeKind::Task, proof);
        }
    }
}

/// How processes began and ended, by host and number, in order of time.
struct Lives {
    forks: HashMap<(u16, u32), Vec<EventIndex>>,
    exits: HashMap<(u16, u32), Vec<EventIndex>>,
    /// Host, process and its parent, as the hosts list them.
    parents: HashSet<(u16, u32, u32)>,
}

impl Lives {
    fn new(history: &History, rare: &[EventIndex]) -> Self {
        let (mut forks, mut exits) = (HashMap::new(), HashMap::new());
        for &index in rare {
            let event = &history.events[index as usize];
            let (of, number): (&mut HashMap<_, Vec<_>>, _) = match event.op {
                Op::Fork => (&mut forks, event.target),
                Op::Exit if event.flags.has(Flags::LAST_THREAD) => (&mut exits, event.pid),
                _ => continue,
            };
            of.entry((event.host, number)).or_default().push(index);
        }
        let listed = (0..=u16::MAX).zip(&history.hosts).flat_map(|(host, listed)| {
            listed.tasks.iter().map(move |task| (host, task.pid, task.parent))
        });
        Self { forks, exits, parents: listed.collect() }
    }

    /// The end that a wait told: the last one before it of its child, and whether it can be no other. The number is given to
    /// nobody else until the wait has taken note of it. But then the call may last: a process of that number that began while
    /// it was under way need not be the one that it was about.
    fn ended(&self, history: &History, wait: &Event) -> Option<(EventIndex, bool)> {
        let event = |index: EventIndex| &history.events[index as usize];
        let last = |of: &HashMap<(u16, u32), Vec<EventIndex>>, until_ns: u64| {
            let all = of.get(&(wait.host, wait.target))?;
            all[..all.partition_point(|&e| event(e).time_ns <= until_ns)].last().copied()
        };
        let exit = last(&self.exits, wait.time_ns)?;
        let exited_ns = event(exit).time_ns;
        let fork = last(&self.forks, wait.time_ns).map(event);
        let again = fork.is_some_and(|fork| fork.time_ns > exited_ns);
        let own = fork.is_some_and(|fork| fork.pid == wait.pid)
            || self.parents.contains(&(wait.host, wait.target, wait.pid));
        let began_meanwhile = fork.is_some_and(|fork| fork.time_ns > wait.begin_ns);
        let exits = &self.exits[&(wait.host, wait.target)];
        let alone = !began_meanwhile || exits.first() == Some(&exit);
        (own && !again).then_some((exit, alone))
    }
}
