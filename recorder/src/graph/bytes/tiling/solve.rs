//! Walks all orders in which calls of several threads can fill a stretch of a stream.
//!
//! A state is how many of each thread's calls have been placed; the bytes placed so far follow from it.
//! A step places one thread's next call where the bytes end. States that cannot be reached from the
//! start, or from which the end cannot be reached, belong to no order.

use super::{Call, Place};

/// More states than this are not walked.
const STATES_MAX: usize = 1 << 14;

/// For each member (ordered by reported end) the least and greatest begin over all orders; `None` when
/// there are too many orders, or none at all.
pub(super) fn solve(
    calls: &[Call],
    members: &[u32],
    places: &[Place],
    base: u64,
) -> Option<Vec<Place>> {
    let threads = by_thread(calls, members);
    let mut strides = Vec::with_capacity(threads.len());
    let mut states: usize = 1;
    for thread in &threads {
        strides.push(states);
        states = states.checked_mul(thread.len() + 1).filter(|&s| s <= STATES_MAX)?;
    }
    // The step that a state allows a thread: which member it places.
    let placed =
        |state: usize, thread: usize| state / strides[thread] % (threads[thread].len() + 1);
    let filled = |state: usize| {
        let sum = |t: usize| -> u64 {
            threads[t][..placed(state, t)].iter().map(|&m| calls[members[m] as usize].len).sum()
        };
        base + (0..threads.len()).map(sum).sum::<u64>()
    };
    let step = |state: usize, thread: usize, start: u64| {
        let &member = threads[thread].get(placed(state, thread))?;
        let (call, place) = (&calls[members[member] as usize], &places[members[member] as usize]);
        (place.lo <= start && start <= place.hi && call.len > 0).then_some(member)
    };
    let mut reached = vec![false; states];
    reached[0] = true;
    for state in 0..states {
        if reached[state] {
            let start = filled(state);
            for thread in 0..threads.len() {
                if step(state, thread, start).is_some() {
                    reached[state + strides[thread]] = true;
                }
            }
        }
    }
    if !reached[states - 1] {
        return None;
    }
    let mut ends = vec![false; states];
    ends[states - 1] = true;
    let mut found = vec![Place { lo: u64::MAX, hi: 0 }; members.len()];
    for state in (0..states).rev().filter(|&state| reached[state]) {
        let start = filled(state);
        for thread in 0..threads.len() {
            let Some(member) = step(state, thread, start) else { continue };
            if ends[state + strides[thread]] {
                ends[state] = true;
                let place = &mut found[member];
                *place = Place { lo: place.lo.min(start), hi: place.hi.max(start) };
            }
        }
    }
    Some(found)
}

/// The members of each thread, in the thread's order: that of what its calls reported.
fn by_thread(calls: &[Call], members: &[u32]) -> Vec<Vec<usize>> {
    let mut names: Vec<u32> = Vec::new();
    let mut threads: Vec<Vec<usize>> = Vec::new();
    for (member, &call) in members.iter().enumerate() {
        let thread = calls[call as usize].thread;
        let known = names.iter().position(|&t| t == thread);
        let number = known.unwrap_or_else(|| {
            names.push(thread);
            threads.push(Vec::new());
            names.len() - 1
        });
        threads[number].push(member);
    }
    threads
}
