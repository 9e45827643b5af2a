//! What it costs to keep a history on disk: the follower's CPU time per event, and whether it keeps up.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Arguments;
use super::daemon::Daemon;
use super::redis::Server;
use super::table::{Budget, Table};

/// The daemon with a history, under the same load as the others.
pub fn followed(
    table: &mut Table,
    server: &Server,
    directory: &Path,
    arguments: &Arguments,
) -> Result<()> {
    let daemon = Daemon::start(directory, "ring = '512MiB'\nhistory = '10m'\n", "")?;
    let (before, begin) = (state(&daemon)?, Instant::now());
    for _ in 0..arguments.pairs {
        server.run(arguments.requests)?;
    }
    let (after, lasted) = (state(&daemon)?, begin.elapsed());
    let number = |key: &str| -> Result<f64> {
        let of =
            |state: &Value| state[key].as_f64().with_context(|| format!("find {key} in {state}"));
        Ok(of(&after)? - of(&before)?)
    };
    let (events, cpu_s) = (number("events")?, number("cpu_ns")? / 1e9);
    let gone = number("lost")? + number("missed")?;
    let rate = events / lasted.as_secs_f64();
    let note = format!(
        "{events:.0} events, {rate:.0}/s, {:.0} % of a CPU",
        cpu_s / lasted.as_secs_f64() * 100.0
    );
    table.add(
        "history: CPU per million events",
        cpu_s / events * 1e6,
        "s",
        Budget::AtMost(1.0),
        note,
    );
    let resident = after["resident_bytes"].as_f64().unwrap_or(f64::NAN) / f64::from(1 << 20);
    table.add(
        "history: events lost",
        gone,
        "",
        Budget::AtMost(0.0),
        format!("{resident:.0} MiB resident"),
    );
    Ok(())
}

/// How the follower stands, when it answers.
fn state(daemon: &Daemon) -> Result<Value> {
    daemon.status("the daemon keeps no history", |status| {
        let state = &status["history"]["state"];
        (state["until_ns"].as_u64() > Some(0)).then(|| state.clone())
    })
}
