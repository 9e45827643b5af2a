//! `wherefore dump`.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cli::status::asked;
use crate::daemon::Dumped;
use crate::daemon::api::DumpRequest;
use crate::daemon::config::SOCKET;
use crate::pattern::Pattern;
use crate::quantity;

/// Have the daemon keep what its rings hold, and explain what went wrong
///
/// Prints the folder that was made, and the likeliest culprit.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the daemon answers
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
    /// Only the last 30s, 5m …; default: all that there is
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    last: Option<Duration>,
    /// Go on recording for so long first
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    after: Option<Duration>,
    /// Name the folder so
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Explain the last event that matches; default: the failure that can be explained best
    #[arg(value_name = "PATTERN")]
    symptom: Option<Pattern>,
    /// Explain why no event that matches happened
    #[arg(long, value_name = "PATTERN")]
    missing: Option<Pattern>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let ms = |time: Duration| time.as_millis() as u64;
    let request = DumpRequest {
        name: arguments.name,
        last_ms: arguments.last.map(ms),
        after_ms: arguments.after.map(ms),
        symptom: arguments.symptom.map(|pattern| pattern.to_string()),
        missing: arguments.missing.map(|pattern| pattern.to_string()),
        asked_by: None,
        incident: None,
    };
    let answer = asked(&arguments.socket, "POST", "/v1/dump", serde_json::to_vec(&request)?)?;
    let dumped: Dumped = serde_json::from_slice(&answer).context("understand the daemon")?;
    let mut out = stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &dumped)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    match dumped {
        Dumped::Kept { folder, done, upload } => {
            writeln!(out, "{}", folder.display())?;
            writeln!(out, "{}", done.headline)?;
            for unusual in &done.unusual {
                writeln!(out, "{unusual}")?;
            }
            for part in &done.peers {
                if let Some(why) = &part.missing {
                    writeln!(out, "silent   {}: {why}", part.peer)?;
                }
            }
            if let Some(to) = upload {
                writeln!(out, "upload   to {to}")?;
            }
        }
        Dumped::Failed { why } => bail!("the dump failed: {why}"),
    }
    Ok(ExitCode::SUCCESS)
}
