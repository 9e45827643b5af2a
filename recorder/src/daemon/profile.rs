//! What is usual on this machine, kept up to date: now and then a process of its own, the sampler, looks at the newest
//! events in the rings and adds their shapes to a file. What a sample costs says how long the next one is waited for.

pub mod file;
pub mod settings;

use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::job::{self, inheritable};
use crate::capture::snapshot::Source;
use crate::capture::{Capture, clock};
use crate::hide::Hide;
use settings::Settings;

/// The word that makes of the command the sampler.
pub const SAMPLER: &str = "profile-sampler";

/// What the sampler is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    pub source: Source,
    /// Names that are written down nowhere.
    pub hide: Hide,
    /// The rings' maps: descriptors that it inherits.
    pub maps: [RawFd; 3],
    pub file: PathBuf,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    pub samples: u64,
    /// How long they have been taken, s.
    pub known_s: f64,
    pub acts: usize,
    pub left_out: u64,
    pub cpu_ns: u64,
    /// Why what was known before was given up, if it was.
    pub anew: Option<String>,
}

/// How the profile stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProfileStatus {
    pub file: String,
    /// Samples that have gone into it, and for how long, s, also those of daemons before this one.
    pub samples: u64,
    pub known_s: f64,
    /// Outcomes that are known, and how many were left out for lack of room.
    pub acts: usize,
    pub left_out: u64,
    /// Samples that this daemon has had taken, the CPU time of these, and the pause after the last one, s.
    pub taken: u64,
    pub cpu_s: f64,
    pub pause_s: f64,
    /// Samples that failed, and why the last one did.
    pub failed: u64,
    pub failure: Option<String>,
}

/// A sample sooner after the last one would show the same events.
const SHORTEST: Duration = Duration::from_secs(1);
/// However dear samples are.
const LONGEST: Duration = Duration::from_secs(600);
/// After one that failed: the disk may be full for a while.
const RETRY: Duration = Duration::from_secs(60);
/// A sampler that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The profile, as the daemon has it.
pub struct Profiler {
    settings: Settings,
    hide: Hide,
    file: PathBuf,
    due: Instant,
    at_work: Option<JoinHandle<Result<Sampled>>>,
    /// CPU time that it took this process to start the one at work.
    start_ns: u64,
    pause: Duration,
    last: Sampled,
    taken: u64,
    cpu_ns: u64,
    failed: u64,
    failure: Option<String>,
}

/// What is to be done next.
pub enum Next {
    Sample,
    Ended(Result<Sampled>),
}

/// Waits for it; without end, where there is no profile.
pub async fn next(profiler: &mut Option<Profiler>) -> Next {
    match profiler {
        Some(Profiler { at_work: Some(sampler), .. }) => {
            Next::Ended(sampler.await.context("wait for the sampler").flatten())
        }
        Some(Profiler { due, .. }) => {
            tokio::time::sleep_until(*due).await;
            Next::Sample
        }
        None => std::future::pending().await,
    }
}

/// Where a profile lies: beside the dumps.
pub fn path(dumps: &Path) -> PathBuf {
    dumps.parent().unwrap_or(dumps).join("profile.json")
}

impl Profiler {
    pub fn new(settings: Settings, hide: Hide, dumps: &Path) -> Self {
        Self {
            settings,
            hide,
            file: path(dumps),
            due: Instant::now() + SHORTEST,
            at_work: None,
            start_ns: 0,
            pause: SHORTEST,
            last: Sampled::default(),
            taken: 0,
            cpu_ns: 0,
            failed: 0,
            failure: None,
        }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    pub fn go_on(&mut self, next: Next, capture: &Capture) {
        match next {
            Next::Sample => {
                let begun_ns = clock::process_cpu_ns();
                match self.start(capture) {
                    Ok(sampler) => self.at_work = Some(sampler),
                    Err(error) => self.fail(&error),
                }
                self.start_ns = clock::process_cpu_ns() - begun_ns;
            }
            Next::Ended(ended) => {
                self.at_work = None;
                match ended {
                    Ok(sampled) => self.take(sampled),
                    Err(error) => self.fail(&error),
                }
            }
        }
    }

    fn start(&self, capture: &Capture) -> Result<JoinHandle<Result<Sampled>>> {
        let maps = inheritable(capture.ring_maps()?)?;
        let job = Job {
            source: capture.source(),
            hide: self.hide.clone(),
            maps: maps.each_ref().map(AsRawFd::as_raw_fd),
            file: self.file.clone(),
        };
        let child = job::spawn(SAMPLER, &job)?;
        Ok(tokio::spawn(async move {
            let _maps = maps;
            job::answer(child, PATIENCE).await
        }))
    }

    fn take(&mut self, sampled: Sampled) {
        if let Some(why) = &sampled.anew {
            log::warn!("the profile begins anew: {why}");
        }
        let cpu_ns = sampled.cpu_ns + self.start_ns;
        self.taken += 1;
        self.cpu_ns += cpu_ns;
        self.pause = self.settings.pause(cpu_ns).clamp(SHORTEST, LONGEST);
        self.due = Instant::now() + self.pause;
        self.last = sampled;
    }

    fn fail(&mut self, error: &anyhow::Error) {
        let why = format!("{error:#}");
        if self.failure.as_ref() != Some(&why) {
            log::error!("take a sample for the profile: {why}");
        }
        self.failed += 1;
        self.failure = Some(why);
        self.pause = RETRY;
        self.due = Instant::now() + self.pause;
    }

    pub fn status(&self) -> ProfileStatus {
        let Sampled { samples, known_s, acts, left_out, .. } = self.last;
        ProfileStatus {
            file: self.file.display().to_string(),
            samples,
            known_s,
            acts,
            left_out,
            taken: self.taken,
            cpu_s: self.cpu_ns as f64 / 1e9,
            pause_s: self.pause.as_secs_f64(),
            failed: self.failed,
            failure: self.failure.clone(),
        }
    }
}

/// The sampler ends with whoever waits for it.
impl Drop for Profiler {
    fn drop(&mut self) {
        if let Some(sampler) = &self.at_work {
            sampler.abort();
        }
    }
}
