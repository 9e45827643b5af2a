//! The recorder as a separate process, as it is in life: started, watched, stopped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::redis::cpu_ns;
use crate::process::{self, wherefore};

/// What the recorder does with the rings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Leaves them alone until the end.
    RingsOnly,
    /// Follows them to a file.
    Follow,
}

/// `wherefore record --all` at work.
pub struct Recorder {
    process: Child,
    talk: PathBuf,
    pub output: PathBuf,
}

/// What it said at its end.
pub struct Summary {
    pub events: u64,
    pub lost: u64,
    pub bytes: u64,
    /// From being asked to stop to the finished file.
    pub stopping: Duration,
}

impl Recorder {
    /// Starts it and waits until its probes are attached.
    pub fn start(mode: Mode, ring: &str, directory: &Path) -> Result<Self> {
        Self::detailed(mode, ring, directory, "flow")
    }

    /// The same with more detail.
    pub fn detailed(mode: Mode, ring: &str, directory: &Path, detail: &str) -> Result<Self> {
        let output = directory.join("bench.parquet");
        let talk = directory.join("recorder.log");
        if output.exists() {
            fs::remove_file(&output)?;
        }
        let mut command = Command::new(wherefore());
        command.args(["record", "--all", "--ring", ring, "--detail", detail, "--output"]);
        command.arg(&output);
        if mode == Mode::RingsOnly {
            command.arg("--snapshot");
        }
        let process = command.stderr(File::create(&talk)?).spawn().context("start the recorder")?;
        let mut recorder = Self { process, talk, output };
        let begin = Instant::now();
        // The file is made once the probes are attached.
        while !recorder.output.exists() {
            if let Some(status) = recorder.process.try_wait()? {
                bail!("the recorder ended at once ({status}): {}", recorder.said());
            }
            ensure!(begin.elapsed() < Duration::from_secs(30), "the recorder does not start");
            sleep(Duration::from_millis(10));
        }
        Ok(recorder)
    }

    pub fn cpu_ns(&self) -> Result<u64> {
        cpu_ns(self.process.id())
    }

    /// Runs and time of its programs, by the kernel's count; zero unless the kernel is told to count.
    pub fn program_runs(&self) -> Result<(u64, u64)> {
        let (mut runs, mut ns) = (0, 0);
        for entry in fs::read_dir(format!("/proc/{}/fdinfo", self.process.id()))? {
            // A descriptor may be closed meanwhile.
            let info = fs::read_to_string(entry?.path()).unwrap_or_default();
            // A link's text names its program too, without the counts.
            let number = |key: &str| {
                info.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok())
            };
            runs += number("run_cnt:").unwrap_or(0);
            ns += number("run_time_ns:").unwrap_or(0);
        }
        Ok((runs, ns))
    }

    pub fn stop(mut self) -> Result<Summary> {
        let begin = Instant::now();
        ensure!(self.ask_to_stop(), "the recorder is not there any more: {}", self.said());
        let status = self.process.wait()?;
        let stopping = begin.elapsed();
        let said = self.said();
        ensure!(status.success(), "the recorder failed ({status}): {said}");
        let last = said.lines().rev().find(|line| line.contains("recorded ")).unwrap_or_default();
        let before = |word: &str| last.split(word).next()?.rsplit(' ').next();
        let number = |word: &str| before(word)?.replace(',', "").parse::<u64>().ok();
        Ok(Summary {
            events: number(" events").with_context(|| format!("read the summary: {said}"))?,
            lost: number(" lost").with_context(|| format!("read the summary: {said}"))?,
            bytes: fs::metadata(&self.output)?.len(),
            stopping,
        })
    }

    fn ask_to_stop(&self) -> bool {
        process::succeeds(Command::new("kill").arg(self.process.id().to_string()))
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.talk).unwrap_or_default()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Only after a failure: it has ended otherwise, and both do nothing.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
