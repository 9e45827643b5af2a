//! The command line: what can be asked, and how answers and errors are told. One file per command.

mod check;
mod daemon;
mod detail;
mod doctor;
mod dump;
mod dump_worker;
mod fault_guardian;
mod graph;
mod history_follower;
mod inject;
mod input;
mod profile_sampler;
mod record;
mod reload;
mod status;
mod upload_worker;
mod why;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Records what processes said to each other, from the kernel, and explains why something happened.
#[derive(Debug, Parser)]
#[command(name = "wherefore", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Doctor(doctor::Arguments),
    Record(record::Arguments),
    Inject(inject::Arguments),
    Why(why::Arguments),
    Graph(graph::Arguments),
    Check(check::Arguments),
    Daemon(daemon::Arguments),
    Status(status::Arguments),
    Dump(dump::Arguments),
    Detail(detail::Arguments),
    Reload(reload::Arguments),
    #[command(hide = true)]
    DumpWorker(dump_worker::Arguments),
    #[command(hide = true)]
    HistoryFollower(history_follower::Arguments),
    #[command(hide = true)]
    ProfileSampler(profile_sampler::Arguments),
    #[command(hide = true)]
    UploadWorker(upload_worker::Arguments),
    #[command(hide = true)]
    FaultGuardian(fault_guardian::Arguments),
}

/// What can be said on the command line; for those who check what documents say.
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Runs the command that the words ask for.
///
/// # Errors
/// What was tried, on what, and why it failed; see [`explain`].
pub fn run(words: impl Iterator<Item = OsString>) -> Result<ExitCode> {
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap prints help and version to stdout, mistakes to stderr.
            error.print()?;
            return Ok(ExitCode::from(if error.use_stderr() { 2 } else { 0 }));
        }
    };
    match arguments.command {
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Record(arguments) => record::run(arguments),
        Command::Inject(arguments) => inject::run(arguments),
        Command::Why(arguments) => why::run(arguments),
        Command::Graph(arguments) => graph::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Daemon(arguments) => daemon::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Dump(arguments) => dump::run(arguments),
        Command::Detail(arguments) => detail::run(arguments),
        Command::Reload(arguments) => reload::run(arguments),
        Command::DumpWorker(arguments) => dump_worker::run(arguments),
        Command::HistoryFollower(arguments) => history_follower::run(arguments),
        Command::ProfileSampler(arguments) => profile_sampler::run(arguments),
        Command::UploadWorker(arguments) => upload_worker::run(arguments),
        Command::FaultGuardian(arguments) => fault_guardian::run(arguments),
    }
}

/// An error that knows what to try next.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Hinted {
    pub message: String,
    pub hint: String,
}

/// Tells an error: `wherefore: what: why`, and a hint where there is one.
pub fn explain(error: &anyhow::Error) {
    // Also where it was added as context, which the causes one by one do not show.
    let hint = error.downcast_ref::<Hinted>().map(|h| h.hint.as_str());
    tell(&format!("{error:#}"), hint);
}

#[expect(clippy::print_stderr, reason = "errors are told on stderr")]
fn tell(message: &str, hint: Option<&str>) {
    eprintln!("wherefore: {message}");
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
}

/// Whether the reader of our output went away, which is its right.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}
