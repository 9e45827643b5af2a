//! `wherefore doctor`.

use std::io::{Write, stdout};
use std::process::ExitCode;

use anyhow::Result;

use crate::capture::attach::family::Family;
use crate::cli::record::family_parser;
use crate::cli::status::reach_of_the_daemon;
use crate::doctor::{Answer, Report, measure};

/// Say what this kernel can do, what is missing, and what to do about it
///
/// Exit status 1 when nothing can be recorded here.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Measure what an event costs here, in this many rounds
    #[arg(long, value_name = "ROUNDS", num_args = 0..=1, default_missing_value = "30")]
    measure: Option<usize>,
    /// Measure what an armed fault costs those whom it is not for
    #[arg(long, requires = "measure", conflicts_with = "hooks")]
    faults: bool,
    /// Measure with this family of hooks
    #[arg(
        long,
        value_name = "FAMILY",
        value_parser = family_parser(),
        requires = "measure",
        default_value = Family::Tracepoint.as_str()
    )]
    hooks: Family,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let mut out = stdout().lock();
    if let Some(rounds) = arguments.measure.filter(|_| arguments.faults) {
        return measured_faults(rounds, arguments.json, &mut out);
    }
    if let Some(rounds) = arguments.measure {
        return measured(rounds, arguments.hooks, arguments.json, &mut out);
    }
    let report = Report::make();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        text(&report, &mut out)?;
    }
    Ok(if report.can_record { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measured(rounds: usize, family: Family, json: bool, out: &mut impl Write) -> Result<ExitCode> {
    let cost = measure::cost(rounds, family)?;
    if json {
        serde_json::to_writer_pretty(&mut *out, &cost)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(
        out,
        "a receive that finds nothing, median of {rounds} rounds, hooks of family {family}:"
    )?;
    writeln!(out, "  nobody watching         {:>6.0} ns", cost.bare_ns)?;
    writeln!(out, "  an empty program        {:>6.0} ns", cost.idle_ns)?;
    writeln!(out, "  recorded                {:>6.0} ns", cost.recorded_ns)?;
    writeln!(out, "an event over an empty program: {:.0} ns", cost.event_over_idle_ns)?;
    Ok(ExitCode::SUCCESS)
}

fn measured_faults(rounds: usize, json: bool, out: &mut impl Write) -> Result<ExitCode> {
    let costs = measure::fault::costs(rounds)?;
    if json {
        serde_json::to_writer_pretty(&mut *out, &serde_json::json!({ "faults": costs }))?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "ns per call, median of {rounds} rounds; armed for somebody else:")?;
    writeln!(out, "  mechanism  bare  empty program  out of scope  in scope  call")?;
    for cost in costs {
        writeln!(
            out,
            "  {:<9} {:>5.0} {:>14.0} {:>13.0} {:>9.0}  {}",
            cost.mechanism, cost.bare_ns, cost.idle_ns, cost.outside_ns, cost.spared_ns, cost.call
        )?;
    }
    Ok(ExitCode::SUCCESS)
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
    let reach = reach_of_the_daemon().unwrap_or_default();
    if !reach.is_empty() {
        writeln!(out, "\nthe daemon that runs here")?;
    }
    Ok(reach.iter().try_for_each(|line| writeln!(out, "  {line}"))?)
}
