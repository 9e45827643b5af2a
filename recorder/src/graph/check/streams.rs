//! Where calls lie in their streams, derived anew: the calls that share a stretch, and each one's limits.

use std::collections::{HashMap, HashSet};

use super::bytes::has_bytes;
use super::flow::{Limits, fits};
use crate::event::{Event, EventIndex, Flags, Op, Proof};

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
pub(super) struct Streams {
    groups: Vec<Group>,
    /// By event; `u32::MAX` for what moves no bytes on.
    group: Vec<u32>,
    /// Limits of calls that raced, without what the exact ones among them have taken.
    trimmed: HashMap<EventIndex, Limits>,
    /// By event: its limits by what it and its thread's call before it reported.
    calls: Vec<Limits>,
}

impl Streams {
    pub(super) fn new(events: &[Event], floors: &[u64]) -> Self {
        let calls: Vec<Limits> = as_the_peer_counts(events, floors);
        let mut streams: HashMap<(u16, u64, Op, u32), Vec<EventIndex>> = HashMap::new();
        for (index, event) in events.iter().enumerate() {
            let moves = has_bytes(event) && !event.flags.has(Flags::PEEK);
            if moves && matches!(event.op, Op::Send | Op::Recv) {
                let key = (event.host, event.socket, event.op, event.irs);
                streams.entry(key).or_default().push(index as EventIndex);
            }
        }
        let group = vec![u32::MAX; events.len()];
        let mut all =
            Self { groups: Vec::new(), group, trimmed: HashMap::new(), calls: Vec::new() };
        for members in streams.values_mut() {
            members.sort_by_key(|&call| calls[call as usize].end);
            all.cut(&calls, members);
        }
        for group in 0..all.groups.len() {
            all.trim(&calls, group);
        }
        all.calls = calls;
        all
    }

    /// Cuts a stream where the calls below fill it, or where none above can reach below.
    fn cut(&mut self, calls: &[Limits], members: &[EventIndex]) {
        let mut lowest = vec![u64::MAX; members.len()];
        for at in (1..members.len()).rev() {
            lowest[at - 1] = lowest[at].min(calls[members[at] as usize].start);
        }
        let mut group = Group::default();
        for (at, &member) in members.iter().enumerate() {
            let call = calls[member as usize];
            group.members.push(member);
            self.group[member as usize] = self.groups.len() as u32;
            group.end = call.end;
            group.sum += call.len;
            let next = members.get(at + 1).map(|&next| calls[next as usize].end);
            let full = group.base + group.sum == group.end && next != Some(group.end);
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

    /// Whether a send's bytes and a receive's meet wherever they lie.
    pub(super) fn must_meet(&self, send: EventIndex, receive: EventIndex) -> bool {
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

/// The calls' limits, counted from the number that the other end knows: one that was computed may be one
/// too high, and then what was sent is counted one too low.
fn as_the_peer_counts(events: &[Event], floors: &[u64]) -> Vec<Limits> {
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
