//! When threads of a number began, by forks and by what the hosts list: between two such moments it is one thread's.

use std::collections::HashMap;

use crate::event::{EventIndex, History, Op};

#[derive(Default)]
pub(super) struct Births(HashMap<(u16, u32), Vec<u64>>);

impl Births {
    pub(super) fn of_forks(history: &History, rare: &[EventIndex]) -> Self {
        let mut births = Self::default();
        let rare = rare.iter().map(|&e| &history.events[e as usize]);
        for fork in rare.filter(|event| event.op == Op::Fork) {
            births.0.entry((fork.host, fork.target)).or_default().push(fork.time_ns);
        }
        births
    }

    /// With those of whom the hosts list. A fork may be in no recording: of whoever came into its scope later.
    pub(super) fn and_listed(mut self, history: &History) -> Self {
        for (host, listed) in (0..=u16::MAX).zip(&history.hosts) {
            for task in &listed.tasks {
                self.0.entry((host, task.tid)).or_default().push(task.start_ns);
            }
        }
        self.0.values_mut().for_each(|births| births.sort_unstable());
        self
    }

    /// In order of time.
    pub(super) fn of(&self, number: (u16, u32)) -> &[u64] {
        self.0.get(&number).map_or(&[], Vec::as_slice)
    }

    /// Whether another thread was given the number after one moment and until another.
    pub(super) fn between(&self, number: (u16, u32), after_ns: u64, until_ns: u64) -> bool {
        next(self.of(number), after_ns).is_some_and(|ns| ns <= until_ns)
    }
}

/// The first of some births after a moment.
pub(super) fn next(births: &[u64], after_ns: u64) -> Option<u64> {
    births.get(births.partition_point(|&ns| ns <= after_ns)).copied()
}
