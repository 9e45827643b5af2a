//! What was seen of each fault: whether what was intended came about. Judged by the recording's own events, not by
//! what the kernel half says of itself.

mod cut;
mod hole;
mod packet;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use cut::Cut;
use hole::Holes;
use packet::Packets;

use crate::event::{Event, Flags, Name, Names, Op};

/// Follows the events of one recording.
#[derive(Debug, Default)]
pub struct Witness {
    /// By thread: the last fault whose effect is still to come.
    waiting: HashMap<u32, Event>,
    /// By socket: the fault that destroys it, until its error is seen.
    destroying: HashMap<u64, Event>,
    /// By process: the fault for which it takes another's place, until it begins its program.
    beginning: HashMap<u32, Name>,
    /// Faults that cut a network, as against those that lose single packets.
    cuts: HashMap<Name, Cut>,
    packets: Packets,
    holes: Holes,
    seen: HashMap<Name, Seen>,
}

/// What was seen of one fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Events of the fault itself.
    pub injected: u64,
    /// Of these, those whose event then had the intended result; of a cut, those whose packet other events miss.
    pub confirmed: u64,
    /// Those whose event had another result; of a cut, ways that bytes went while it held.
    pub contradicted: u64,
    /// A cut has healed.
    pub healed: bool,
}

impl Witness {
    pub fn see(&mut self, events: &[Event]) {
        for event in events {
            for fault in self.packets.see(event) {
                self.seen.entry(fault).or_default().confirmed += 1;
            }
            self.cuts.values_mut().for_each(|cut| cut.see(event));
            if let Some((fault, shown)) = self.holes.see(event) {
                let seen = self.seen.entry(fault).or_default();
                seen.confirmed += u64::from(shown);
                seen.contradicted += u64::from(!shown);
            }
            if event.tid == 0 {
                self.lost(event);
                self.destroyed(event);
                continue;
            }
            if event.takes_place() {
                self.beginning.insert(event.pid, event.fault);
                continue;
            }
            if event.op == Op::Exec
                && let Some(fault) = self.beginning.remove(&event.pid)
            {
                self.seen.entry(fault).or_default().confirmed += 1;
            }
            if event.op == Op::Fault {
                self.seen.entry(event.fault).or_default().injected += 1;
                if event.is_hole() {
                    self.holes.begin(event);
                }
                if event.flags.has(Flags::EOF) {
                    self.destroying.insert(event.socket, *event);
                } else if !event.is_restart() && (!event.is_hole() || event.signal != 0) {
                    self.waiting.insert(event.tid, *event);
                }
                continue;
            }
            let Some(fault) = self.waiting.remove(&event.tid) else { continue };
            let seen = self.seen.entry(fault.fault).or_default();
            if !crate::graph::fault_changed(&fault, event) {
                continue;
            }
            let as_meant = (event.error, event.result) == (fault.error, fault.result);
            if event.op == Op::Signal || as_meant {
                seen.confirmed += 1;
            } else {
                seen.contradicted += 1;
            }
        }
    }

    /// A destroyed connection is confirmed by the error that its users get.
    fn destroyed(&mut self, event: &Event) {
        if event.op != Op::Error {
            return;
        }
        let Some(fault) = self.destroying.remove(&event.socket) else { return };
        let seen = self.seen.entry(fault.fault).or_default();
        if event.error == fault.error {
            seen.confirmed += 1;
        } else {
            seen.contradicted += 1;
        }
    }

    /// Packets are confirmed to be lost by what became of them. A cut says that it begins before it loses any.
    fn lost(&mut self, event: &Event) {
        if event.op != Op::Fault {
            return;
        }
        if self.holes.are_of(event.fault) {
            self.seen.entry(event.fault).or_default().healed |= event.flags.has(Flags::HEALED);
            return;
        }
        if !event.flags.has(Flags::LOST) {
            self.cuts.entry(event.fault).or_default();
        }
        if let Some(cut) = self.cuts.get_mut(&event.fault) {
            cut.told(event);
            return;
        }
        let shown = !self.packets.lose(event);
        let seen = self.seen.entry(event.fault).or_default();
        seen.injected += 1;
        seen.confirmed += u64::from(shown);
    }

    /// What was seen of the fault of this name.
    pub fn of(&self, names: &Names, name: &str) -> Seen {
        let is = |of: &Name| names.text(*of) == name;
        if let Some((_, cut)) = self.cuts.iter().find(|(of, _)| is(of)) {
            return cut.seen();
        }
        let found = self.seen.iter().find(|(of, _)| is(of));
        let Some((fault, seen)) = found else { return Seen::default() };
        Seen { confirmed: seen.confirmed + self.packets.unseen(*fault), ..*seen }
    }
}
