//! When threads of a number began, by forks and by what the hosts list: between two such moments it is one thread's.

use std::collections::HashMap;

use crate::event::{EventIndex, History, Op};

pub(super) struct Births(HashMap<(u16, u32), Vec<u64>>);

impl Births {
    pub(super) fn new(history: &History, rare: &[EventIndex]) -> Self {
        let mut births: HashMap<(u16, u32), Vec<u64>> = HashMap::new();
        let rare = rare.iter().map(|&e| &history.events[e as usize]);
        for fork in rare.filter(|event| event.op == Op::Fork) {
            births.entry((fork.host, fork.target)).or_default().push(fork.time_ns);
        }
        // A fork may be in no recording: of whoever came into its scope later.
        for (host, listed) in (0..).zip(&history.hosts) {
            for task in &listed.tasks {
                births.entry((host, task.tid)).or_default().push(task.start_ns);
            }
        }
        births.values_mut().for_each(|births| births.sort_unstable());
        Self(births)
    }

    /// Whether another thread was given the number after one moment and until another.
    pub(super) fn between(&self, number: (u16, u32), after_ns: u64, until_ns: u64) -> bool {
        let births = self.0.get(&number).map_or(&[][..], Vec::as_slice);
        births.get(births.partition_point(|&ns| ns <= after_ns)).is_some_and(|&ns| ns <= until_ns)
    }
}
