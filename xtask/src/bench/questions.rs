//! What a snapshot takes, and what a question on ten million events takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::recorder::{Mode, Recorder};
use super::redis::Server;
use super::table::{Budget, Table};
use crate::process::{self, say, wherefore};

/// Fills rings with the load until they must hold `events`, and keeps what they hold.
pub fn snapshot(
    table: &mut Table,
    server: &Server,
    directory: &Path,
    ring: &str,
    events: u32,
) -> Result<PathBuf> {
    say(format_args!("filling {ring} of rings …"));
    let recorder = Recorder::start(Mode::RingsOnly, ring, directory)?;
    let counted = recorder.output.with_file_name("snapshot.parquet");
    // Each request is four events: both ends send and receive.
    server.run(events / 4 + events / 8)?;
    let output = recorder.output.clone();
    let summary = recorder.stop()?;
    fs::rename(output, &counted)?;
    ensure!(summary.events * 10 > u64::from(events) * 9, "only {} events are left", summary.events);
    let (taken, budget) =
        (summary.stopping.as_secs_f64(), if events < 1_000_000 { 0.5 } else { 10.0 });
    let note = format!("{} events, {} bytes", summary.events, summary.bytes);
    table.add(format!("snapshot of {ring} of rings"), taken, "s", Budget::AtMost(budget), note);
    Ok(counted)
}

/// `why` and `check` on the recording, read from the disk.
pub fn why(table: &mut Table, recording: &Path) -> Result<()> {
    let mut question = Command::new(wherefore());
    question.arg("why").arg(recording).arg("comm=redis-server op=recv");
    let taken = cold(&mut question, recording)?.as_secs_f64();
    table.add("`why`, cold", taken, "s", Budget::AtMost(2.0), "the last receive of redis-server");
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
