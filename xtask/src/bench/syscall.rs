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

/// `getppid`, which does next to nothing, without and with the recorder.
pub fn unrecorded(table: &mut Table, directory: &Path, pairs: usize) -> Result<()> {
    let mut differences = Vec::new();
    for index in 0..pairs {
        let first = if index % 2 == 0 { Some(call_ns()) } else { None };
        let recorder = Recorder::start(Mode::RingsOnly, "1MiB", directory)?;
        let with = call_ns();
        recorder.stop()?;
        differences.push(with - first.unwrap_or_else(call_ns));
    }
    let without = call_ns();
    let note = format!("getppid: {without:.0} ns without; median of {pairs} pairs");
    let more = median(differences.into_iter());
    // Within noise: what a pair without any recorder differs by.
    table.add("a syscall nobody records, on top", more, "ns", Budget::AtMost(2.0), note);
    Ok(())
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
