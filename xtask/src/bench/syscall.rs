//! What a syscall costs that nobody records.

use std::hint::black_box;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::median;
use super::recorder::{Mode, Recorder};
use super::table::{Budget, Table};

const CALLS: u32 = 1_000_000;

/// What is recorded meanwhile, and what that may cost.
const DETAILS: [(&str, &str, Budget); 3] = [
    // Within noise: what a pair without any recorder differs by.
    ("flow", "a syscall nobody records, on top", Budget::AtMost(2.0)),
    ("+syscall", "the same while `+syscall` is raised", Budget::None),
    ("+sched", "the same while `+sched` is raised", Budget::None),
];

/// `getppid`, which does next to nothing, without and with the recorder.
pub fn unrecorded(table: &mut Table, directory: &Path, pairs: usize) -> Result<()> {
    for (detail, what, budget) in DETAILS {
        let (more, without) = compare(directory, pairs, detail)?;
        let note = format!("getppid: {without:.0} ns without; median of {pairs} pairs");
        table.add(what, more, "ns", budget, note);
    }
    Ok(())
}

/// How much longer it takes, and how long it takes without.
fn compare(directory: &Path, pairs: usize, detail: &str) -> Result<(f64, f64)> {
    let mut differences = Vec::new();
    for index in 0..pairs {
        let first = if index % 2 == 0 { Some(call_ns()) } else { None };
        let recorder = Recorder::detailed(Mode::RingsOnly, "1MiB", directory, detail)?;
        let with = call_ns();
        recorder.stop()?;
        differences.push(with - first.unwrap_or_else(call_ns));
    }
    Ok((median(differences.into_iter()), call_ns()))
}

/// The shortest of five stretches: whatever else runs only makes them longer.
fn call_ns() -> f64 {
    let stretch = || {
        let begin = Instant::now();
        for _ in 0..CALLS / 5 {
            black_box(parent_id());
        }
        begin.elapsed().as_nanos() as f64 / f64::from(CALLS / 5)
    };
    (0..5).map(|_| stretch()).fold(f64::INFINITY, f64::min)
}
