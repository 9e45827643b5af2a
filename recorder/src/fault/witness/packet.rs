//! Single packets that were lost: that a connection's other end sends the same bytes again shows that they were.

use std::collections::HashMap;

use crate::event::{Address, Event, Flags, Name, Op};

/// Packets that are waited for at most; of those beyond it the fault's own event has to do.
const WAITING_MAX: usize = 4096;

/// Packets that have not been sent again, by the two ends of their sender's socket.
#[derive(Debug, Default)]
pub struct Packets {
    waiting: HashMap<[Address; 2], Way>,
    count: usize,
}

#[derive(Debug, Default)]
struct Way {
    /// The first byte of each, and the fault that lost it.
    packets: Vec<(u64, Name)>,
    /// Events of the sender are in the recording: there, what is sent again would be.
    recorded: bool,
}

impl Packets {
    /// Takes note of a packet that was lost; false: nothing is to be seen of it but that.
    pub fn lose(&mut self, lost: &Event) -> bool {
        // (What was lost where it left is not sent again: it counts as not sent yet.)
        if !lost.has_range() || !lost.flags.has(Flags::INCOMING) || self.count == WAITING_MAX {
            return false;
        }
        let way = self.waiting.entry([lost.remote, lost.local]).or_default();
        way.packets.push((lost.stream_start, lost.fault));
        self.count += 1;
        true
    }

    /// The faults of packets that an event shows to have been lost.
    pub fn see(&mut self, event: &Event) -> Vec<Name> {
        if self.count == 0 || event.op == Op::Fault {
            return Vec::new();
        }
        let Some(way) = self.waiting.get_mut(&[event.local, event.remote]) else {
            return Vec::new();
        };
        way.recorded = true;
        let again = |packet: &mut (u64, Name)| {
            event.op == Op::Retransmit && event.has_range() && packet.0 == event.stream_start
        };
        let shown: Vec<Name> = way.packets.extract_if(.., again).map(|(_, fault)| fault).collect();
        self.count -= shown.len();
        shown
    }

    /// How many of a fault's packets nobody in the recording could have sent again.
    pub fn unseen(&self, fault: Name) -> u64 {
        let ways = self.waiting.values().filter(|way| !way.recorded);
        let packets = ways.flat_map(|way| &way.packets);
        packets.filter(|(_, of)| *of == fault).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULT: Name = Name(7);
    const ENDS: [Address; 2] = [Address(1), Address(2)];

    /// An event of the sender, or of the receiver.
    fn event(op: Op, [local, remote]: [Address; 2], start: u64) -> Event {
        let flags = if op == Op::Fault { Flags::INCOMING } else { Flags::NONE };
        Event {
            local,
            remote,
            fault: FAULT,
            stream_start: start,
            stream_end: start + 1,
            flags: flags.with(Flags::RANGE),
            ..Event::blank(op)
        }
    }

    #[test]
    fn what_is_sent_again_was_lost() {
        let [sender, receiver] = [ENDS, [ENDS[1], ENDS[0]]];
        let mut packets = Packets::default();
        assert!(packets.lose(&event(Op::Fault, receiver, 2)));
        assert_eq!(packets.unseen(FAULT), 1, "the sender may not be in the recording");
        for (other, why) in [
            (event(Op::Retransmit, sender, 3), "other bytes"),
            (event(Op::Retransmit, receiver, 2), "the other way"),
            (event(Op::Send, sender, 2), "not again"),
        ] {
            assert!(packets.see(&other).is_empty(), "{why}");
        }
        assert_eq!(packets.unseen(FAULT), 0, "it is, and has sent nothing again");
        assert_eq!(packets.see(&event(Op::Retransmit, sender, 2)), [FAULT]);
        assert!(packets.see(&event(Op::Retransmit, sender, 2)).is_empty(), "once");
    }

    #[test]
    fn what_leaves_no_trace_is_not_waited_for() {
        let mut packets = Packets::default();
        let lost = event(Op::Fault, ENDS, 2);
        assert!(!packets.lose(&Event { flags: Flags::RANGE, ..lost }), "it counts as not sent yet");
        assert!(!packets.lose(&Event { flags: Flags::INCOMING, ..lost }), "a datagram");
        for _ in 0..WAITING_MAX {
            assert!(packets.lose(&lost));
        }
        assert!(!packets.lose(&lost), "there is a bound");
    }
}
