//! Where in a stream each call's bytes lie, worked out from what the calls reported.
//!
//! A call reports the stream's counter as it read it at its end, when it no longer held the socket: other
//! threads' calls may have moved it on by then. So what is certain is this:
//!
//! * a call's bytes end at or below what it reported;
//! * they begin at or above what its own thread's previous call, if not a peek, reported;
//! * no two calls share a byte.
//!
//! With one thread and no unseen ones the first two leave one place. Where calls raced, the calls between two
//! offsets that are filled exactly by them form a group, and none of them lies outside it. A call that
//! has to wait (a send for room, a receive that wants all it asked for) gives up the socket and lets
//! others in, so its bytes need not be one run: unless exact, they are some of those within its limits.
//!
//! Where calls contradict these facts, something else is between the socket and its stream.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

/// One call, in its thread's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// Number of its thread, counted from 0.
    pub thread: u32,
    /// The counter that it reported.
    pub end: u64,
    /// Never 0.
    pub len: u64,
    /// It looked at bytes and left them.
    pub peek: bool,
}

/// A call's bytes lie in `lo .. hi + len`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub lo: u64,
    pub hi: u64,
}

/// Bytes below call `before` that no call took. Where calls raced, only some bytes of it are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub start: u64,
    pub end: u64,
    pub before: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tiling {
    /// One per call, in the calls' order.
    pub places: Vec<Place>,
    pub holes: Vec<Hole>,
    /// Stretches in which calls raced, and which seen calls alone fill; in order.
    pub filled: Vec<(u64, u64)>,
    /// Calls moved more bytes than the counter did: something passes bytes by the stream (sockmap, kTLS), and the
    /// places mean nothing.
    pub bypassed: bool,
    /// Calls that reported more than this prove nothing.
    pub settled: u64,
}

/// Works out the places.
pub(super) fn tile(calls: &[Call]) -> Tiling {
    if bypassed(calls) {
        return Tiling { places: outer_places(calls), bypassed: true, ..Tiling::default() };
    }
    let mut tiling = Tiling { places: outer_places(calls), settled: u64::MAX, ..Tiling::default() };
    if calls.iter().all(|call| call.thread == 0) {
        let places = calls.iter().zip(&tiling.places).enumerate();
        let below = places.filter(|(_, (call, place))| place.lo < place.hi && !call.peek);
        tiling.holes = below
            .map(|(before, (_, place))| Hole { start: place.lo, end: place.hi, before })
            .collect();
        return tiling;
    }
    let mut order: Vec<u32> =
        (0..calls.len() as u32).filter(|&c| !calls[c as usize].peek).collect();
    let end = |&c: &u32| calls[c as usize].end;
    if !order.is_sorted_by_key(end) {
        order.sort_by_key(end);
    }
    for group in groups(calls, &order, &tiling.places) {
        settle(calls, &order[group.from..group.to], &group, &mut tiling);
    }
    tiling
}

/// Whether the counter stood still where bytes were moved.
fn bypassed(calls: &[Call]) -> bool {
    let mut floors: Vec<u64> = Vec::new();
    for call in calls {
        let thread = call.thread as usize;
        if floors.len() <= thread {
            floors.resize(thread + 1, 0);
        }
        let start = call.end.saturating_sub(call.len);
        if start < floors[thread] {
            return true;
        }
        if !call.peek {
            floors[thread] = call.end;
        }
    }
    // All calls that end at or below an offset lie below it.
    let mut order: Vec<&Call> = calls.iter().filter(|call| !call.peek).collect();
    order.sort_by_key(|call| call.end);
    let mut moved = 0;
    order.iter().any(|call| {
        moved += call.len;
        moved > call.end
    })
}

/// What the first two facts say of each call alone.
fn outer_places(calls: &[Call]) -> Vec<Place> {
    let mut floors: Vec<u64> = Vec::new();
    let place = |call: &Call| {
        let thread = call.thread as usize;
        if floors.len() <= thread {
            floors.resize(thread + 1, 0);
        }
        let hi = call.end.saturating_sub(call.len);
        let lo = floors[thread].min(hi);
        // A peek may have looked further ahead than the counter stands (SO_PEEK_OFF).
        if !call.peek {
            floors[thread] = floors[thread].max(call.end);
        }
        Place { lo, hi }
    };
    calls.iter().map(place).collect()
}

/// Calls that fill, or share with holes, the bytes `base..end`.
#[derive(Clone, Copy, Debug)]
struct Group {
    /// Range of the order.
    from: usize,
    to: usize,
    base: u64,
    end: u64,
    /// Sum of the calls' lengths.
    sum: u64,
}

/// Cuts the calls, ordered by what they reported, where no call can lie on both sides of the cut.
fn groups(calls: &[Call], order: &[u32], places: &[Place]) -> Vec<Group> {
    let lowest = lowest_after(order, places);
    let mut groups: Vec<Group> = Vec::new();
    let mut group = Group { from: 0, to: 0, base: 0, end: 0, sum: 0 };
    for (at, &call) in order.iter().enumerate() {
        let call = &calls[call as usize];
        (group.to, group.end, group.sum) = (at + 1, call.end, group.sum + call.len);
        let full = group.base + group.sum == group.end
            && order.get(at + 1).is_none_or(|&next| calls[next as usize].end > group.end);
        if full || lowest[at] >= group.end {
            // More bytes than there is room for: some of these calls belong lower, in a hole.
            while group.sum > group.end - group.base {
                let Some(lower) = groups.pop() else { break };
                group = Group { to: group.to, end: group.end, sum: lower.sum + group.sum, ..lower };
            }
            groups.push(group);
            group = Group { from: at + 1, to: at + 1, base: call.end, end: call.end, sum: 0 };
        }
    }
    groups
}

/// For each call in the order, where those after it may begin at the lowest.
fn lowest_after(order: &[u32], places: &[Place]) -> Vec<u64> {
    let mut lowest = vec![u64::MAX; order.len()];
    for at in (1..order.len()).rev() {
        lowest[at - 1] = lowest[at].min(places[order[at] as usize].lo);
    }
    lowest
}

/// Places the calls of one group.
fn settle(calls: &[Call], members: &[u32], group: &Group, tiling: &mut Tiling) {
    let room = group.end - group.base;
    let places = &mut tiling.places;
    for &member in members {
        let place = &mut places[member as usize];
        place.lo = place.lo.max(group.base).min(place.hi);
    }
    let last = *members.last().expect("a group has a call") as usize;
    match (group.sum.cmp(&room), members) {
        (Ordering::Equal, [only]) => {
            places[*only as usize] = Place { lo: group.base, hi: group.base };
        }
        (Ordering::Equal, _) => {
            trim(calls, members, places);
            tiling.filled.push((group.base, group.end));
        }
        (Ordering::Less, [_]) => {
            tiling.holes.push(Hole { start: group.base, end: places[last].hi, before: last });
        }
        (Ordering::Less, _) => {
            tiling.holes.push(Hole { start: group.base, end: group.end, before: last });
        }
        // More bytes than there is room for: nothing more can be said.
        (Ordering::Greater, _) => {}
    }
}

/// How often exact calls are cut from the others' limits, which may make more of them exact.
const TRIMS_MAX: usize = 8;

/// Scattered bytes cannot lie where an exact call's do.
fn trim(calls: &[Call], members: &[u32], places: &mut [Place]) {
    for _ in 0..TRIMS_MAX {
        let exact = members.iter().filter(|&&m| places[m as usize].lo == places[m as usize].hi);
        let mut taken: Vec<(u64, u64)> = exact
            .map(|&m| (places[m as usize].lo, places[m as usize].lo + calls[m as usize].len))
            .collect();
        taken.sort_unstable();
        let mut changed = false;
        for &member in members {
            let (place, len) = (&mut places[member as usize], calls[member as usize].len);
            let before = *place;
            while let Some(&(_, end)) = around(&taken, place.lo).filter(|_| place.lo < place.hi) {
                place.lo = end.min(place.hi);
            }
            while let Some(&(start, _)) =
                around(&taken, place.hi + len - 1).filter(|_| place.lo < place.hi)
            {
                place.hi = start.saturating_sub(len).max(place.lo);
            }
            changed |= *place != before;
        }
        if !changed {
            break;
        }
    }
}

/// The range that an offset lies in.
fn around(ranges: &[(u64, u64)], offset: u64) -> Option<&(u64, u64)> {
    let next = ranges.partition_point(|range| range.0 <= offset);
    ranges[..next].last().filter(|range| offset < range.1)
}
