//! Where calls lie in their streams, derived anew: the calls that share a stretch, and each one's limits.

use std::collections::{HashMap, HashSet};

use super::bytes::{has_bytes, is_counted};
use super::flow::{Limits, fits};
use crate::event::{Event, EventIndex, Flags, History, Op, Proof, Ring};

/// Larger groups of racing calls are not verified.
const GROUP_MAX: usize = 64;

/// Calls that lie in one stretch of a stream.
#[derive(Debug, Default)]
struct Group {
    members: Vec<EventIndex>,
    base: u64,
    end: u64,
    sum: u64,
}

/// The groups of all streams.
#[derive(Default)]
pub(super) struct Streams {
    groups: Vec<Group>,
    /// By event; `u32::MAX` for what moves no bytes on.
    group: Vec<u32>,
    /// Limits of calls that raced, without what the exact ones among them have taken.
    trimmed: HashMap<EventIndex, Limits>,
    /// By event: its limits by what it and its thread's call before it reported.
    calls: Vec<Limits>,
    /// Counted calls that one under way at the end, or lost there, may have moved up.
    unsettled: HashSet<EventIndex>,
}

impl Streams {
    /// Takes each call's limits by what it and its thread's call before it reported.
    pub(super) fn new(history: &History, mut calls: Vec<Limits>) -> Self {
        let events = &history.events;
        let mut streams: HashMap<(u16, u64, Op, u32), Vec<EventIndex>> = HashMap::new();
        let mut peeks = streams.clone();
        for (index, event) in events.iter().enumerate() {
            if has_bytes(event) && matches!(event.op, Op::Send | Op::Recv) {
                let key = (event.host, event.socket, event.op, event.irs);
                let all = if event.flags.has(Flags::PEEK) { &mut peeks } else { &mut streams };
                all.entry(key).or_default().push(index as EventIndex);
                // Of what only was looked at, others have taken what came before.
                streams.entry(key).or_default();
            }
        }
        let group = vec![u32::MAX; events.len()];
        let mut all = Self { group, ..Self::default() };
        for (key, members) in &mut streams {
            members.sort_by_key(|&call| calls[call as usize].end);
            let peeks = peeks.get(key).map_or(&[][..], Vec::as_slice);
            let first = members.iter().chain(peeks).next();
            let counted = first.is_some_and(|&call| is_counted(&events[call as usize]));
            let total = if counted { total(&calls, members, peeks) } else { 0 };
            all.cut(&calls, members, counted.then_some(total));
            if counted {
                all.unsettled.extend(unsettled(history, members, peeks));
                as_counted(events, members, peeks, total, &mut calls);
            }
        }
        for group in 0..all.groups.len() {
            all.trim(&calls, group);
        }
        all.calls = calls;
        all
    }

    /// Cuts a stream where the calls below fill it, or where none above can reach below. `counted` is what was counted
    /// in all, if it is a stream of which only that is known.
    fn cut(&mut self, calls: &[Limits], members: &[EventIndex], counted: Option<u64>) {
        let mut lowest = vec![u64::MAX; members.len()];
        if let (Some(lowest), Some(&last)) = (lowest.last_mut(), members.last())
            && counted.is_some_and(|total| total > calls[last as usize].end)
        {
            *lowest = 0;
        }
        for at in (1..members.len()).rev() {
            let call = calls[members[at] as usize];
            // Where calls are counted at their ends, one that was not recorded may have begun at any time.
            let hole =
                counted.is_some() && call.end - call.len > calls[members[at - 1] as usize].end;
            lowest[at - 1] = lowest[at].min(if hole { 0 } else { call.start });
        }
        let mut group = Group::default();
        for (at, &member) in members.iter().enumerate() {
            let call = calls[member as usize];
            group.members.push(member);
            self.group[member as usize] = self.groups.len() as u32;
            group.end = call.end;
            group.sum += call.len;
            let next = members.get(at + 1).map(|&next| calls[next as usize].end);
            let full =
                counted.is_none() && group.base + group.sum == group.end && next != Some(group.end);
            if full || lowest[at] >= group.end || next.is_none() {
                let base = group.end;
                self.groups.push(std::mem::take(&mut group));
                group.base = base;
            }
        }
    }

    /// Takes what exact calls have from the limits of those they raced with, again and again.
    fn trim(&mut self, calls: &[Limits], group: usize) {
        let group = &self.groups[group];
        let raced = (2..=GROUP_MAX).contains(&group.members.len());
        if !raced || group.base + group.sum != group.end {
            return;
        }
        let of = |&call: &EventIndex| calls[call as usize].above(group.base);
        let mut all: Vec<Limits> = group.members.iter().map(of).collect();
        for _ in 0..2 * GROUP_MAX {
            let exact: Vec<Limits> = all.iter().copied().filter(Limits::is_exact).collect();
            for limits in all.iter_mut().filter(|limits| !limits.is_exact()) {
                for taken in &exact {
                    if (taken.start..taken.end).contains(&limits.start) {
                        limits.start = taken.end;
                    }
                    if taken.start < limits.end && limits.end <= taken.end {
                        limits.end = taken.start;
                    }
                }
            }
        }
        self.trimmed.extend(group.members.iter().copied().zip(all));
    }

    fn limits(&self, call: EventIndex) -> Limits {
        if let Some(limits) = self.trimmed.get(&call) {
            return *limits;
        }
        let group = self.groups.get(self.group[call as usize] as usize);
        self.calls[call as usize].above(group.map_or(0, |group| group.base))
    }

    /// The bytes that a call's lie among.
    pub(super) fn within(&self, call: EventIndex) -> (u64, u64) {
        let limits = self.limits(call);
        (limits.start, limits.end)
    }

    /// Whether a send's bytes and a receive's meet if they lie somewhere within their limits.
    pub(super) fn can_meet(&self, send: EventIndex, receive: EventIndex) -> bool {
        let (sent, received) = (self.within(send), self.within(receive));
        sent.0 < received.1 && received.0 < sent.1
    }

    /// Whether a send's bytes and a receive's meet wherever they lie.
    pub(super) fn must_meet(&self, send: EventIndex, receive: EventIndex) -> bool {
        if self.unsettled.contains(&send) || self.unsettled.contains(&receive) {
            return false;
        }
        let (sent, received) = (self.limits(send), self.limits(receive));
        let (one, other) = ((sent.start, sent.end), (received.start, received.end));
        let common = one.1.min(other.1).saturating_sub(one.0.max(other.0));
        let room = one.1 - one.0 + other.1 - other.0 - common;
        if common > 0 && sent.len + received.len > room {
            return true;
        }
        match (sent.is_exact(), received.is_exact()) {
            (true, true) | (false, false) => false,
            (false, true) => !self.can_avoid(send, other),
            (true, false) => !self.can_avoid(receive, one),
        }
    }

    /// Whether the calls of a group can have shared out its stretch so that one took none of some bytes.
    fn can_avoid(&self, call: EventIndex, bytes: (u64, u64)) -> bool {
        let Some(group) = self.groups.get(self.group[call as usize] as usize) else { return true };
        if group.members.len() > GROUP_MAX {
            return false;
        }
        let number = group.members.iter().position(|&member| member == call);
        let limits = group.members.iter().map(|&member| self.limits(member));
        number.is_none_or(|number| fits(&limits.collect::<Vec<_>>(), number, bytes))
    }
}

/// The calls that reported more than the last that is known of another thread, which may have been at a call when the
/// recording ended; all calls, where the end of the recording may be missing.
fn unsettled<'a>(
    history: &'a History,
    members: &'a [EventIndex],
    peeks: &'a [EventIndex],
) -> impl Iterator<Item = EventIndex> + 'a {
    let event = |call: EventIndex| &history.events[call as usize];
    let calls = || members.iter().chain(peeks).copied();
    let mut latest: HashMap<u32, u64> = HashMap::new();
    for call in members.iter().map(|&member| event(member)) {
        let known = latest.entry(call.tid).or_insert(0);
        *known = (*known).max(call.stream_end);
    }
    let newest = calls().map(|call| event(call).time_ns).max().unwrap_or(0);
    let settled = match latest.len() {
        0 | 1 => u64::MAX,
        _ => latest.values().copied().min().unwrap_or(0),
    };
    let host = calls().next().and_then(|call| history.hosts.get(usize::from(event(call).host)));
    let torn = host.is_some_and(|host| {
        let gaps = host.gaps.iter().filter(|gap| gap.ring == Ring::Bulk);
        gaps.map(|gap| gap.to_ns).any(|to_ns| to_ns >= newest) || host.bulk_window.from_ns > newest
    });
    calls().filter(move |&call| torn || event(call).stream_end > settled)
}

/// What was counted in all: a peek tells what others had taken before it.
fn total(calls: &[Limits], members: &[EventIndex], peeks: &[EventIndex]) -> u64 {
    let of = |&call: &EventIndex| calls[call as usize];
    let before = peeks.iter().map(of).map(|peek| peek.end - peek.len).max().unwrap_or(0);
    members.last().map_or(0, |last| of(last).end).max(before)
}

/// Widens the limits of calls that were counted when they had returned: above such a call lies only what began when it
/// had been counted.
fn as_counted(
    events: &[Event],
    members: &[EventIndex],
    peeks: &[EventIndex],
    total: u64,
    calls: &mut [Limits],
) {
    let of = |call: EventIndex| calls[call as usize];
    let moved: u64 = members.iter().map(|&member| of(member).len).sum();
    let tid = |call: EventIndex| events[call as usize].tid;
    let all = members.iter().chain(peeks).copied();
    let first = all.clone().next().map(tid);
    if moved == total && all.clone().all(|call| Some(tid(call)) == first) {
        for call in all {
            let limits = &mut calls[call as usize];
            limits.start = limits.end - limits.len;
        }
        return;
    }
    // By where they began at the earliest, the latest first: what each and those before it moved.
    let mut begun: Vec<(u64, u64)> =
        members.iter().map(|&member| (of(member).start, of(member).len)).collect();
    begun.sort_unstable_by(|one, other| other.cmp(one));
    let mut sum = 0;
    for (_, len) in &mut begun {
        sum += *len;
        *len = sum;
    }
    let begun_after = |count: u64| match begun.partition_point(|&(start, _)| start >= count) {
        0 => 0,
        number => begun[number - 1].1,
    };
    for &call in members {
        let limits = &mut calls[call as usize];
        limits.end = total - begun_after(limits.end).min(total);
    }
    for &call in peeks {
        let limits = &mut calls[call as usize];
        let start = limits.end - limits.len;
        let latest = total - begun_after(start + 1).min(total);
        limits.end = latest.max(limits.start) + limits.len;
    }
}

/// The calls' limits, counted from the number that the other end knows: one that was computed may be one
/// too high, and then what was sent is counted one too low.
pub(super) fn as_the_peer_counts(events: &[Event], floors: &[u64]) -> Vec<Limits> {
    let numbered = events.iter().filter(|event| event.proof != Proof::Unknown);
    let pairs: HashSet<(u32, u32)> = numbered.map(|event| (event.irs, event.iss)).collect();
    let too_high = |event: &Event| {
        let known = |iss: u32| {
            pairs.contains(&(iss, event.irs)) || pairs.contains(&(iss, event.irs.wrapping_add(1)))
        };
        event.op == Op::Send
            && event.proof == Proof::Computed
            && !known(event.iss)
            && known(event.iss.wrapping_sub(1))
    };
    let limits = |(event, &floor): (&Event, &u64)| {
        if !has_bytes(event) {
            return Limits { len: 0, start: 0, end: 0 };
        }
        let by = u64::from(too_high(event));
        // The stream's first byte is its first byte however it is counted.
        let floor = if floor == 0 { 0 } else { floor + by };
        let (start, end) = (event.stream_start + by, event.stream_end + by);
        Limits { len: end - start, start: floor.min(start), end }
    };
    events.iter().zip(floors).map(limits).collect()
}
