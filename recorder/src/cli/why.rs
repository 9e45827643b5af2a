//! `wherefore why`.

mod confirm;
pub mod json;
pub mod text;

use std::collections::HashSet;
use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Hinted, input};
use crate::event::History;
use crate::explain::beyond::{Beyond, beyond};
use crate::explain::{self, Process, missing};
use crate::graph::Graph;
use crate::lookback::{self, Extent, Limits, LookedBack, Outcome};
use crate::pattern::Pattern;
use crate::slice::{self, Options, Verdict};

/// Explain what led to an event: why FILE [PATTERN]
///
/// The event is the last one that matches the pattern; without a pattern, the last call that failed.
/// Exit status 1 when there is no such event.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Recordings, or folders of them, and after them a pattern such as 'comm=curl op=recv'
    #[arg(required = true, value_name = "FILE [PATTERN]")]
    words: Vec<PathBuf>,
    /// Forward: what the event led to
    #[arg(long, conflicts_with_all = ["missing", "exclude_check"])]
    forward: bool,
    /// Explain why no event that matches happened
    #[arg(long, value_name = "PATTERN", conflicts_with = "exclude_check")]
    missing: Option<Pattern>,
    /// Ask whether events that match this must or may have led to it, or are excluded
    #[arg(long, value_name = "PATTERN")]
    exclude_check: Option<Pattern>,
    /// Run COMMAND again, with the suspected cause injected and without it, and say whether the symptom comes and goes with it
    ///
    /// Exit status 1 when that is not so, or could not be told.
    #[arg(long, requires = "command", conflicts_with_all = ["forward", "missing", "exclude_check"])]
    confirm: bool,
    /// A cause to confirm instead of the one that is suspected: 'comm=app op=connect => error=ECONNREFUSED, nth=1'
    #[arg(long, value_name = "FAULT", requires = "confirm")]
    cause: Option<String>,
    /// How often COMMAND is run with the cause, and how often without
    #[arg(long, value_name = "NUMBER", default_value_t = 1, requires = "confirm", value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    #[command(flatten)]
    slicing: input::SliceArguments,
    /// Read all of a large recording, not only what leads to the event
    #[arg(long)]
    whole: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// With --confirm: the command that is run again
    #[arg(last = true, value_name = "COMMAND", requires = "confirm")]
    command: Vec<String>,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let (files, pattern) = input::split_pattern(arguments.words.clone())?;
    if arguments.confirm {
        return confirm::run(&arguments, &files, pattern.as_ref());
    }
    let mut out = BufWriter::new(stdout().lock());
    match look_back(&arguments, &files, pattern.as_ref())? {
        Outcome::Whole => {}
        Outcome::NoMatch { events, comms } => {
            let comms = comms.iter().map(String::as_str);
            return no_such_event(&input::no_match_among(events, comms, pattern.as_ref()));
        }
        Outcome::Found(part) => {
            let LookedBack { history, graph, extent, .. } = &*part;
            let asked = Asked { history, graph, extent: Some(extent) };
            let code = answer(&arguments, pattern.as_ref(), &asked, &mut out)?;
            out.flush()?;
            return Ok(code);
        }
    }
    let history = input::open(&files)?;
    let graph = Graph::build(&history);
    let asked = Asked { history: &history, graph: &graph, extent: None };
    let code = answer(&arguments, pattern.as_ref(), &asked, &mut out)?;
    out.flush()?;
    Ok(code)
}

/// What a question is put to.
struct Asked<'a> {
    history: &'a History,
    graph: &'a Graph,
    /// Set where only parts of the recording were read.
    extent: Option<&'a Extent>,
}

/// Of large recordings, the parts that lead to the event.
fn look_back(
    arguments: &Arguments,
    files: &[PathBuf],
    pattern: Option<&Pattern>,
) -> Result<Outcome> {
    let backward = !arguments.forward && arguments.missing.is_none();
    if !backward || arguments.whole {
        return Ok(Outcome::Whole);
    }
    let options = arguments.slicing.options();
    let outcome = lookback::look_back(files, pattern, options, Limits::default())?;
    let Outcome::Found(part) = &outcome else { return Ok(outcome) };
    if let Some(suspect) = &arguments.exclude_check {
        let bound = suspect.bind(&part.history);
        if !part.history.events.iter().any(|event| bound.matches(event)) {
            return Ok(Outcome::Whole);
        }
    }
    input::tell_notes(&part.notes, &part.history);
    Ok(outcome)
}

fn answer(
    arguments: &Arguments,
    pattern: Option<&Pattern>,
    &Asked { history, graph, extent }: &Asked,
    out: &mut impl Write,
) -> Result<ExitCode> {
    let options = Options { partial: extent.is_some(), ..arguments.slicing.options() };
    if let Some(pattern) = &arguments.missing {
        let Some(missing) = missing::missing(history, graph, pattern, options) else {
            return no_such_event(&input::no_match(history, Some(pattern)));
        };
        match arguments.json {
            true => json::missing(history, &missing, out)?,
            false => text::missing(history, pattern, &missing, out)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some(symptom) = input::symptom(history, pattern) else {
        return no_such_event(&input::no_match(history, pattern));
    };
    if let Some(suspect) = &arguments.exclude_check {
        let slice = slice::backward(history, graph, &[symptom.event], options);
        // Of a part, what is unread may have the other ends.
        let reached = slice.order.iter().map(|&event| (event, slice.reach(event)));
        let known = reached.take(if extent.is_none() { usize::MAX } else { 0 });
        let beyond = beyond(history, graph, known);
        return exclude_check(arguments, suspect, (history, extent), (&slice, beyond), out);
    }
    if arguments.forward {
        let slice = slice::forward(history, graph, &[symptom.event], options);
        match arguments.json {
            true => json::forward(history, &symptom, &slice, out)?,
            false => text::forward(history, &symptom, &slice, out)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut answer = explain::why(history, graph, symptom.event, options);
    if let Some(extent) = extent {
        // The other ends of what is not in the chain may be in parts that were not read.
        let chain = answer.chain.iter().map(|step| (step.event, slice::Reach::Must));
        answer.beyond = beyond(history, graph, chain);
        // Of what happened in unread parts, and before one, nothing is claimed.
        let since = history.events.iter().filter(|event| extent.covers(event));
        let seen: HashSet<(u16, u32)> = since.map(|e| (e.host, e.pid)).collect();
        let silent = |p: &Process| p.events == 0 && !extent.elsewhere.contains(&(p.host, p.pid));
        let read = |p: &Process| seen.contains(&(p.host, p.pid)) || silent(p);
        answer.processes.excluded.retain(read);
        answer.processes.cannot_say.retain(read);
    }
    match arguments.json {
        true => json::why(history, &symptom, &answer, extent, out)?,
        false => text::why(history, &symptom, &answer, extent, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn no_such_event(error: &Hinted) -> Result<ExitCode> {
    crate::cli::tell(&error.message, Some(&error.hint));
    Ok(ExitCode::FAILURE)
}

/// How many of a suspect's events got each verdict, and the worst of them.
pub struct Suspicion {
    worst: Verdict,
    must: usize,
    may: usize,
    excluded: usize,
    cannot_say: usize,
    beyond: Vec<Beyond>,
}

fn exclude_check(
    arguments: &Arguments,
    suspect: &Pattern,
    (history, extent): (&History, Option<&Extent>),
    (slice, beyond): (&slice::Slice, Vec<Beyond>),
    out: &mut impl Write,
) -> Result<ExitCode> {
    let bound = suspect.bind(history);
    let worst = Verdict::Excluded;
    let mut found = Suspicion { worst, must: 0, may: 0, excluded: 0, cannot_say: 0, beyond };
    for (index, event) in history.events.iter().enumerate().filter(|(_, e)| bound.matches(e)) {
        match slice.verdict(history, index as u32) {
            Verdict::Excluded if extent.is_some_and(|e| !e.covers(event)) => found.cannot_say += 1,
            Verdict::Must => found.must += 1,
            Verdict::May => found.may += 1,
            Verdict::Excluded => found.excluded += 1,
            Verdict::CannotSay => found.cannot_say += 1,
        }
    }
    found.worst = match &found {
        s if s.must > 0 => Verdict::Must,
        s if s.may > 0 => Verdict::May,
        s if s.cannot_say > 0 => Verdict::CannotSay,
        s if s.excluded > 0 => Verdict::Excluded,
        _ => return no_such_event(&input::no_match(history, Some(suspect))),
    };
    match arguments.json {
        true => json::suspicion(history, &found, extent, out)?,
        false => text::suspicion(history, suspect, &found, extent, out)?,
    }
    Ok(ExitCode::SUCCESS)
}
