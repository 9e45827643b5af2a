//! The newest events of the rings, and of what is older only the names that these need: for whoever looks often, and
//! may cost next to nothing.
//!
//! ```text
//!   bulk   ░░░░░░░░░░░░░░░░░░░▒▒▒▒▒▒▒▒│  the newest of each CPU
//!   rare   ░░n░░░░░░n░░░░░n░░░▒▒▒▒▒▒▒▒│  as far back, and beyond it names alone, until all are found
//! ```

use std::collections::HashSet;
use std::thread::sleep;

use probe_ebpf::event::{Slot, kind};

use super::cgroup::Cgroups;
use super::decode::Decoder;
use super::ring::{Batch, Rings};
use super::snapshot::{Source, Survivor, survivor};
use super::{IN_FLIGHT, clock, procfs};
use crate::event::{Event, History, Host, Ring, Window};

/// Threads whose names are asked of `/proc`, where the rings do not hold them.
const MOST_ASKED: usize = 1024;

/// So many sends and receives per CPU, and all else that happened since the oldest of them.
pub fn take(rings: &Rings, source: &Source, most: u32) -> History {
    let until_ns = clock::monotonic_ns();
    // Programs that were busy writing a moment ago have finished by then.
    sleep(IN_FLIGHT);
    let mut newest = Newest { rings, batch: Batch::default(), needed: Needed::default() };
    let since = (0..rings.cpus).map(|cpu| newest.read_bulk(cpu, most));
    let since_ns = since.max().unwrap_or(0).max(source.attached_ns);
    let places: Vec<u64> = (0..rings.cpus).map(|cpu| newest.read_rare(cpu, since_ns)).collect();
    for (cpu, position) in (0..).zip(places) {
        newest.look_for_names(cpu, position);
    }
    let mut history = newest.decode(source, since_ns);
    let window = Window { from_ns: since_ns.min(until_ns), to_ns: until_ns };
    history.hosts = vec![Host { bulk_window: window, rare_window: window, ..Host::default() }];
    history
}

struct Newest<'a> {
    rings: &'a Rings,
    batch: Batch,
    needed: Needed,
}

/// What events refer to and no name has been found for.
#[derive(Default)]
struct Needed {
    sockets: HashSet<u64>,
    /// Process and thread.
    threads: HashSet<(u32, u32)>,
}

impl Needed {
    fn by(&mut self, slot: &Slot) {
        if slot.socket != 0 {
            self.sockets.insert(slot.socket);
        }
        if slot.tid != 0 {
            self.threads.insert((slot.pid, slot.tid));
        }
    }

    /// Whether a slot gives a name that is needed; from then on it is not.
    fn found(&mut self, slot: &Slot) -> bool {
        match slot.kind {
            kind::SOCKET => self.sockets.remove(&slot.socket),
            kind::TASK | kind::EXEC => self.threads.remove(&(slot.pid, slot.tid)),
            _ => false,
        }
    }

    fn is_empty(&self) -> bool {
        self.sockets.is_empty() && self.threads.is_empty()
    }
}

impl Newest<'_> {
    /// Since when nothing is missing on this CPU.
    fn read_bulk(&mut self, cpu: u32, most: u32) -> u64 {
        let end = self.rings.head(cpu, Ring::Bulk);
        let mut oldest_ns = u64::MAX;
        for position in (end.saturating_sub(most.into())..end).rev() {
            match survivor(self.rings, cpu, Ring::Bulk, position) {
                Survivor::Overwritten => return oldest_ns,
                Survivor::Unfinished => {}
                Survivor::Intact(slot, detail) => {
                    oldest_ns = slot.time_ns;
                    self.needed.by(&slot);
                    self.batch.push(slot, detail, cpu, Ring::Bulk);
                }
            }
        }
        // Where that is all there ever was, nothing is missing.
        if end <= u64::from(most) { 0 } else { oldest_ns }
    }

    /// All since a time; where it stopped.
    fn read_rare(&mut self, cpu: u32, since_ns: u64) -> u64 {
        let mut position = self.rings.head(cpu, Ring::Rare);
        while position > 0 {
            match survivor(self.rings, cpu, Ring::Rare, position - 1) {
                Survivor::Overwritten => return 0,
                Survivor::Intact(slot, _) if slot.time_ns < since_ns => return position,
                Survivor::Unfinished => {}
                Survivor::Intact(slot, detail) => {
                    if !self.needed.found(&slot) && !matches!(slot.kind, kind::SOCKET | kind::TASK)
                    {
                        self.needed.by(&slot);
                    }
                    self.batch.push(slot, detail, cpu, Ring::Rare);
                }
            }
            position -= 1;
        }
        0
    }

    fn look_for_names(&mut self, cpu: u32, end: u64) {
        for position in (0..end).rev() {
            if self.needed.is_empty() {
                return;
            }
            match survivor(self.rings, cpu, Ring::Rare, position) {
                Survivor::Overwritten => return,
                Survivor::Intact(slot, detail) if self.needed.found(&slot) => {
                    self.batch.push(slot, detail, cpu, Ring::Rare);
                }
                _ => {}
            }
        }
    }

    fn decode(self, source: &Source, since_ns: u64) -> History {
        let mut decoder = Decoder::new(Cgroups::default());
        decoder.live = false;
        if source.whole_machine {
            decoder.take_all();
        }
        let unnamed = self.needed.threads.iter().take(MOST_ASKED);
        let unnamed = unnamed.filter_map(|&(pid, tid)| procfs::task(pid, tid, ""));
        decoder.know(unnamed.collect(), |_| source.whole_machine);
        let ready = self.batch.in_order(u64::MAX);
        let named = ready.iter().filter(|raw| raw.ring == Ring::Rare);
        decoder.look_ahead(named.map(|raw| (*raw, self.batch.detail(raw))));
        let mut events: Vec<Event> = Vec::with_capacity(ready.len());
        for raw in ready {
            decoder.decode(raw, self.batch.detail(raw), &mut events);
        }
        events.retain(|event| event.time_ns >= since_ns);
        History { names: decoder.names, events, hosts: Vec::new() }
    }
}
