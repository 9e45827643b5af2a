//! A daemon of our own, while it is measured.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::{self, wherefore};

/// Ends with this value.
pub struct Daemon {
    process: Child,
    socket: String,
}

impl Daemon {
    /// Starts one that keeps its files in a folder; `first` and `last` are added to its configuration.
    pub fn start(directory: &Path, first: &str, last: &str) -> Result<Self> {
        let path = |name: &str| directory.join(name).display().to_string();
        let config = format!(
            "{first}[api]\nsocket = '{}'\n[dumps]\ndirectory = '{}'\n{last}",
            path("socket"),
            path("dumps")
        );
        fs::write(path("daemon.toml"), config)?;
        let mut command = Command::new(wherefore());
        command.arg("daemon").arg("--config").arg(path("daemon.toml"));
        let process = command.stderr(File::create(path("daemon.log"))?).spawn();
        let process = process.context("start the daemon")?;
        let daemon = Self { process, socket: path("socket") };
        daemon.status("the daemon does not answer", |status| status.get("pid").cloned())?;
        Ok(daemon)
    }

    /// What is looked for in its status, as soon as it is there.
    pub fn status(&self, why_not: &str, find: impl Fn(&Value) -> Option<Value>) -> Result<Value> {
        let begin = Instant::now();
        loop {
            let mut command = Command::new(wherefore());
            command.args(["status", "--json", "--socket", &self.socket]).stderr(Stdio::null());
            let said = command.output().context("ask the daemon")?.stdout;
            let status: Value = serde_json::from_slice(&said).unwrap_or_default();
            if let Some(found) = find(&status) {
                return Ok(found);
            }
            ensure!(begin.elapsed() < Duration::from_secs(30), "{why_not}");
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
