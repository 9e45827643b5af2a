//! Where in a stream each call's bytes lie, worked out from what the calls reported.
//!
//! A call reports the stream's counter as it read it at its end, when it no longer held the socket: other
//! threads' calls may have moved it on by then. So what is certain is this:
//!
//! * a call's bytes end at or below what it reported;
//! * they begin at or above what its own thread's previous call reported;
//! * no two calls share a byte.
//!
//! With one thread the first two already leave one place. Where calls raced, the calls between two
//! offsets that are filled exactly by them form a group, and all orders of the group that respect
//! the three facts are walked.

mod solve;
#[cfg(test)]
mod tests;

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
    /// All that happened during the call is in the recording.
    pub trusted: bool,
}

/// A call's bytes begin in `lo ..= hi`.
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
}

/// Works out the places. `lossless`: every call on the socket is there, but for those of parties that
/// cannot be seen at all, of which it is assumed that they do not race with the seen ones.
pub(super) fn tile(calls: &[Call], lossless: bool) -> Tiling {
    let mut tiling = Tiling { places: outer_places(calls), holes: Vec::new() };
    if calls.iter().all(|call| call.thread == 0) {
        settle_alone(calls, lossless, &mut tiling);
        return tiling;
    }
    let mut order: Vec<u32> =
        (0..calls.len() as u32).filter(|&c| !calls[c as usize].peek).collect();
    let end = |&c: &u32| calls[c as usize].end;
    if !order.is_sorted_by_key(end) {
        order.sort_by_key(end);
    }
    for group in groups(calls, &order, &tiling.places, lossless) {
        settle(calls, &order[group.from..group.to], &group, lossless, &mut tiling);
    }
    tiling
}

/// One thread's calls race with none that are seen: each lies as high as it says, unless an unseen one
/// may have moved the counter on.
fn settle_alone(calls: &[Call], lossless: bool, tiling: &mut Tiling) {
    for (number, (call, place)) in calls.iter().zip(&mut tiling.places).enumerate() {
        if place.lo < place.hi && !call.peek {
            tiling.holes.push(Hole { start: place.lo, end: place.hi, before: number });
        }
        if lossless && call.trusted {
            place.lo = place.hi;
        }
    }
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
        floors[thread] = floors[thread].max(if call.peek { hi } else { call.end });
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
fn groups(calls: &[Call], order: &[u32], places: &[Place], lossless: bool) -> Vec<Group> {
    let lowest = lowest_after(order, places, |place| place.lo);
    let lowest_reported = lowest_after(order, places, |place| place.hi);
    let mut groups: Vec<Group> = Vec::new();
    let mut group = Group { from: 0, to: 0, base: 0, end: 0, sum: 0 };
    for (at, &call) in order.iter().enumerate() {
        let call = &calls[call as usize];
        (group.to, group.end, group.sum) = (at + 1, call.end, group.sum + call.len);
        let (later, later_reported) = (lowest[at], lowest_reported[at]);
        let full = group.base + group.sum == group.end
            && order.get(at + 1).is_none_or(|&next| calls[next as usize].end > group.end);
        if full || later >= group.end || lossless && later_reported >= group.end {
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

/// For each call in the order, the least value among those after it.
fn lowest_after(order: &[u32], places: &[Place], value: impl Fn(&Place) -> u64) -> Vec<u64> {
    let mut lowest = vec![u64::MAX; order.len()];
    for at in (1..order.len()).rev() {
        lowest[at - 1] = lowest[at].min(value(&places[order[at] as usize]));
    }
    lowest
}

/// Places the calls of one group.
fn settle(calls: &[Call], members: &[u32], group: &Group, lossless: bool, tiling: &mut Tiling) {
    let room = group.end - group.base;
    if group.sum == room {
        if let [only] = members {
            tiling.places[*only as usize] = Place { lo: group.base, hi: group.base };
        } else if let Some(places) = solve::solve(calls, members, &tiling.places, group.base) {
            for (&member, place) in members.iter().zip(places) {
                tiling.places[member as usize] = place;
            }
        }
        return;
    }
    let places = &mut tiling.places;
    for &member in members {
        let place = &mut places[member as usize];
        place.lo = place.lo.max(group.base).min(place.hi);
    }
    if group.sum > room {
        return;
    }
    let last = *members.last().expect("a group has a call") as usize;
    if let [only] = members {
        let place = &mut places[*only as usize];
        if lossless && calls[*only as usize].trusted {
            place.lo = place.hi;
        }
        tiling.holes.push(Hole { start: group.base, end: place.hi, before: last });
    } else {
        tiling.holes.push(Hole { start: group.base, end: group.end, before: last });
    }
}
