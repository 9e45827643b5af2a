//! `wherefore daemon`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::record::with_hint;
use crate::daemon;
use crate::daemon::config::Config;

/// Record always, keep the last minutes in memory, and make a dump of them when an alert fires or somebody asks
///
/// Until then nothing runs but the probes in the kernel. SIGUSR2 makes a dump, SIGHUP has the configuration read
/// again, SIGTERM ends the daemon.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration, a TOML file; without one all is as docs/deployment.md says
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Read the configuration, say whether it is right, and end
    #[arg(long)]
    check: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let config = arguments.config.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?;
    if arguments.check {
        return Ok(ExitCode::SUCCESS);
    }
    let file = arguments.config.as_deref().map(std::path::absolute).transpose()?;
    env_logger::Builder::new().filter_module("recorder", log::LevelFilter::Info).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(daemon::run(config, file, announce)).map_err(with_hint)?;
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "talk goes to stderr")]
fn announce(config: &Config) {
    eprintln!(
        "recording {} in {} of rings; answering at {}",
        config.scope(),
        config.ring,
        config.api.socket.display()
    );
}
