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
        let mut all = Self { groups: Vec::new(), group: vec![u32::MAX; events.len()] };
        for calls in streams.values_mut() {
            let end = |&e: &EventIndex| events[e as usize].stream_end;
            calls.sort_by_key(end);
            all.cut(events, floors, calls);
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

    /// A call's limits, as its own end of the connection counts.
    fn limits(&self, known: &Known<'_>, call: EventIndex) -> Limits {
        let event = known.event(call);
        let len = event.stream_end - event.stream_start;
        if event.flags.has(Flags::PEEK) {
            let start = known.floors[call as usize].min(event.stream_start);
            return Limits { len, start, end: event.stream_end };
        }
        let group = &self.groups[self.group[call as usize] as usize];
        let start = known.floors[call as usize].max(group.base).min(event.stream_start);
        Limits { len, start, end: event.stream_end }
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
        let one = (sent.start + shift, sent.end + shift);
        let other = (received.start, received.end);
        let common = one.1.min(other.1).saturating_sub(one.0.max(other.0));
        let room = one.1 - one.0 + other.1 - other.0 - common;
        if common > 0 && sent.len + received.len > room {
            return true;
        }
        let exact = |limits: Limits| limits.end - limits.start == limits.len;
        match (exact(sent), exact(received)) {
            (true, true) => false,
            (_, true) => {
                let bytes = (other.0.saturating_sub(shift), other.1.saturating_sub(shift));
                !self.can_avoid(known, send, bytes)
            }
            (true, _) => !self.can_avoid(known, receive, one),
            // Where both raced, this derivation is too simple to tell.
            (false, false) => self.raced(send) && self.raced(receive),
        }
    }

    fn raced(&self, call: EventIndex) -> bool {
        let group = self.groups.get(self.group[call as usize] as usize);
        group.is_some_and(|group| group.members.len() > 1)
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
