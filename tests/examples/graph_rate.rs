//! Times reading recordings and building their graph, and weighs the graph: `cargo xtask bench` runs it.
//!
//! Prints one JSON object.

use std::path::PathBuf;
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use recorder::graph::Graph;
use recorder::recording::read;

#[expect(clippy::print_stdout, reason = "the measurement is what it is run for")]
fn main() -> Result<()> {
    let paths: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    ensure!(!paths.is_empty(), "graph_rate FILE.parquet…");
    let begin = Instant::now();
    let history = read::open(&paths)?.history;
    let read_s = begin.elapsed().as_secs_f64();
    let read_peak = memory("VmHWM:")?;
    // SAFETY: it only gives free memory back, without which the graph would be built in what reading left.
    unsafe { libc::malloc_trim(0) };
    let before = memory("VmRSS:")?;
    // Forget the highest mark so far: reading is not building.
    fs::write("/proc/self/clear_refs", "5").context("reset the peak of memory")?;
    let begin = Instant::now();
    let graph = Graph::build(&history);
    let build_s = begin.elapsed().as_secs_f64();
    let result = serde_json::json!({
        "events": history.events.len(),
        "edges": graph.nodes.edge_count(),
        "read_s": read_s,
        "read_peak_bytes": read_peak,
        "build_s": build_s,
        "graph_bytes": memory("VmRSS:")?.saturating_sub(before),
        "peak_bytes": memory("VmHWM:")?.saturating_sub(before),
    });
    println!("{result}");
    Ok(())
}

/// A line of /proc/self/status, in bytes.
fn memory(key: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("find {key} in /proc/self/status"))? * 1024)
}
