//! A dump is made by a process of its own, the worker: what it takes in memory is given back when it ends, and
//! whatever befalls it, the recorder goes on. This is what the two tell each other.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use super::peers::{Gathering, Part};
use crate::capture::ring::{Rings, Shape};
use crate::capture::snapshot::{Cut, Source};
use crate::hide::Hide;
use crate::profile::unusual::Unusual;

/// What the worker is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub source: Source,
    pub cut: Cut,
    /// The rings' maps: descriptors that the worker inherits.
    pub maps: [RawFd; 3],
    /// Names that are not written down.
    pub hide: Hide,
    /// Where what the rings no longer hold lies, if it is wanted.
    pub past: Option<Past>,
    /// Where to put the files.
    pub folder: PathBuf,
    pub name: String,
    pub told_by: String,
    pub symptoms: Vec<String>,
    pub missing: Option<String>,
    /// A pattern of where to look for what failed.
    pub scope: Option<String>,
    pub began: Option<Timestamp>,
    /// Else it only writes what the rings hold.
    pub explain: bool,
    /// What a worker before this one has written.
    pub recorded: Option<Done>,
    /// What other hosts have sent, beside the recording.
    pub peers: Vec<Part>,
    /// Where what is usual is written, if that is known.
    pub profile: Option<PathBuf>,
}

/// The history on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Past {
    pub directory: PathBuf,
    /// Events that the probes could not write, since they were attached.
    pub unwritten: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    pub events: u64,
    pub bytes: u64,
    /// How long the complete window is, s.
    pub window_s: f64,
    /// By how much the window begins after what it is about; nothing where it holds the beginning.
    pub late_s: Option<f64>,
    /// What is most likely to blame, in one line.
    pub headline: String,
    /// Other hosts that were asked for their part.
    #[serde(default)]
    pub peers: Vec<Part>,
    /// What on this host is new or out of proportion, the most telling first; nothing without a profile.
    #[serde(default)]
    pub unusual: Vec<Unusual>,
}

/// The word that makes of the command a worker.
pub const WORKER: &str = "dump-worker";
/// Reading 512 MiB of rings takes seconds; a worker that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// A worker at work.
pub struct Worker {
    child: Child,
    /// They stay open until the worker has its own.
    _maps: Option<[OwnedFd; 3]>,
}

impl Worker {
    /// Starts one; `job.maps` is filled in here.
    pub fn start(mut job: Job, maps: Option<[BorrowedFd<'_>; 3]>) -> Result<Self> {
        let inherited = maps.map(inheritable).transpose()?;
        if let Some(inherited) = &inherited {
            job.maps = inherited.each_ref().map(AsRawFd::as_raw_fd);
        }
        Ok(Self { child: spawn(WORKER, &job)?, _maps: inherited })
    }

    /// What came of it, when it has ended.
    pub async fn end(self) -> Result<Done> {
        answer(self.child, PATIENCE).await
    }
}

/// Starts this program as one that does a job, which it is told on its standard input.
pub(super) fn spawn(word: &str, job: &impl Serialize) -> Result<Child> {
    let program = std::env::current_exe().context("find the recorder's own program")?;
    let mut child = Command::new(program)
        .arg(word)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start the {word}"))?;
    let stdin = child.stdin.take().context("a pipe to the worker")?;
    let mut stdin = fs::File::from(stdin.into_owned_fd()?);
    // Far less than a pipe holds.
    stdin
        .write_all(&serde_json::to_vec(job)?)
        .with_context(|| format!("tell the {word} its job"))?;
    Ok(child)
}

/// What it says when it has done it.
pub(super) async fn answer<T: DeserializeOwned>(child: Child, patience: Duration) -> Result<T> {
    let output = tokio::time::timeout(patience, child.wait_with_output())
        .await
        .with_context(|| format!("the worker was not done after {} s", patience.as_secs()))??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("the worker ended with {}: {}", output.status, said.trim());
    }
    serde_json::from_slice(&output.stdout).context("understand the worker")
}

/// Makes a dump; where other hosts were asked for their parts, an answer across all of them.
pub async fn across(worker: Worker, job: Job, gathering: Option<Gathering>) -> Result<Done> {
    let recorded = worker.end().await?;
    let Some(gathering) = gathering else { return Ok(recorded) };
    let peers = gathering.end(job.folder.clone()).await;
    let job = Job { explain: true, recorded: Some(recorded), peers, ..job };
    Worker::start(job, None)?.end().await
}

/// Descriptors of the same maps that a program started now inherits.
pub(super) fn inheritable(maps: [BorrowedFd<'_>; 3]) -> Result<[OwnedFd; 3]> {
    let inherit = |map: BorrowedFd<'_>| -> Result<OwnedFd> {
        let fd = fcntl(map.as_fd(), FcntlArg::F_DUPFD(3)).context("hand a ring on")?;
        // SAFETY: just made, and nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    let [heads, bulk, rare] = maps;
    Ok([inherit(heads)?, inherit(bulk)?, inherit(rare)?])
}

impl Job {
    /// Maps the rings that the worker inherited.
    pub fn rings(&self) -> Result<Rings> {
        inherited(self.maps, self.source.shape)
    }

    /// When what the dump is about began, by a clock that is so far from the wall's, ns.
    pub fn began_ns(&self, wall_offset_ns: i64) -> Option<i128> {
        self.began.map(|began| began.as_nanosecond() - i128::from(wall_offset_ns))
    }
}

/// What a process the daemon starts does first. Without the daemon there is nobody to work for: it is killed with it.
/// `niceness` says who goes first for the CPU, and `oom_score` (0 to 1000) who goes first where memory is short; where
/// these are refused the work is done all the same.
///
/// # Errors
/// When it cannot be had killed with the daemon.
pub fn attend(niceness: i32, oom_score: u16) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("end with the daemon")?;
    let _ = fs::write("/proc/self/oom_score_adj", oom_score.to_string());
    // SAFETY: a call on numbers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
    Ok(())
}

/// Maps rings whose maps this process inherited. Once: they are closed.
pub fn inherited(maps: [RawFd; 3], shape: Shape) -> Result<Rings> {
    // SAFETY: the daemon left these open for this process, and nothing else here knows them.
    let maps = maps.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    Rings::of([maps[0].as_fd(), maps[1].as_fd(), maps[2].as_fd()], shape)
}
