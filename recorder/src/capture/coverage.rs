//! How far back the rings reach, at what rate they fill, and what an event costs: found out when somebody
//! asks.

use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::{Context, Result};
use aya::programs::ProgramInfo;
use aya::sys::{Stats, enable_stats};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::capture::ring::Rings;
use crate::capture::{Capture, clock};
use crate::event::Ring;

/// What the rings of one kind hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Coverage {
    pub ring: Ring,
    /// Memory of all CPUs' rings.
    pub bytes: u64,
    /// How long ago the oldest event was for which the window is complete, s.
    pub window_s: f64,
    /// For how long the rings last at the present rate, s; nothing as long as there are no events.
    pub fits_s: Option<f64>,
    /// Slots that were written per second of the window.
    pub per_second: f64,
    /// Slots that were written since the probes were attached.
    pub written: u64,
}

/// What the probes cost while they were watched.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// How often a probe ran, and for how long on average, as the kernel counts it.
    pub runs: u64,
    pub ns_per_run: f64,
    /// Part of one CPU that the probes used.
    pub share_of_a_cpu: f64,
}

/// The kernel counts what programs cost for as long as this is there.
pub struct Counting {
    _on: OwnedFd,
    begun: Instant,
    before: (u64, u64),
}

impl Capture {
    pub fn coverage(&self) -> [Coverage; 2] {
        [Ring::Bulk, Ring::Rare].map(|ring| coverage(&self.following.rings, ring, self.attached_ns))
    }

    /// Has the kernel count what its programs cost, until the answer is dropped; that costs all of them a little.
    ///
    /// # Errors
    /// When the kernel refuses to count.
    pub fn count(&self) -> Result<Counting> {
        let on = enable_stats(Stats::RunTime).context("have the kernel count programs' time")?;
        Ok(Counting { _on: on, begun: Instant::now(), before: self.run_time() })
    }

    /// What the probes have cost since then.
    pub fn cost(&self, counting: &Counting) -> Cost {
        let ((ns_before, runs_before), (ns_after, runs_after)) = (counting.before, self.run_time());
        let (ns, runs) = (ns_after - ns_before, runs_after - runs_before);
        Cost {
            runs,
            ns_per_run: if runs == 0 { 0.0 } else { ns as f64 / runs as f64 },
            share_of_a_cpu: ns as f64 / counting.begun.elapsed().as_nanos() as f64,
        }
    }

    /// Time that all programs ran, ns, and how often, while the kernel counted.
    fn run_time(&self) -> (u64, u64) {
        let infos = self.ebpf.programs().filter_map(|(_, program)| program.info().ok());
        let of = |info: ProgramInfo| (info.run_time().as_nanos() as u64, info.run_count());
        infos.map(of).fold((0, 0), |(ns, runs), (n, r)| (ns + n, runs + r))
    }
}

fn coverage(rings: &Rings, ring: Ring, attached_ns: u64) -> Coverage {
    let now_ns = clock::monotonic_ns();
    let slots = u64::from(rings.slots(ring));
    let (mut since_ns, mut written, mut per_second) = (attached_ns, 0, 0.0);
    let mut fits_s: Option<f64> = None;
    for cpu in 0..rings.cpus {
        let head = rings.head(cpu, ring);
        let from_ns = oldest_ns(rings, cpu, ring, head).unwrap_or(attached_ns);
        let elapsed_s = now_ns.saturating_sub(from_ns).max(1) as f64 / 1e9;
        let rate = head.min(slots) as f64 / elapsed_s;
        if head > 0 {
            let lasts_s = slots as f64 / rate;
            fits_s = Some(fits_s.map_or(lasts_s, |fits_s| fits_s.min(lasts_s)));
        }
        since_ns = since_ns.max(from_ns);
        per_second += rate;
        written += head;
    }
    let size = if ring == Ring::Bulk { 64 } else { 128 };
    Coverage {
        ring,
        bytes: slots * size * u64::from(rings.cpus),
        window_s: now_ns.saturating_sub(since_ns) as f64 / 1e9,
        fits_s,
        per_second,
        written,
    }
}

/// Time of the oldest slot that survives for a while; nothing as long as nothing was overwritten.
fn oldest_ns(rings: &Rings, cpu: u32, ring: Ring, head: u64) -> Option<u64> {
    let slots = u64::from(rings.slots(ring));
    let position = head.checked_sub(slots)? + slots / 64;
    (0..16).find_map(|i| {
        let (slot, _) = rings.copy(cpu, ring, position + i);
        (slot.position == position + i + 1).then_some(slot.time_ns)
    })
}
