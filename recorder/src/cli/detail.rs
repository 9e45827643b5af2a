//! `wherefore detail`.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::capture::detail::Detail;
use crate::cli::status::asked;
use crate::daemon::config::SOCKET;
use crate::daemon::raised::{DetailRequest, DetailStatus};
use crate::quantity::{self, stretch};

/// Have the daemon record more for a while, or no more than it does always
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// `+syscall` adds system calls in which threads wait, and those about sockets and pipes; `+sched` which thread
    /// woke which; `+net` the packets that the kernel drops, and why; `flow` ends it
    #[arg(value_name = "DETAIL")]
    detail: Detail,
    /// For so long
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = quantity::duration)]
    r#for: Duration,
    /// Where the daemon answers
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let for_ms = Some(arguments.r#for.as_millis() as u64);
    let request = DetailRequest { detail: arguments.detail, for_ms };
    let answer = asked(&arguments.socket, "POST", "/v1/detail", serde_json::to_vec(&request)?)?;
    let now: DetailStatus = serde_json::from_slice(&answer).context("understand the daemon")?;
    let left = now.left_s.map(|left_s| format!(", for {}", stretch(left_s))).unwrap_or_default();
    writeln!(stdout().lock(), "recording {}{left}", now.detail)?;
    Ok(ExitCode::SUCCESS)
}
