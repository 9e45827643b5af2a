//! What the daemon starts to keep a history: follows the rings it inherits to disk, as it is told on standard input.

use std::io::{BufRead, stdin};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::{Context, Result};
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::daemon::history::follower::{self, Job};
use crate::daemon::job::attend;

/// Follow the rings, as the daemon says on standard input, until that is closed
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub fn run(_: Arguments) -> Result<ExitCode> {
    end_with_the_daemon()?;
    env_logger::Builder::new().filter_module("recorder", log::LevelFilter::Info).init();
    let mut line = String::new();
    stdin().lock().read_line(&mut line).context("read the job")?;
    let job: Job = serde_json::from_str(&line).context("understand the job")?;
    follower::follow(job, stdin().as_fd())?;
    Ok(ExitCode::SUCCESS)
}

/// It ends in good order when the daemon closes its standard input, not with the service's other processes; and at
/// once when the daemon is killed. Where memory is short, it goes before the daemon.
fn end_with_the_daemon() -> Result<()> {
    // Whoever waits too long for a CPU loses events.
    attend(-10, 500)?;
    // SAFETY: nothing runs in a handler.
    unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn) }
        .context("leave SIGTERM to the daemon")?;
    Ok(())
}
