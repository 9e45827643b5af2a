//! What the daemon starts to upload a dump: sends its files to the store, and says how many there were.

use std::io::{stdin, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::daemon::job::attend;
use crate::daemon::upload::send::{self, Job};

/// Upload a dump, as the daemon says on standard input
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub fn run(_: Arguments) -> Result<ExitCode> {
    // Others go first.
    attend(19, 1000)?;
    let job: Job = serde_json::from_reader(stdin()).context("understand the job")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let uploaded = runtime.block_on(send::all(&job))?;
    serde_json::to_writer(stdout().lock(), &uploaded)?;
    Ok(ExitCode::SUCCESS)
}
