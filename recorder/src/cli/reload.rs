//! `wherefore reload`.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cli::status::asked;
use crate::daemon::config::SOCKET;
use crate::daemon::reload::Reloaded;

/// Have the daemon read its configuration again, while its rings fill on
///
/// Says which changes need a restart. A configuration that is wrong changes nothing.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the daemon answers
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let answer = asked(&arguments.socket, "POST", "/v1/reload", Vec::new())?;
    let reloaded: Reloaded = serde_json::from_slice(&answer).context("understand the daemon")?;
    let mut out = stdout().lock();
    match reloaded.needs_restart.as_slice() {
        [] => writeln!(out, "the configuration is in effect")?,
        keys => writeln!(out, "in effect but for {}: these need a restart", keys.join(", "))?,
    }
    Ok(ExitCode::SUCCESS)
}
