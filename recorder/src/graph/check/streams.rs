//! Where calls lie in their streams, derived anew: the calls that share a stretch, and each one's limits.

use std::collections::HashMap;

use super::Known;
use super::bytes::{has_bytes, range};
use super::flow::{Limits, fits};
use crate::event::{Event, EventIndex, Flags, Op};

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
}

impl Streams {
    pub(super) fn new(events: &[Event], floors: &[u64]) -> Self {
        let mut streams: HashMap<(u16, u64, Op, u32), Vec<EventIndex>> = HashMap::new();
        for (index, event) in events.iter().enumerate() {
            let moves = has_bytes(event) && !event.flags.has(Flags::PEEK);
            if moves && matches!(event.op, Op::Send | Op::Recv) {
                let key = (event.host, event.socket, event.op, event.irs);
                streams.entry(key).or_default().push(index as EventIndex);
            }
        }
        let group = vec![u32::MAX; events.len()];
        let mut all = Self { groups: Vec::new(), group, trimmed: HashMap::new() };
        for calls in streams.values_mut() {
            let end = |&e: &EventIndex| events[e as usize].stream_end;
            calls.sort_by_key(end);
            all.cut(events, floors, calls);
        }
        for group in 0..all.groups.len() {
            all.trim(events, floors, group);
        }
        all
    }

    /// Cuts a stream where the calls below fill it, or where none above can reach below.
    fn cut(&mut self, events: &[Event], floors: &[u64], calls: &[EventIndex]) {
        let mut lowest = vec![u64::MAX; calls.len()];
        for at in (1..calls.len()).rev() {
            lowest[at - 1] = lowest[at].min(floors[calls[at] as usize]);
        }
        let mut group = Group::default();
        for (at, &call) in calls.iter().enumerate() {
            let event = &events[call as usize];
            group.members.push(call);
            self.group[call as usize] = self.groups.len() as u32;
            group.end = event.stream_end;
            group.sum += event.stream_end - event.stream_start;
            let next = calls.get(at + 1).map(|&next| events[next as usize].stream_end);
            let full = group.base + group.sum == group.end && next != Some(group.end);
            if full || lowest[at] >= group.end || next.is_none() {
                let base = group.end;
                self.groups.push(std::mem::take(&mut group));
                group.base = base;
            }
        }
    }

    /// Takes what exact calls have from the limits of those they raced with, again and again.
    fn trim(&mut self, events: &[Event], floors: &[u64], group: usize) {
        let group = &self.groups[group];
        let raced = (2..=GROUP_MAX).contains(&group.members.len());
        if !raced || group.base + group.sum != group.end {
            return;
        }
        let of =
            |&call: &EventIndex| limits(&events[call as usize], floors[call as usize], group.base);
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

    /// A call's limits, as its own end of the connection counts.
    fn limits(&self, known: &Known<'_>, call: EventIndex) -> Limits {
        if let Some(limits) = self.trimmed.get(&call) {
            return *limits;
        }
        let group = self.groups.get(self.group[call as usize] as usize);
        limits(known.event(call), known.floors[call as usize], group.map_or(0, |g| g.base))
    }

    /// Whether a send's bytes and a receive's meet wherever they lie.
    pub(super) fn must_meet(
        &self,
        known: &Known<'_>,
        send: EventIndex,
        receive: EventIndex,
    ) -> bool {
        let (sender, receiver) = (known.event(send), known.event(receive));
        let shift = range(sender, receiver).0 - sender.stream_start;
        let (sent, received) = (self.limits(known, send), self.limits(known, receive));
        // The stream's first byte is its first byte however it is counted.
        let start = if sent.start == 0 { 0 } else { sent.start + shift };
        let one = (start, sent.end + shift);
        let other = (received.start, received.end);
        let common = one.1.min(other.1).saturating_sub(one.0.max(other.0));
        let room = one.1 - one.0 + other.1 - other.0 - common;
        if common > 0 && sent.len + received.len > room {
            return true;
        }
        match (sent.is_exact(), received.is_exact()) {
            (true, true) => false,
            (_, true) => {
                let bytes = (other.0.saturating_sub(shift), other.1.saturating_sub(shift));
                !self.can_avoid(known, send, bytes)
            }
            (true, _) => !self.can_avoid(known, receive, one),
            (false, false) => false,
        }
    }

    /// Whether the calls of a group can have shared out its stretch so that one took none of some bytes.
    fn can_avoid(&self, known: &Known<'_>, call: EventIndex, bytes: (u64, u64)) -> bool {
        let Some(group) = self.groups.get(self.group[call as usize] as usize) else { return true };
        if group.members.len() > GROUP_MAX {
            return false;
        }
        let number = group.members.iter().position(|&member| member == call);
        let limits = group.members.iter().map(|&member| self.limits(known, member));
        number.is_none_or(|number| fits(&limits.collect::<Vec<_>>(), number, bytes))
    }
}

/// A call's limits by what it and its thread's call before it reported, and by where its group begins.
fn limits(event: &Event, floor: u64, base: u64) -> Limits {
    let start = floor.max(base).min(event.stream_start);
    Limits { len: event.stream_end - event.stream_start, start, end: event.stream_end }
}
