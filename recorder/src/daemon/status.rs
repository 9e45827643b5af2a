//! How the daemon stands: what it holds, what it costs, what it was asked for and what it lost.

use std::fs;
use std::path::Path;
use std::process;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::history::{History, HistoryStatus};
use super::profile::{ProfileStatus, Profiler};
use super::raised::DetailStatus;
pub use super::triggers::TriggerStatus;
use super::upload::{UploadStatus, Uploads};
use super::{Daemon, Dumped, warnings};
use crate::capture::{Cost, Counting, Coverage};
use crate::fault::armed::Armed;
use crate::fault::armed::folder::{self, FOLDER};
use crate::trigger::kernel;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub kernel: String,
    pub scope: String,
    pub uptime_s: f64,
    pub cpus: u32,
    /// `bulk`, then `rare`.
    pub rings: Vec<Coverage>,
    /// Memory that the process itself holds, and that of the rings, bytes.
    pub resident_bytes: u64,
    pub ring_bytes: u64,
    /// CPU time that the process has used, s.
    pub cpu_s: f64,
    pub hooks: Vec<String>,
    pub missing_hooks: Vec<String>,
    pub detail: DetailStatus,
    /// Events that the probes could not write.
    pub lost: u64,
    /// Where it was asked for.
    pub cost: Option<Cost>,
    pub triggers: Vec<TriggerStatus>,
    /// Faults that recorders of this machine have armed.
    pub armed: Vec<Armed>,
    /// What is kept on disk, if anything is.
    pub history: Option<HistoryStatus>,
    /// What is known of what is usual, if anything is learnt.
    pub profile: Option<ProfileStatus>,
    /// What should be changed: triggers that will come too late, a history that is not kept.
    pub warnings: Vec<String>,
    pub dumps: DumpsStatus,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DumpsStatus {
    pub directory: String,
    /// Dumps in the folder, and their size.
    pub held: usize,
    pub bytes: u64,
    pub quota_bytes: u64,
    pub waiting: usize,
    #[serde(flatten)]
    pub counts: Counts,
    pub last: Option<Dumped>,
    /// How their copies to a store stand, if they have any.
    pub upload: Option<UploadStatus>,
}

/// What has happened since the daemon began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    pub triggered: u64,
    pub refused: u64,
    pub failed: u64,
    pub kept: u64,
    /// Of those that were kept, those whose window began after what they are about.
    pub late: u64,
    /// Parts that other hosts were asked for and that did not come.
    pub missing_parts: u64,
}

impl Daemon {
    pub(super) fn status(&mut self, counting: Option<&Counting>) -> Result<Status> {
        self.note_unwritten();
        let cost = counting.map(|counting| self.capture.cost(counting));
        let source = self.capture.source();
        let rings = self.capture.coverage().to_vec();
        let held = self.store.dumps()?;
        let history = self.history.as_mut().map(History::status);
        let unwatched = kernel::skipped(self.capture.maps());
        let warnings = warnings::of(&self.config, &rings, history.as_ref(), unwatched);
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: process::id(),
            kernel: source.host().kernel,
            scope: source.scope,
            uptime_s: self.started.elapsed().as_secs_f64(),
            cpus: source.shape.cpus,
            ring_bytes: rings.iter().map(|ring| ring.bytes).sum(),
            rings,
            resident_bytes: resident_bytes(),
            cpu_s: crate::capture::clock::process_cpu_ns() as f64 / 1e9,
            hooks: source.hooks,
            missing_hooks: source.missing_hooks,
            detail: self.detail_status(),
            lost: source.unwritten,
            cost,
            triggers: self.triggers.status(self.config.api.tcp.is_some()),
            armed: folder::all(Path::new(FOLDER))
                .with_context(|| format!("look into {FOLDER} for what is armed"))?,
            history,
            profile: self.profiler.as_ref().map(Profiler::status),
            warnings,
            dumps: DumpsStatus {
                directory: self.config.dumps.directory.display().to_string(),
                held: held.len(),
                bytes: held.iter().map(|(_, bytes)| bytes).sum(),
                quota_bytes: self.config.dumps.quota.0,
                waiting: self.waiting.len(),
                counts: self.counts,
                last: self.last.clone(),
                upload: self.uploads.as_ref().map(Uploads::status),
            },
        })
    }
}

/// Memory of the process that is its own; the rings, which are mapped, are not.
pub(super) fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
