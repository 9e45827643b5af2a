//! What the rings hold now, read without stopping anybody: the writers go on, and the next snapshot is as
//! good as this one.
//!
//! Each ring is read from its newest slot backwards until a writer comes round, so that what was read is
//! one stretch without holes, whatever is written meanwhile:
//!
//! ```text
//!   slots      5   6   7   8   9  10  11  12 │ written meanwhile
//!              ▒   ▒   ◀───── read ──────────┘
//!              └── overwritten before the reader came there: the window begins after them
//! ```

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use probe_ebpf::event::Slot;
use serde::{Deserialize, Serialize};

use crate::capture::cgroup::Cgroups;
use crate::capture::decode::Decoder;
use crate::capture::detail::Detail;
use crate::capture::ring::{Batch, Raw, Rings, Shape};
use crate::capture::{BLOCK, IN_FLIGHT, Sink, clock, procfs};
use crate::event::{Detailed, Event, Gap, Host, Ring, Task, Window};

/// What a snapshot has to know of the recorder that filled the rings; another process may take it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub shape: Shape,
    /// When the probes were attached, monotonic ns.
    pub attached_ns: u64,
    /// Wall clock minus monotonic clock, ns.
    pub wall_offset_ns: i64,
    pub scope: String,
    /// Whether all threads of the machine are in scope, also those that never did anything.
    pub whole_machine: bool,
    pub family: String,
    pub hooks: Vec<String>,
    pub missing_hooks: Vec<String>,
    /// Events that the probes could not write and that may lie in the window.
    pub unwritten: u64,
    /// When more was recorded than `flow`, and what the kernel calls its reasons to drop packets.
    pub details: Vec<Detailed>,
    pub drop_reasons: Vec<(u32, String)>,
}

/// Which stretch to keep, monotonic ns, both ends included. The future is not waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    pub since_ns: u64,
    pub until_ns: u64,
}

impl Cut {
    /// Everything that survives.
    pub const ALL: Self = Self { since_ns: 0, until_ns: u64::MAX };
}

/// Hands all that survives of a stretch to `sink`, in order of time; what is known of it.
///
/// # Errors
/// Those of `sink`.
pub fn take(rings: &Rings, source: &Source, cut: Cut, sink: &mut Sink<'_>) -> Result<Host> {
    let until_ns = cut.until_ns.min(clock::monotonic_ns());
    // Programs that were busy writing a moment ago have finished by then.
    sleep(IN_FLIGHT);
    let mut survivors = Survivors::default();
    // Names first: without them the events are of no use, and this process may have to wait for a CPU. (They were
    // written before the events, so that none is missed.)
    for ring in [Ring::Rare, Ring::Bulk] {
        for cpu in 0..rings.cpus {
            survivors.read(rings, cpu, ring, Cut { until_ns, ..cut });
        }
    }
    let since_ns = [Ring::Bulk, Ring::Rare].map(|ring| {
        survivors.complete_from_ns[ring as usize].max(source.attached_ns).max(cut.since_ns)
    });
    let mut decoder = decoder(source, &survivors);
    let kept = hand_out(&survivors.batch, &mut decoder, since_ns, sink)?;
    let host = host(source, &decoder, survivors, kept, since_ns, until_ns);
    Ok(Host { drops_untold: rings.drops_untold(), ..host })
}

/// Slots that were still there, and since when none is missing.
#[derive(Default)]
struct Survivors {
    batch: Batch,
    /// Since when all that was written is in the batch, per ring; 0: since ever.
    complete_from_ns: [u64; 2],
    /// Time of the oldest slot.
    oldest_ns: Option<u64>,
    /// Slots whose writer took long.
    gaps: Vec<Gap>,
}

/// How much earlier than asked for `bulk` is read: for when calls can have begun, and whether a thread's
/// events are complete. Names are in `rare`, which is read as a whole.
const LEAD_IN: Duration = Duration::from_secs(1);
/// How often a slot is looked at whose writer is not done, and how long between.
const LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_micros(200);

impl Survivors {
    fn read(&mut self, rings: &Rings, cpu: u32, ring: Ring, cut: Cut) {
        let lead_in_ns = match ring {
            Ring::Bulk => cut.since_ns.saturating_sub(LEAD_IN.as_nanos() as u64),
            Ring::Rare => 0,
        };
        let mut position = rings.head(cpu, ring);
        let mut next_ns = cut.until_ns;
        while position > 0 && next_ns >= lead_in_ns {
            match survivor(rings, cpu, ring, position - 1) {
                Survivor::Overwritten => {
                    // A program that was interrupted may have stored an earlier time at a later place.
                    let from_ns = next_ns + IN_FLIGHT.as_nanos() as u64;
                    let known = &mut self.complete_from_ns[ring as usize];
                    *known = from_ns.max(*known);
                    break;
                }
                Survivor::Unfinished if next_ns < cut.until_ns => {
                    let (from_ns, to_ns) =
                        (next_ns.saturating_sub(IN_FLIGHT.as_nanos() as u64), next_ns);
                    self.gaps.push(Gap { cpu, ring, from_ns, to_ns, events: 1 });
                }
                // What is written so late was not asked for.
                Survivor::Unfinished => {}
                Survivor::Intact(slot, detail) => {
                    next_ns = slot.time_ns;
                    if slot.time_ns <= cut.until_ns {
                        self.batch.push(slot, detail, cpu, ring);
                    }
                }
            }
            position -= 1;
        }
        self.oldest_ns = Some(self.oldest_ns.map_or(next_ns, |oldest_ns| oldest_ns.min(next_ns)));
    }
}

pub(super) enum Survivor {
    Intact(Slot, Option<[u64; 8]>),
    /// A writer has come round, or is about to.
    Overwritten,
    Unfinished,
}

pub(super) fn survivor(rings: &Rings, cpu: u32, ring: Ring, position: u64) -> Survivor {
    for _ in 0..LOOKS {
        let (slot, detail) = rings.copy(cpu, ring, position);
        if rings.head(cpu, ring) > position + u64::from(rings.slots(ring)) {
            return Survivor::Overwritten;
        }
        if slot.position == position + 1 {
            return Survivor::Intact(slot, detail);
        }
        sleep(BETWEEN_LOOKS);
    }
    Survivor::Unfinished
}

/// A decoder that knows the threads which lived before the oldest slot and live now. Of the others the
/// slots tell; and a number may have been another thread's before.
fn decoder(source: &Source, survivors: &Survivors) -> Decoder {
    let mut decoder = Decoder::new(Cgroups::read());
    decoder.name_reasons(&source.drop_reasons);
    if source.whole_machine {
        decoder.take_all();
    }
    decoder.live = false;
    let oldest_ns = survivors.oldest_ns.unwrap_or(u64::MAX);
    let older = |task: &Task| task.start_ns < oldest_ns;
    let tasks = procfs::tasks().into_iter().filter(older).collect();
    decoder.know(tasks, |_| source.whole_machine);
    decoder
}

/// Decodes everything, for the names, and hands out what lies in the window; how many events that were.
fn hand_out(
    batch: &Batch,
    decoder: &mut Decoder,
    since_ns: [u64; 2],
    sink: &mut Sink<'_>,
) -> Result<u64> {
    let ready = batch.in_order(u64::MAX);
    let named = ready.iter().filter(|raw| raw.ring == Ring::Rare);
    decoder.look_ahead(named.map(|raw| (*raw, batch.detail(raw))));
    let mut kept = 0;
    let mut events: Vec<Event> = Vec::with_capacity(BLOCK.min(ready.len()));
    for block in ready.chunks(BLOCK) {
        events.clear();
        let mut decode = |raw: &Raw| decoder.decode(raw, batch.detail(raw), &mut events);
        block.iter().for_each(|raw| decode(raw));
        events.retain(|event| event.time_ns >= since_ns[event.ring as usize]);
        kept += events.len() as u64;
        sink(&decoder.names, &events)?;
    }
    decoder.places.look();
    Ok(kept)
}

fn host(
    source: &Source,
    decoder: &Decoder,
    survivors: Survivors,
    kept: u64,
    since_ns: [u64; 2],
    until_ns: u64,
) -> Host {
    // An event whose socket's name was overwritten is of little use: it cannot be joined to its other end.
    let named_from_ns = match survivors.complete_from_ns[Ring::Rare as usize] {
        0 => 0,
        _ => decoder.unnamed_ns.saturating_add(1),
    };
    let window = |ring| {
        let from_ns = since_ns[ring as usize].max(named_from_ns);
        Window { from_ns: from_ns.min(until_ns), to_ns: until_ns }
    };
    let lost = source.unwritten + survivors.gaps.len() as u64;
    Host {
        bulk_window: window(Ring::Bulk),
        rare_window: window(Ring::Rare),
        gaps: survivors.gaps,
        raised: kept + lost,
        lost,
        tasks: decoder.tasks(),
        containers: decoder.places.called(),
        namespaces: decoder.places.namespaces(),
        drop_reasons: decoder.reasons_seen(),
        ..source.host()
    }
}

impl Source {
    /// The host, of which nothing has been read yet.
    pub fn host(&self) -> Host {
        Host {
            name: procfs::host_name(),
            boot_id: procfs::boot_id(),
            kernel: procfs::kernel_release(),
            cpus: self.shape.cpus,
            attached_ns: self.attached_ns,
            family: self.family.clone(),
            wall_offset_ns: self.wall_offset_ns,
            hooks: self.hooks.clone(),
            missing_hooks: self.missing_hooks.clone(),
            detail: Detail::FLOW.to_string(),
            details: self.details.clone(),
            scope: self.scope.clone(),
            ..Host::default()
        }
    }
}
