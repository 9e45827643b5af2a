//! What `inject` starts beside itself where faults stop processes: sees to it that they go on.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

use anyhow::Result;

use crate::fault::guardian::watch;

/// Look after those whom faults stop, until standard input ends
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Descriptor of the map of those who are stopped
    paused: RawFd,
    /// Descriptor of the ring that tells of pauses
    pauses: RawFd,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    // SAFETY: the recorder left these open for this process, and nothing else here knows them.
    let [paused, pauses] =
        [arguments.paused, arguments.pauses].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    watch::run(paused, pauses)?;
    Ok(ExitCode::SUCCESS)
}
