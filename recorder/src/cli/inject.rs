//! `wherefore inject`.

mod report;

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::record::{self, Besides};
use crate::capture::{Capture, clock};
use crate::cli::Hinted;
use crate::event::{Event, Names};
use crate::fault::plan::{self, Choice, Victims, plan};
use crate::fault::spec::Faults;
use crate::fault::witness::Witness;
use crate::fault::{ability, arm, line, parse};

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
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    record: record::Arguments,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
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
    let mut injection =
        Injection { choices: &choices, seed, witness: Witness::default(), rows: Vec::new() };
    record::run_with(&arguments.record, &mut injection)?;
    let never = injection.rows.iter().any(|row| row.fired == 0);
    report::rows(&injection.rows, seed, arguments.json, &mut out)?;
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

/// Something that is different every time; told, so that a run can be made again.
fn chosen_seed() -> u64 {
    clock::monotonic_ns() ^ u64::from(std::process::id()) << 32
}

/// Faults at work beside a recording.
struct Injection<'a> {
    choices: &'a [Choice<'a>],
    seed: u64,
    witness: Witness,
    rows: Vec<report::Row>,
}

impl Besides for Injection<'_> {
    fn begin(&mut self, capture: &mut Capture) -> Result<()> {
        let now_ns = clock::monotonic_ns();
        let compiled = plan::compile(self.choices, self.seed, now_ns, &arm::cgroup)
            .map_err(|message| anyhow::anyhow!(message))
            .context("compile the faults")?;
        let names = self.choices.iter().map(|choice| choice.fault.name.as_str());
        arm::start(capture, names, &compiled)?;
        Ok(())
    }

    fn see(&mut self, _names: &Names, events: &[Event]) {
        self.witness.see(events);
    }

    fn turn(&mut self, capture: &mut Capture) -> Result<()> {
        let progress = arm::progress(capture.maps(), self.choices.len())?;
        let names = capture.names();
        self.rows = self
            .choices
            .iter()
            .zip(progress)
            .map(|(choice, progress)| {
                let seen = self.witness.of(names, &choice.fault.name);
                report::Row::new(choice, &progress, seen)
            })
            .collect();
        Ok(())
    }
}
