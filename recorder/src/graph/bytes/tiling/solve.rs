//! Walks all orders in which calls of several threads can fill a stretch of a stream.
//!
//! A state is how many of each thread's calls have been placed. A step places one thread's next call where
//! the bytes placed so far end. States are walked in layers, by how many calls are placed, so that
//! a race may go on for ever as long as few calls race at any one time. What no way from the start to
//! the end passes through belongs to no order.

use std::collections::HashMap;

use super::{Call, Place};

/// More states than this in one layer are not walked.
const WIDTH_MAX: usize = 512;
/// More steps than this per call are not walked, whatever the width; short groups may take more.
const STEPS_PER_CALL: usize = 48;
const STEPS_MIN: usize = 1 << 14;

/// A call that is placed, at `start`; leads from a state of one layer to a state of the next.
struct Step {
    from: u32,
    to: u32,
    member: u32,
    start: u64,
}

/// For each member (ordered by reported end) the least and greatest begin over all orders; `None` when
/// there are too many orders, or none at all.
pub(super) fn solve(
    calls: &[Call],
    members: &[u32],
    places: &[Place],
    base: u64,
) -> Option<Vec<Place>> {
    let race = Race { calls, members, places, threads: by_thread(calls, members) };
    let budget = STEPS_MIN.max(members.len() * STEPS_PER_CALL);
    let mut steps: Vec<Step> = Vec::new();
    let mut layers = Vec::with_capacity(members.len());
    let mut states: Vec<(Vec<u32>, u64)> = vec![(vec![0; race.threads.len()], base)];
    for _ in 0..members.len() {
        let first = steps.len();
        states = race.next_layer(&states, &mut steps);
        if states.is_empty() || states.len() > WIDTH_MAX || steps.len() > budget {
            return None;
        }
        layers.push(first..steps.len());
    }
    // All calls are placed, so one state is left. Back from it, each step that a way passes counts.
    let mut found = vec![Place { lo: u64::MAX, hi: 0 }; members.len()];
    let mut leads_on = vec![true];
    for layer in layers.into_iter().rev() {
        let mut before = Vec::new();
        for step in &steps[layer] {
            if !leads_on[step.to as usize] {
                continue;
            }
            let from = step.from as usize;
            if before.len() <= from {
                before.resize(from + 1, false);
            }
            before[from] = true;
            let place = &mut found[step.member as usize];
            *place = Place { lo: place.lo.min(step.start), hi: place.hi.max(step.start) };
        }
        before.resize(WIDTH_MAX, false);
        leads_on = before;
    }
    Some(found)
}

struct Race<'a> {
    calls: &'a [Call],
    members: &'a [u32],
    places: &'a [Place],
    /// The members of each thread, in the thread's order.
    threads: Vec<Vec<u32>>,
}

impl Race<'_> {
    /// All states that one more call leads to, and the steps that lead there.
    fn next_layer(
        &self,
        states: &[(Vec<u32>, u64)],
        steps: &mut Vec<Step>,
    ) -> Vec<(Vec<u32>, u64)> {
        let mut index: HashMap<Vec<u32>, u32> = HashMap::new();
        let mut next = Vec::new();
        for (from, (placed, start)) in states.iter().enumerate() {
            for thread in 0..self.threads.len() {
                let Some(member) = self.upcoming(placed, thread) else { continue };
                let call = self.members[member as usize] as usize;
                if self.places[call].lo > *start {
                    continue;
                }
                let mut placed = placed.clone();
                placed[thread] += 1;
                let end = start + self.calls[call].len;
                if !self.can_go_on(&placed, end) {
                    continue;
                }
                let to = *index.entry(placed).or_insert_with_key(|placed| {
                    next.push((placed.clone(), end));
                    next.len() as u32 - 1
                });
                steps.push(Step { from: from as u32, to, member, start: *start });
            }
        }
        next
    }

    fn upcoming(&self, placed: &[u32], thread: usize) -> Option<u32> {
        self.threads[thread].get(placed[thread] as usize).copied()
    }

    /// Whether no thread's next call would have had to begin earlier.
    fn can_go_on(&self, placed: &[u32], start: u64) -> bool {
        (0..self.threads.len()).all(|thread| {
            self.upcoming(placed, thread).is_none_or(|member| {
                start <= self.places[self.members[member as usize] as usize].hi
            })
        })
    }
}

/// The members of each thread, in the thread's order: that of what its calls reported.
fn by_thread(calls: &[Call], members: &[u32]) -> Vec<Vec<u32>> {
    let mut names: HashMap<u32, usize> = HashMap::new();
    let mut threads: Vec<Vec<u32>> = Vec::new();
    for (member, &call) in members.iter().enumerate() {
        let number = *names.entry(calls[call as usize].thread).or_insert_with(|| {
            threads.push(Vec::new());
            threads.len() - 1
        });
        threads[number].push(member as u32);
    }
    threads
}
