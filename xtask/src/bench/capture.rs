//! What recording costs those who are recorded, and the recorder.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use super::recorder::{Mode, Recorder, Summary};
use super::redis::{Run, Server};
use super::table::{Budget, Table};
use super::{Arguments, median};
use crate::process::{self, wherefore};

/// Memory for the rings in all runs but those that measure snapshots: the daemon's default.
const RING: &str = "512MiB";

/// What one event costs in a loop that does nothing else, and what the kernel says the programs take under
/// load, which includes what interrupts them.
pub fn per_event(
    table: &mut Table,
    server: &Server,
    directory: &Path,
    arguments: &Arguments,
) -> Result<()> {
    let rounds = arguments.pairs.to_string();
    let measure = ["doctor", "--json", "--measure", &rounds];
    let said = process::stdout(Command::new(wherefore()).args(measure))?;
    let cost: serde_json::Value = serde_json::from_str(&said)?;
    let ns = |key: &str| cost[key].as_f64().with_context(|| format!("find {key} in {said}"));
    let (bare, idle, over) = (ns("bare_ns")?, ns("idle_ns")?, ns("event_over_idle_ns")?);
    let note = format!("a call takes {bare:.0} ns bare, {idle:.0} ns with an empty program");
    let what = "capture, one event over an empty program";
    table.add(what, over, "ns", Budget::AtMost(80.0), note);

    let _statistics = Statistics::on()?;
    let recorder = Recorder::start(Mode::RingsOnly, RING, directory)?;
    server.run(arguments.requests)?;
    let (runs, ns) = recorder.program_runs()?;
    recorder.stop()?;
    let note = format!("{runs} runs, by the kernel's count, which costs some of it");
    table.add("one run of a probe under load", ns as f64 / runs as f64, "ns", Budget::None, note);
    Ok(())
}

/// Rings that nobody reads.
pub fn rings_only(
    table: &mut Table,
    server: &Server,
    directory: &Path,
    arguments: &Arguments,
) -> Result<()> {
    let pairs = pairs(Mode::RingsOnly, server, directory, arguments)?;
    let note = format!("median of {} pairs", pairs.len());
    let cpu = median(pairs.iter().map(Pair::server_cpu));
    let rate = median(pairs.iter().map(Pair::throughput));
    let own = median(pairs.iter().map(|pair| pair.recorder_cpu * 100.0));
    table.add("redis GET, rings: server CPU per request", cpu, "×", Budget::AtMost(1.05), &note);
    table.add("redis GET, rings: throughput", rate, "×", Budget::AtLeast(0.97), &note);
    table.add("redis GET, rings: recorder's CPU", own, "% of a CPU", Budget::AtMost(0.05), note);
    Ok(())
}

/// Rings that are followed to a file.
pub fn followed(
    table: &mut Table,
    server: &Server,
    directory: &Path,
    arguments: &Arguments,
) -> Result<()> {
    let pairs = pairs(Mode::Follow, server, directory, arguments)?;
    let note = format!("median of {} pairs", pairs.len());
    let rate = median(pairs.iter().map(Pair::throughput));
    table.add("redis GET, followed: throughput", rate, "×", Budget::AtLeast(0.90), &note);
    let own = median(pairs.iter().map(|pair| pair.recorder_cpu * 100.0));
    let sum = |number: fn(&Summary) -> u64| pairs.iter().map(|p| number(&p.summary)).sum::<u64>();
    let (events, lost, bytes) = (sum(|s| s.events), sum(|s| s.lost), sum(|s| s.bytes));
    let per_second = median(pairs.iter().map(|pair| pair.events_per_second));
    let loss = format!("{events} events, {per_second:.0}/s, recorder at {own:.0} % of a CPU");
    table.add("redis GET, followed: events lost", lost as f64, "", Budget::AtMost(0.0), loss);
    let size = bytes as f64 / events as f64;
    table.add("file, one event", size, "bytes", Budget::AtMost(16.0), format!("{events} events"));
    Ok(())
}

/// The same load without and with the recorder.
struct Pair {
    without: Run,
    with: Run,
    /// CPUs that the recorder kept busy during the run.
    recorder_cpu: f64,
    events_per_second: f64,
    summary: Summary,
}

impl Pair {
    fn server_cpu(&self) -> f64 {
        self.with.server_ns_per_request / self.without.server_ns_per_request
    }

    fn throughput(&self) -> f64 {
        self.with.requests_per_second / self.without.requests_per_second
    }
}

fn pairs(
    mode: Mode,
    server: &Server,
    directory: &Path,
    arguments: &Arguments,
) -> Result<Vec<Pair>> {
    let requests = arguments.requests;
    server.run(requests)?; // warms up
    let mut pairs = Vec::new();
    for index in 0..arguments.pairs {
        let with_first = index % 2 == 1;
        let first = if with_first { None } else { Some(server.run(requests)?) };
        let recorder = Recorder::start(mode, RING, directory)?;
        let (own, begin) = (recorder.cpu_ns()?, Instant::now());
        let with = server.run(requests)?;
        let lasted = begin.elapsed();
        let own = recorder.cpu_ns()? - own;
        let summary = recorder.stop()?;
        let without = first.map_or_else(|| server.run(requests), Ok)?;
        pairs.push(Pair {
            without,
            with,
            recorder_cpu: own as f64 / lasted.as_nanos() as f64,
            events_per_second: summary.events as f64 / lasted.as_secs_f64(),
            summary,
        });
    }
    Ok(pairs)
}

/// The kernel counts what programs cost while this lives; it is told to count as before afterwards.
struct Statistics(String);

const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Statistics {
    fn on() -> Result<Self> {
        let before =
            fs::read_to_string(STATISTICS).with_context(|| format!("read {STATISTICS}"))?;
        fs::write(STATISTICS, "1").with_context(|| format!("write {STATISTICS}"))?;
        Ok(Self(before))
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        // Counting costs some nanoseconds and harms nothing.
        let _ = fs::write(STATISTICS, &self.0);
    }
}
