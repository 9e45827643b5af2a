//! Connections whose packets are all lost: a packet that was shows it, and bytes that come through nevertheless contradict it.

use std::collections::HashSet;

use crate::event::{Address, Event, Flags, Name, Op};

/// Connections that are followed at most; the others are not confirmed.
const FOLLOWED_MAX: usize = 256;

/// What is followed of each fault's connections.
#[derive(Debug, Default)]
pub struct Holes {
    faults: HashSet<Name>,
    open: Vec<Hole>,
}

#[derive(Debug)]
struct Hole {
    fault: Name,
    socket: u64,
    /// The addresses of the end whose event it was, and of the other.
    ends: [Address; 2],
    /// Whether a packet has been lost.
    shown: bool,
    /// The first byte from that end of those that were lost.
    lost_from: Option<u64>,
}

impl Holes {
    /// Whether a fault has begun to lose all packets of some connection.
    pub fn are_of(&self, fault: Name) -> bool {
        self.faults.contains(&fault)
    }

    /// Follows the connection of a fault.
    pub fn begin(&mut self, fault: &Event) {
        self.faults.insert(fault.fault);
        if self.open.len() < FOLLOWED_MAX {
            let ends = [fault.local, fault.remote];
            // (That a process died shows a crash.)
            let shown = fault.signal != 0;
            let (fault, socket) = (fault.fault, fault.socket);
            self.open.push(Hole { fault, socket, ends, shown, lost_from: None });
        }
    }

    /// The fault that an event shows to be at work (true), or not to be.
    pub fn see(&mut self, event: &Event) -> Option<(Name, bool)> {
        if event.op == Op::Fault && event.flags.has(Flags::HEALED) {
            self.open.retain(|hole| hole.fault != event.fault);
        }
        let place = self.open.iter().position(|hole| hole.is_about(event))?;
        let hole = &mut self.open[place];
        if event.op == Op::Fault {
            return hole.lose(event).then_some((hole.fault, true));
        }
        let beyond = |from: u64| event.has_range() && event.stream_end > from;
        if event.op != Op::Recv || !hole.has_sent(event) || !hole.lost_from.is_some_and(beyond) {
            return None;
        }
        Some((self.open.swap_remove(place).fault, false))
    }
}

impl Hole {
    fn is_about(&self, event: &Event) -> bool {
        let [near, far] = self.ends;
        let ends = [event.local, event.remote];
        let same = event.socket == self.socket || ends == self.ends || ends == [far, near];
        same && match event.op {
            Op::Fault => event.in_kernel_lane() && event.fault == self.fault,
            _ => true,
        }
    }

    /// Takes note of a packet that was lost; whether it is the first.
    fn lose(&mut self, lost: &Event) -> bool {
        let sent = (lost.local == self.ends[0]) != lost.flags.has(Flags::INCOMING);
        if sent && lost.has_range() {
            let from = self.lost_from.unwrap_or(u64::MAX);
            self.lost_from = Some(from.min(lost.stream_start));
        }
        !std::mem::replace(&mut self.shown, true)
    }

    /// Whether what an event receives came from the end that is cut off.
    fn has_sent(&self, event: &Event) -> bool {
        event.local == self.ends[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULT: Name = Name(7);
    const NEAR: [Address; 2] = [Address(1), Address(2)];
    const FAR: [Address; 2] = [Address(2), Address(1)];

    fn event(op: Op, [local, remote]: [Address; 2], range: [u64; 2], flags: Flags) -> Event {
        Event {
            local,
            remote,
            fault: FAULT,
            socket: 90 + u64::from(local.0),
            stream_start: range[0],
            stream_end: range[1],
            flags: flags.with(Flags::RANGE),
            ..Event::blank(op)
        }
    }

    fn holes() -> Holes {
        let mut holes = Holes::default();
        let begin = event(Op::Fault, NEAR, [0, 0], Flags::LOST.with(Flags::INCOMING));
        holes.begin(&Event { tid: 5, ..begin });
        holes
    }

    #[test]
    fn the_first_packet_that_is_lost_shows_it() {
        let mut holes = holes();
        assert!(holes.are_of(FAULT) && !holes.are_of(Name(8)));
        let lost = event(Op::Fault, FAR, [5, 9], Flags::LOST.with(Flags::INCOMING));
        assert_eq!(holes.see(&Event { fault: Name(8), ..lost }), None);
        assert_eq!([holes.see(&lost), holes.see(&lost)], [Some((FAULT, true)), None]);
    }

    #[test]
    fn bytes_that_come_through_contradict_it_until_it_heals() {
        let received = event(Op::Recv, FAR, [0, 9], Flags::NONE);
        let before = event(Op::Recv, FAR, [0, 5], Flags::NONE);
        let back = event(Op::Recv, NEAR, [0, 9], Flags::NONE);
        for lost in [
            event(Op::Fault, FAR, [5, 9], Flags::LOST.with(Flags::INCOMING)),
            event(Op::Fault, NEAR, [5, 9], Flags::LOST),
        ] {
            let mut holes = holes();
            assert_eq!(holes.see(&received), None, "it was under way");
            holes.see(&lost);
            assert_eq!([holes.see(&before), holes.see(&back)], [None, None]);
            assert_eq!(holes.see(&received), Some((FAULT, false)));
        }
        let mut holes = holes();
        holes.see(&event(Op::Fault, NEAR, [5, 9], Flags::LOST));
        holes.see(&event(Op::Fault, NEAR, [0, 0], Flags::HEALED));
        assert_eq!(holes.see(&received), None);
    }
}
