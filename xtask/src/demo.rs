//! `demo`: records a real system that goes wrong, and asks why.
//!
//! The system is `xtask/demo/cluster.sh`: nginx, a Python thread pool and redis; curl gets half an answer
//! because somebody kills the application.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{self, as_root, root, say, wherefore};
use crate::{build, setup};

/// What went wrong: the last thing that curl received.
const SYMPTOM: &str = "comm=curl op=recv";

pub fn run() -> Result<()> {
    setup::run()?;
    build::run()?;
    let directory = root().join("target/demo");
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let recording = directory.join("demo.parquet");
    remove_old(&recording)?;
    record(&recording)?;
    process::run(Command::new(wherefore()).arg("why").arg(&recording).arg(SYMPTOM))?;
    let picture = draw(&recording)?;
    say(format_args!("the recording  {}", recording.display()));
    say(format_args!("its picture    {}", picture.display()));
    Ok(())
}

/// The last recording may be root's; the folder is ours.
fn remove_old(recording: &Path) -> Result<()> {
    if recording.exists() {
        fs::remove_file(recording).with_context(|| format!("remove {}", recording.display()))?;
    }
    Ok(())
}

fn record(recording: &Path) -> Result<()> {
    let mut command = as_root(&wherefore()).context("record")?;
    command.args(["record", "--pass-status", "--output"]).arg(recording).arg("--");
    process::run(command.arg(root().join("xtask/demo/cluster.sh")))
}

/// Draws what provably led to it, back to where the kill came from. All of the past is too much for one
/// picture: every request before had to end for the next to begin.
fn draw(recording: &Path) -> Result<PathBuf> {
    let picture = recording.with_extension("svg");
    let file = File::create(&picture).with_context(|| format!("write {}", picture.display()))?;
    let mut command = Command::new(wherefore());
    command.arg("graph").arg(recording).args(["--slice", SYMPTOM, "--must", "--depth", "12"]);
    command.args(["--to", "svg"]).stdout(file);
    process::run(&mut command)?;
    Ok(picture)
}
