//! `wherefore doctor`.

use std::io::{Write, stdout};
use std::process::ExitCode;

use anyhow::Result;

use crate::doctor::{Answer, Report};

/// Say what this kernel can do, what is missing, and what to do about it
///
/// Exit status 1 when nothing can be recorded here.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let report = Report::make();
    let mut out = stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        text(&report, &mut out)?;
    }
    Ok(if report.can_record { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(report: &Report, out: &mut impl Write) -> Result<()> {
    writeln!(out, "Linux {} on {}, {} CPUs", report.kernel, report.architecture, report.cpus)?;
    let mut section = "";
    for check in &report.checks {
        if check.section != section {
            section = check.section;
            writeln!(out, "\n{section}")?;
        }
        let answer = match check.answer {
            Answer::Yes => "yes",
            Answer::No => "no",
            Answer::Unknown => "could not tell",
        };
        writeln!(out, "  {answer:<15} {:<22} {}", check.name, check.gives)?;
        if let Some(note) = &check.note {
            writeln!(out, "  {:<15} {:<22} {note}", "", "")?;
        }
    }
    let verdict =
        if report.can_record { "recording works here" } else { "nothing can be recorded here" };
    writeln!(out, "\n{verdict}")?;
    Ok(())
}
