//! `wherefore inject`.

pub(super) mod injection;
mod report;

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use injection::{Injection, chosen_seed};

use super::record;
use crate::cli::Hinted;
use crate::fault::plan::{Victims, plan};
use crate::fault::spec::Faults;
use crate::fault::{ability, line, parse};

/// Make chosen events fail while a command runs, and record it
///
/// Exit status 1 when a fault never fired.
#[derive(Debug, clap::Args)]
#[group(id = "inject")]
pub struct Arguments {
    /// The fault file (docs/faults.md)
    #[arg(value_name = "FAULTS")]
    file: Option<PathBuf>,
    /// A fault in one line: 'comm=app op=connect peer=:5432 => error=ECONNREFUSED, nth=3'
    #[arg(long = "fault", value_name = "LINE")]
    lines: Vec<String>,
    /// Say by which mechanism each fault would be done here, and why not by the others; run nothing
    #[arg(long)]
    explain: bool,
    /// Seed of what is left to chance, instead of the file's
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(..=SEED_MAX))]
    seed: Option<u64>,
    /// Arm the faults also where another recorder has armed the same for the same processes
    #[arg(long)]
    beside: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    record: record::Arguments,
}

/// TOML's numbers end here, and a fault file must be able to say it.
const SEED_MAX: u64 = i64::MAX as u64;

pub fn run(mut arguments: Arguments) -> Result<ExitCode> {
    let faults = faults(&arguments)?;
    let bounded = record::is_bounded(&arguments.record);
    let victims = if bounded { Victims::Scope } else { Victims::Named };
    let can = ability::find_out();
    let choices = plan(&faults, victims, &can)?;
    let mut out = stdout().lock();
    if arguments.explain {
        report::plan(&choices, arguments.json, &mut out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let seed = arguments.seed.or(faults.seed).unwrap_or_else(chosen_seed);
    if arguments.json {
        arguments.record.printing_to_stderr();
    }
    let mut injection = Injection::new(&choices, seed);
    injection.beside = arguments.beside;
    record::run_with(&arguments.record, &mut injection)?;
    let never = injection.rows.iter().any(|row| row.fired == 0);
    report::rows(&injection, seed, arguments.json, &mut out)?;
    out.flush()?;
    Ok(if never { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn faults(arguments: &Arguments) -> Result<Faults> {
    let mut faults = Faults::default();
    if let Some(path) = &arguments.file {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        faults = parse::file(&path.display().to_string(), &text)?;
    }
    for (number, text) in (1..).zip(&arguments.lines) {
        let fault = line::parse(text, &format!("fault {number}"))?;
        if faults.faults.iter().any(|other| other.name == fault.name) {
            bail!("there are two faults called `{}`", fault.name);
        }
        faults.faults.push(fault);
    }
    if faults.faults.is_empty() {
        bail!(Hinted {
            message: "no fault to inject".to_owned(),
            hint:
                "give a fault file, or --fault 'comm=app op=connect => error=ECONNREFUSED, nth=1'"
                    .to_owned(),
        });
    }
    Ok(faults)
}
