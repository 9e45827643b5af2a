//! What a snapshot takes, and what a question on ten million events takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::recorder::{Mode, Recorder};
use super::redis::Server;
use super::table::{Budget, Table};
use crate::process::{self, root, say, wherefore};

/// Rings to be filled to the brim.
pub struct Fill {
    pub ring: &'static str,
    /// How many events of the load these rings hold.
    pub slots: u32,
    /// Four events each, since both ends send and receive; more than would do, since CPUs differ.
    pub requests: u32,
    pub budget_s: f64,
}

pub const SMALL: Fill = Fill { ring: "16MiB", slots: 131_072, requests: 131_072, budget_s: 0.5 };
pub const LARGE: Fill =
    Fill { ring: "2GiB", slots: 16_777_216, requests: 8_388_608, budget_s: 10.0 };

/// Fills rings with the load and keeps what they hold.
pub fn snapshot(
    table: &mut Table,
    server: &Server,
    directory: &Path,
    fill: &Fill,
) -> Result<PathBuf> {
    say(format_args!("filling {} of rings …", fill.ring));
    let recorder = Recorder::start(Mode::RingsOnly, fill.ring, directory)?;
    server.run(fill.requests)?;
    let (output, kept) = (recorder.output.clone(), directory.join("snapshot.parquet"));
    let summary = recorder.stop()?;
    fs::rename(output, &kept)?;
    let enough = summary.events * 2 > u64::from(fill.slots);
    ensure!(enough, "only {} events are in {} of rings", summary.events, fill.ring);
    let note = format!("{} events, {} bytes", summary.events, summary.bytes);
    let taken = summary.stopping.as_secs_f64();
    let what = format!("snapshot of {} of rings", fill.ring);
    table.add(what, taken, "s", Budget::AtMost(fill.budget_s), note);
    Ok(kept)
}

/// `why` on the recording, read from the disk.
pub fn why(table: &mut Table, recording: &Path) -> Result<()> {
    let mut question = Command::new(wherefore());
    question.arg("why").arg(recording).arg("comm=redis-server op=recv");
    let taken = cold(&mut question, recording)?.as_secs_f64();
    table.add("`why`, cold", taken, "s", Budget::AtMost(2.0), "the last receive of redis-server");
    Ok(())
}

/// How fast the graph is built, and how heavy it is.
pub fn graph(table: &mut Table, recording: &Path) -> Result<()> {
    let program = root().join("target/debug/examples/graph_rate");
    let said = process::stdout(Command::new(program).arg(recording))?;
    let result: serde_json::Value = serde_json::from_str(&said)?;
    let number = |key: &str| result[key].as_f64().with_context(|| format!("find {key} in {said}"));
    let events = number("events")?;
    let note =
        format!("{events} events, {} edges, read in {:.1} s", number("edges")?, number("read_s")?);
    let rate = events / number("build_s")? / 1e6;
    table.add("graph, built", rate, "million events/s", Budget::AtLeast(3.0), note);
    let (size, peak) = (number("graph_bytes")? / events, number("peak_bytes")? / events);
    let note = format!("at the peak {peak:.0}");
    table.add("graph, one event", size, "bytes", Budget::AtMost(100.0), note);
    Ok(())
}

/// How long the command takes when the file is not in memory.
fn cold(command: &mut Command, file: &Path) -> Result<Duration> {
    let mut forget = Command::new("dd");
    forget.arg(format!("of={}", file.display())).args(["oflag=nocache", "conv=notrunc,fdatasync"]);
    ensure!(process::succeeds(forget.arg("count=0")), "drop {} from memory", file.display());
    let begin = Instant::now();
    process::stdout(command).context("ask")?;
    Ok(begin.elapsed())
}
