//! `wherefore why --confirm`: runs a command with the suspected cause and without it, each run recorded, and says what
//! that proves.

mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};

use super::Arguments;
use crate::cli::inject::injection::{Injection, chosen_seed};
use crate::cli::{Hinted, input, record};
use crate::confirm::suspect::{self, Rejected, Suspect};
use crate::confirm::verdict::{Tally, Verdict, judge};
use crate::confirm::{Arms, symptom};
use crate::describe::describe;
use crate::event::{EventIndex, History, Op};
use crate::fault::plan::{Capabilities, Victims, plan};
use crate::fault::spec::{Fault, Faults};
use crate::fault::{ability, line, print};
use crate::graph::Graph;
use crate::incident;
use crate::pattern::Pattern;
use crate::recording::read;

/// What is to be found out, and what was.
struct Inquiry<'a> {
    history: &'a History,
    suspect: Suspect,
    /// Likelier causes that cannot be had again.
    passed_over: Vec<Rejected>,
    /// Where the suspected fault stands in the runs with it.
    name: String,
    symptom: EventIndex,
    pattern: Pattern,
    with: Tally,
    without: Tally,
    verdict: Verdict,
}

pub(super) fn run(
    arguments: &Arguments,
    files: &[PathBuf],
    asked: Option<&Pattern>,
) -> Result<ExitCode> {
    let history = input::open(files)?;
    let Some(symptom) = input::symptom(&history, asked) else {
        return super::no_such_event(&input::no_match(&history, asked));
    };
    let event = &history.events[symptom.event as usize];
    let can = ability::find_out();
    let (mut suspect, passed_over) = suspected(arguments, &history, &symptom, &can)?;
    let armed = suspect::armed(&history).map_err(|message| anyhow!(message))?;
    suspect::rename(&mut suspect.fault, &armed);
    let arms = suspect::arms(&armed, &suspect.fault);
    let seed = armed.seed.unwrap_or_else(chosen_seed);
    let pattern = symptom::generalise(&history, event, asked);
    let name = suspect.fault.name.clone();
    let runner = Runner { arguments, can: &can, seed, name: &name, pattern: &pattern };
    let (with, without) = runner.both(&arms)?;
    let verdict = judge(with, without);
    let symptom = symptom.event;
    let history = &history;
    let inquiry =
        Inquiry { history, suspect, passed_over, name, symptom, pattern, with, without, verdict };
    report::tell(&inquiry, arguments.json)?;
    Ok(if verdict == Verdict::Confirmed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The cause that is to be confirmed, checked before anything runs.
fn suspected(
    arguments: &Arguments,
    history: &History,
    symptom: &input::Symptom,
    can: &Capabilities,
) -> Result<(Suspect, Vec<Rejected>)> {
    if let Some(text) = &arguments.cause {
        let fault = line::parse_from(text, "named cause", "--cause")?;
        doable(&fault, can).map_err(|message| anyhow!(message))?;
        return Ok((Suspect { event: None, fault, notes: Vec::new() }, Vec::new()));
    }
    let graph = Graph::build(history);
    let options = arguments.slicing.options();
    let incident = incident::explain(history, &graph, symptom.event, symptom.matched, options);
    let can = |fault: &Fault| doable(fault, can);
    suspect::suspect(history, &incident, &can)
        .map_err(|rejected| anyhow!(no_suspect(history, symptom.event, &rejected)))
}

/// Why a fault cannot be injected here; with the line that would do it elsewhere.
fn doable(fault: &Fault, can: &Capabilities) -> Result<(), String> {
    let faults = Faults { seed: None, faults: vec![fault.clone()] };
    match plan(&faults, Victims::Scope, can) {
        Ok(_) => Ok(()),
        Err(refusal) => {
            let line = print::line(fault).unwrap_or_else(|| fault.name.clone());
            let reasons =
                refusal.rejected.iter().map(|r| format!("\n    {:<9} {}", r.mechanism, r.reason));
            Err(format!("`{line}`: {}{}", refusal.message, reasons.collect::<String>()))
        }
    }
}

fn no_suspect(history: &History, symptom: EventIndex, rejected: &[Rejected]) -> Hinted {
    let told = |event: EventIndex| describe(history, &history.events[event as usize]);
    let mut message = format!("nothing that led to `{}` can be injected", told(symptom));
    if rejected.is_empty() {
        message += ": no step of the answer harms anybody";
    }
    for Rejected { event, reason } in rejected {
        message += &format!("\n  {}: {reason}", told(*event));
    }
    let hint = "name a fault that is it: --cause 'comm=app op=connect => error=ECONNREFUSED, nth=1'; \
                or bring it about by hand within the command, and look at the recording of it";
    Hinted { message, hint: hint.to_owned() }
}

/// Runs the command.
struct Runner<'a> {
    arguments: &'a Arguments,
    can: &'a Capabilities,
    seed: u64,
    /// Of the suspected fault.
    name: &'a str,
    pattern: &'a Pattern,
}

impl Runner<'_> {
    /// One run with the cause and one without, in turn.
    fn both(&self, arms: &Arms) -> Result<(Tally, Tally)> {
        let (mut with, mut without) = (Tally::default(), Tally::default());
        let folder = tempfile::tempdir().context("make a folder for the recordings")?;
        let file = folder.path().join("run.parquet");
        for number in 1..=self.arguments.runs {
            for (faults, tally, how) in
                [(&arms.with, &mut with, "with"), (&arms.without, &mut without, "without")]
            {
                self.say(number, how);
                self.once(faults, &file, tally)?;
            }
        }
        Ok((with, without))
    }

    #[expect(clippy::print_stderr, reason = "talk goes to stderr")]
    fn say(&self, number: u32, how: &str) {
        eprintln!("run {number} of {}, {how} the cause", self.arguments.runs);
    }

    fn once(&self, faults: &Faults, file: &Path, tally: &mut Tally) -> Result<()> {
        let choices = plan(faults, Victims::Scope, self.can)?;
        let mut record =
            record::Arguments::of_command(file.to_owned(), self.arguments.command.clone());
        record.printing_to_stderr();
        let mut injection = Injection::new(&choices, self.seed);
        let ended = record::run_with(&record, &mut injection)?;
        if ended.stopped {
            bail!("stopped before it was known");
        }
        let is_suspect = choices.iter().map(|choice| choice.fault.name == self.name);
        let fired = injection.rows.iter().zip(is_suspect).any(|(row, is)| is && row.fired > 0);
        let meant = choices.iter().any(|choice| choice.fault.name == self.name);
        let history = read::open(&[file.to_owned()])?.history;
        tally.runs += 1;
        tally.fired += u32::from(fired);
        if meant && !fired {
            return Ok(());
        }
        let came = self.came(&history);
        tally.came += u32::from(came);
        tally.unclear += u32::from(!came && history.hosts.iter().any(|host| host.lost > 0));
        Ok(())
    }

    /// Whether the symptom is there; where the cause is, after it.
    fn came(&self, history: &History) -> bool {
        let is_cause = |e: &&crate::event::Event| {
            e.op == Op::Fault && history.names.text(e.fault) == self.name
        };
        let cause_ns = history.events.iter().find(is_cause).map_or(0, |event| event.time_ns);
        let bound = self.pattern.bind(history);
        let symptom = |e: &crate::event::Event| e.op != Op::Fault && bound.matches(e);
        history.events.iter().any(|event| event.time_ns >= cause_ns && symptom(event))
    }
}
