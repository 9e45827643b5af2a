//! What it costs to keep a history on disk: the follower's CPU time per event, and whether it keeps up.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Arguments;
use super::redis::Server;
use super::table::{Budget, Table};
use crate::process::{self, wherefore};

/// The daemon with a history, under the same load as the others.
pub fn followed(
    table: &mut Table,
    server: &Server,
    directory: &Path,
    arguments: &Arguments,
) -> Result<()> {
    let daemon = Daemon::start(directory)?;
    let (before, begin) = (daemon.history()?, Instant::now());
    for _ in 0..arguments.pairs {
        server.run(arguments.requests)?;
    }
    let (after, lasted) = (daemon.history()?, begin.elapsed());
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

struct Daemon {
    process: Child,
    socket: String,
}

impl Daemon {
    fn start(directory: &Path) -> Result<Self> {
        let path = |name: &str| directory.join(name).display().to_string();
        let config = format!(
            "ring = '512MiB'\nhistory = '10m'\n[api]\nsocket = '{}'\n[dumps]\ndirectory = '{}'\n",
            path("socket"),
            path("dumps")
        );
        fs::write(path("daemon.toml"), config)?;
        let mut command = Command::new(wherefore());
        command.arg("daemon").arg("--config").arg(path("daemon.toml"));
        let process = command.stderr(File::create(path("daemon.log"))?).spawn();
        let process = process.context("start the daemon")?;
        let daemon = Self { process, socket: path("socket") };
        daemon.history()?;
        Ok(daemon)
    }

    /// How its follower stands, when it answers.
    fn history(&self) -> Result<Value> {
        let begin = Instant::now();
        loop {
            let mut command = Command::new(wherefore());
            command.args(["status", "--json", "--socket", &self.socket]).stderr(Stdio::null());
            let said = process::stdout(&mut command).unwrap_or_default();
            let status: Value = serde_json::from_str(&said).unwrap_or_default();
            let state = &status["history"]["state"];
            if state["until_ns"].as_u64() > Some(0) {
                return Ok(state.clone());
            }
            ensure!(begin.elapsed() < Duration::from_secs(30), "the daemon keeps no history");
            sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both have ended before, or are of no use any more.
        let _ = process::succeeds(Command::new("kill").arg(self.process.id().to_string()));
        let _ = self.process.wait();
    }
}
