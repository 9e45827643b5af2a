//! Where in a stream each call's bytes lie, where the kernel tells no offsets: Unix sockets and pipes.
//!
//! The probes add up what calls move, each when it has returned. Calls that overlap in time may be counted in
//! another order than their bytes lie in the queue, so a call may lie above what it reported. What is certain:
//!
//! * all that was counted when a call began lies below it: at least what its thread's call before it reported;
//! * all that began when a call had been counted lies above it.
//!
//! A call that nobody recorded (a hole) can have begun at any time. So can one that had not returned when the recording
//! ended: of the threads that are known to use the stream each may be at one. What was counted since the last that was
//! heard of such a thread is not settled, and proves nothing.

use super::tiling::{Call, Hole, Place, Tiling};

/// Works out the places.
pub(super) fn tile(calls: &[Call]) -> Tiling {
    let mut order: Vec<usize> = (0..calls.len()).filter(|&call| !calls[call].peek).collect();
    order.sort_by_key(|&call| calls[call].end);
    let holes = holes(calls, &order);
    if holes.is_empty() && calls.iter().all(|call| call.thread == 0) {
        let places = calls.iter().map(exact).collect();
        return Tiling { places, settled: u64::MAX, ..Tiling::default() };
    }
    let floors = floors(calls);
    let later = Later::new(calls, &floors, &order, &holes);
    let place = |(call, &floor): (&Call, &u64)| {
        // Whoever reported as much as a peek may have taken more before it looked.
        let hi = match call.peek {
            true => later.total - later.from(call.end - call.len + 1),
            false => later.total - later.from(call.end) - call.len,
        };
        Place { lo: floor, hi: hi.max(floor) }
    };
    let places = calls.iter().zip(&floors).map(place).collect();
    let filled = filled(calls, &order, &floors, &holes);
    Tiling { places, holes, filled, bypassed: false, settled: settled(calls) }
}

fn exact(call: &Call) -> Place {
    let start = call.end.saturating_sub(call.len);
    Place { lo: start, hi: start }
}

/// What was counted and not recorded.
fn holes(calls: &[Call], order: &[usize]) -> Vec<Hole> {
    let mut reached = 0;
    let mut holes = Vec::new();
    for &before in order {
        let start = exact(&calls[before]).lo;
        if start > reached {
            holes.push(Hole { start: reached, end: start, before });
        }
        reached = reached.max(calls[before].end);
    }
    // What a peek found taken and nobody is known to have taken.
    let peeks = (0..calls.len()).filter(|&call| calls[call].peek);
    if let Some(before) = peeks.max_by_key(|&call| exact(&calls[call]).lo) {
        let start = exact(&calls[before]).lo;
        if start > reached {
            holes.push(Hole { start: reached, end: start, before });
        }
    }
    holes
}

/// For each call, what its thread's call before it reported.
fn floors(calls: &[Call]) -> Vec<u64> {
    let mut reported: Vec<u64> = Vec::new();
    let floor = |call: &Call| {
        let thread = call.thread as usize;
        if reported.len() <= thread {
            reported.resize(thread + 1, 0);
        }
        let start = exact(call).lo;
        let floor = reported[thread].min(start);
        if !call.peek {
            reported[thread] = reported[thread].max(call.end);
        }
        floor
    };
    calls.iter().map(floor).collect()
}

/// Up to where calls cannot be moved up by one that was under way at the end.
fn settled(calls: &[Call]) -> u64 {
    let mut reported: Vec<Option<u64>> = Vec::new();
    for call in calls.iter().filter(|call| !call.peek) {
        let thread = call.thread as usize;
        if reported.len() <= thread {
            reported.resize(thread + 1, None);
        }
        reported[thread] = reported[thread].max(Some(call.end));
    }
    let reported: Vec<u64> = reported.into_iter().flatten().collect();
    // Its own next call lies above all that a thread has made.
    if reported.len() < 2 { u64::MAX } else { reported.into_iter().min().unwrap_or(0) }
}

/// How many bytes were moved by calls that began when so much had been counted.
struct Later {
    total: u64,
    /// By floor: the bytes of the calls with this floor or a higher one.
    sums: Vec<(u64, u64)>,
}

impl Later {
    fn new(calls: &[Call], floors: &[u64], order: &[usize], holes: &[Hole]) -> Self {
        let mut sums: Vec<(u64, u64)> =
            order.iter().map(|&call| (floors[call], calls[call].len)).collect();
        sums.sort_unstable();
        let mut sum = 0;
        for (_, len) in sums.iter_mut().rev() {
            sum += *len;
            *len = sum;
        }
        let moved = order.last().map_or(0, |&call| calls[call].end);
        Self { total: holes.last().map_or(0, |hole| hole.end).max(moved), sums }
    }

    fn from(&self, count: u64) -> u64 {
        let first = self.sums.partition_point(|&(floor, _)| floor < count);
        self.sums.get(first).map_or(0, |&(_, sum)| sum).min(self.total)
    }
}

/// Stretches that several calls fill, it is not known how: between counts at which none was under way.
fn filled(calls: &[Call], order: &[usize], floors: &[u64], holes: &[Hole]) -> Vec<(u64, u64)> {
    // A hole's call may have begun at any time before.
    let holes_end = holes.last().map_or(0, |hole| hole.end);
    let mut lowest = vec![u64::MAX; order.len() + 1];
    for (at, &call) in order.iter().enumerate().rev() {
        lowest[at] = lowest[at + 1].min(floors[call]);
    }
    let (mut filled, mut base, mut first) = (Vec::new(), 0, 0);
    for (at, &call) in order.iter().enumerate() {
        let end = calls[call].end;
        if lowest[at + 1] < end || end <= holes_end {
            continue;
        }
        if at > first && base >= holes_end {
            filled.push((base, end));
        }
        (base, first) = (end, at + 1);
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls as `thread len`, `?len` for one that nobody recorded, `thread ^len` for a peek, in the order in which
    /// they were counted; the bytes that each lies within.
    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let mut end = 0;
        let mut calls = Vec::new();
        for word in text.split(" / ") {
            if let Some(hole) = word.strip_prefix('?') {
                end += hole.parse::<u64>().expect("a length");
                continue;
            }
            let (thread, length) = word.split_once(' ').expect("thread and length");
            let thread = u32::from(thread.as_bytes()[0] - b'a');
            let peek = length.starts_with('^');
            let len = length.trim_start_matches('^').parse().expect("a length");
            end += if peek { 0 } else { len };
            calls.push(Call { thread, end: end + if peek { len } else { 0 }, len, peek });
        }
        let tiling = tile(&calls);
        let shown =
            |(call, place): (&Call, &Place)| format!("{}..{}", place.lo, place.hi + call.len);
        let places: Vec<String> = calls.iter().zip(&tiling.places).map(shown).collect();
        assert_eq!(places, expected, "{text}");
    }

    #[test]
    fn one_thread_is_exact() {
        check("a 4 / a ^2 / a 5", &["0..4", "4..6", "4..9"]);
    }

    #[test]
    fn the_first_call_of_a_thread_may_have_begun_at_the_beginning() {
        check("a 4 / a 5 / b 2", &["0..6", "4..11", "0..11"]);
    }

    #[test]
    fn calls_that_follow_each_other_are_in_order() {
        // Once b has reported 6, nothing below 6 can be moved by what b does then; a's last call began after 6.
        check("a 4 / b 2 / b 3 / a 1", &["0..6", "0..7", "6..10", "4..10"]);
        check("a 4 / b 2 / a 3 / a 1 / b 5", &["0..6", "0..9", "4..14", "9..15", "6..15"]);
    }

    #[test]
    fn what_nobody_recorded_may_lie_anywhere_below() {
        check("a 4 / ?3 / a 2", &["0..7", "4..9"]);
        check("?3 / a 4 / a 2", &["0..7", "7..9"]);
        // What a peek looked at may have begun where others had not yet taken anything.
        check("?3 / a ^2", &["0..5"]);
        check("a 4 / ?3 / a ^2", &["0..7", "4..9"]);
    }

    #[test]
    fn a_stretch_in_which_calls_overlapped_is_filled_by_them() {
        let call = |thread, end, len| Call { thread, end, len, peek: false };
        let tiling = tile(&[call(0, 4, 4), call(1, 6, 2), call(0, 7, 1), call(1, 9, 2)]);
        assert_eq!(tiling.filled, [(0, 9)]);
        let alone = tile(&[call(0, 4, 4), call(0, 6, 2)]);
        assert_eq!(alone.filled, []);
    }

    #[test]
    fn every_place_that_can_be_is_within_the_limits() {
        // All orders in which two threads' calls can have been queued and counted, for small cases.
        let mut tried = 0;
        for seed in 0..20_000u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut draw = |below: u64| {
                random = (random ^ random >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                (random >> 33) % below
            };
            let (mut queued, mut counted) = (0, 0);
            let mut open: [Option<(u64, u64)>; 3] = [None; 3];
            let (mut calls, mut truth) = (Vec::new(), Vec::new());
            for turn in 0..12 {
                let thread = draw(3) as usize;
                match open[thread].take() {
                    // Nothing begins any more, so that all that began is counted.
                    None if turn > 7 => {}
                    None => {
                        let len = 1 + draw(4);
                        open[thread] = Some((queued, len));
                        queued += len;
                    }
                    Some((start, len)) => {
                        counted += len;
                        // One of ten is lost, but not the last.
                        if draw(10) > 0 || counted == queued {
                            calls.push(Call {
                                thread: thread as u32,
                                end: counted,
                                len,
                                peek: false,
                            });
                            truth.push(start);
                        }
                    }
                }
            }
            // What is still under way will be counted some time.
            for (thread, left) in open.iter().enumerate() {
                if let Some((start, len)) = left {
                    counted += len;
                    calls.push(Call {
                        thread: thread as u32,
                        end: counted,
                        len: *len,
                        peek: false,
                    });
                    truth.push(*start);
                }
            }
            let tiling = tile(&calls);
            for ((call, place), start) in calls.iter().zip(&tiling.places).zip(&truth) {
                assert!(
                    place.lo <= *start && *start <= place.hi,
                    "{seed}: {call:?} {place:?} {start}"
                );
                tried += usize::from(place.lo < place.hi);
            }
        }
        assert!(tried > 10_000, "{tried}");
    }
}
