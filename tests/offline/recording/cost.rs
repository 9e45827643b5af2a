//! What a recording costs: bytes and time per event. The bounds on time are wide: the machine may be busy.

#![expect(clippy::print_stdout, reason = "what was measured is worth seeing, with --nocapture")]

use std::time::Instant;

use recorder::recording::read;

use super::{file, open, recorded, traffic};

/// CPU time of this thread so far, in seconds: other programs' load does not count.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a Linux machine");
    let ns = stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok());
    ns.expect("nanoseconds on a CPU") / 1e9
}

#[test]
fn bytes_and_time_per_event() {
    let history = traffic::requests(2_000_000);
    let events = history.events.len() as f64;
    let begin = cpu_seconds();
    let bytes = recorded(&history, usize::MAX);
    let written = events / (cpu_seconds() - begin) / 1e6;
    let (_folder, path) = file(&bytes);
    let begin = Instant::now();
    let read = open(&path).expect("a recording");
    let was_read = events / begin.elapsed().as_secs_f64() / 1e6;
    assert_eq!(read.history.events.len(), history.events.len());
    let size = bytes.len() as f64 / events;
    let begin = Instant::now();
    read::open_index(&path).expect("an index");
    let index_ms = begin.elapsed().as_secs_f64() * 1e3;
    println!(
        "{size:.1} bytes/event; million events/s: {written:.1} written, {was_read:.1} read; index {index_ms:.1} ms"
    );
    assert!(size <= 16.0, "{size:.1} bytes/event");
    assert!(written >= 0.3 && was_read >= 0.3);
}
