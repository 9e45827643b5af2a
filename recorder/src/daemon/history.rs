//! What the rings no longer hold: a process beside the daemon follows them to disk, and dumps that reach further back
//! than the rings take from there.

pub mod control;
pub mod follower;
pub mod limits;
mod segment;
pub mod segments;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, ChildStdin, Command};

use super::job::inheritable;
use crate::capture::Capture;
use crate::capture::clock;
use crate::hide::Hide;
use control::{State, Word};
use follower::Job;
use limits::Limits;

/// The word that makes of the command the follower.
pub const FOLLOWER: &str = "history-follower";

/// The follower, as the daemon has it.
pub struct History {
    limits: Limits,
    hide: Hide,
    directory: PathBuf,
    /// None: it could not be started, and will be tried again.
    child: Option<(Child, Pipe)>,
    started: Instant,
    restarts: u64,
    failure: Option<String>,
    /// What the follower said last, and what those before it had counted: a count never goes back.
    last: State,
    before: State,
}

/// As long as this is open the follower goes on.
type Pipe = ChildStdin;

/// How the history stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryStatus {
    pub directory: String,
    /// Segments that are complete, and the size of all.
    pub segments: usize,
    pub bytes: u64,
    pub most_bytes: u64,
    /// How far back it reaches without a break, s; nothing where the follower does not answer.
    pub reach_s: Option<f64>,
    /// How long it may become, s.
    pub age_s: Option<f64>,
    pub state: State,
    /// How often the follower was started anew, and why the last time.
    pub restarts: u64,
    pub failure: Option<String>,
}

/// A follower that ends sooner is not started again at once.
const SHORT: Duration = Duration::from_secs(10);

/// When the follower has ended; never, where there is no history.
pub async fn ended(history: &mut Option<History>) -> Result<ExitStatus> {
    match history {
        Some(history) => history.ended().await,
        None => std::future::pending().await,
    }
}

impl History {
    pub fn start(limits: Limits, hide: Hide, dumps: &Path, capture: &Capture) -> Self {
        let directory = limits.directory(dumps);
        let (child, restarts, failure, last, before) = Default::default();
        let started = Instant::now();
        let mut history =
            Self { limits, hide, directory, child, started, restarts, failure, last, before };
        history.spawn(capture);
        history
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// When the follower has ended, or should be tried again.
    async fn ended(&mut self) -> Result<ExitStatus> {
        let status = match &mut self.child {
            Some((child, _)) => child.wait().await.context("wait for the history's follower"),
            None => Err(anyhow::anyhow!("it could not be started")),
        };
        let early = SHORT.saturating_sub(self.started.elapsed());
        tokio::time::sleep(early.min(Duration::from_secs(1))).await;
        status
    }

    /// Starts another in place of one that ended.
    pub fn restart(&mut self, ended: &Result<ExitStatus>, capture: &Capture) {
        self.restarts += 1;
        self.before = std::mem::take(&mut self.last).after(&self.before);
        match ended {
            Ok(status) if status.success() => {}
            Ok(status) => self.fail(&format!("the follower ended with {status}")),
            Err(error) => self.fail(&format!("{error:#}")),
        }
        self.spawn(capture);
    }

    fn fail(&mut self, why: &str) {
        log::warn!("history in {}: {why}; it is started anew", self.directory.display());
        self.failure = Some(why.to_owned());
    }

    fn spawn(&mut self, capture: &Capture) {
        self.started = Instant::now();
        self.child = match self.try_spawn(capture) {
            Ok(child) => Some(child),
            Err(error) => {
                self.fail(&format!("{error:#}"));
                None
            }
        };
    }

    fn try_spawn(&self, capture: &Capture) -> Result<(Child, Pipe)> {
        let maps = inheritable(capture.ring_maps()?)?;
        let job = Job {
            source: capture.source(),
            maps: maps.each_ref().map(AsRawFd::as_raw_fd),
            hooks: capture.hooks().to_vec(),
            directory: self.directory.clone(),
            age: self.limits.age,
            size: self.limits.size,
            hide: self.hide.clone(),
        };
        let program = std::env::current_exe().context("find the recorder's own program")?;
        let mut child = Command::new(program)
            .arg(FOLLOWER)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Ctrl-C is the daemon's to hear; the follower ends with its standard input.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("start the history's follower")?;
        let stdin = child.stdin.take().context("a pipe to the follower")?;
        let mut pipe = File::from(stdin.as_fd().try_clone_to_owned()?);
        let mut line = serde_json::to_vec(&job)?;
        line.push(b'\n');
        // Less than a pipe holds.
        pipe.write_all(&line).context("tell the follower its job")?;
        Ok((child, stdin))
    }

    /// Has the follower finish its file, and waits for it.
    pub async fn stop(mut self) {
        const PATIENCE: Duration = Duration::from_secs(10);
        let Some((mut child, pipe)) = self.child.take() else { return };
        drop(pipe);
        if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
            log::warn!("the history's follower does not end; what it has written stays readable");
        }
    }

    pub fn status(&mut self) -> HistoryStatus {
        let (segments, bytes) = segments::held(&self.directory).unwrap_or_default();
        let answer = control::ask(&self.directory, Word::Status).ok();
        let reach_s = answer
            .as_ref()
            .filter(|state| state.paused.is_none())
            .map(|state| clock::monotonic_ns().saturating_sub(state.since_ns) as f64 / 1e9);
        if let Some(state) = answer {
            self.last = state;
        }
        HistoryStatus {
            directory: self.directory.display().to_string(),
            segments,
            bytes,
            most_bytes: self.limits.size,
            reach_s,
            age_s: self.limits.age.map(|age| age.as_secs_f64()),
            state: self.last.after(&self.before),
            restarts: self.restarts,
            failure: self.failure.clone(),
        }
    }
}
