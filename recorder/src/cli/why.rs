//! `wherefore why`.

mod json;
mod text;

use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Hinted, input};
use crate::event::History;
use crate::explain::{self, missing};
use crate::graph::Graph;
use crate::pattern::Pattern;
use crate::slice::{self, Verdict};

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
    #[command(flatten)]
    slicing: input::SliceArguments,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let (files, pattern) = input::split_pattern(arguments.words.clone())?;
    let history = input::open(&files)?;
    let graph = Graph::build(&history);
    let mut out = BufWriter::new(stdout().lock());
    let code = answer(&arguments, pattern.as_ref(), &history, &graph, &mut out)?;
    out.flush()?;
    Ok(code)
}

fn answer(
    arguments: &Arguments,
    pattern: Option<&Pattern>,
    history: &History,
    graph: &Graph,
    out: &mut impl Write,
) -> Result<ExitCode> {
    let options = arguments.slicing.options();
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
        return exclude_check(arguments, suspect, history, &slice, out);
    }
    if arguments.forward {
        let slice = slice::forward(history, graph, &[symptom.event], options);
        match arguments.json {
            true => json::forward(history, &symptom, &slice, out)?,
            false => text::forward(history, &symptom, &slice, out)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let answer = explain::why(history, graph, symptom.event, options);
    match arguments.json {
        true => json::why(history, &symptom, &answer, out)?,
        false => text::why(history, &symptom, &answer, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn no_such_event(error: &Hinted) -> Result<ExitCode> {
    crate::cli::tell(&error.message, Some(&error.hint));
    Ok(ExitCode::FAILURE)
}

/// How many of a suspect's events got each verdict, and the worst of them.
struct Suspicion {
    worst: Verdict,
    must: usize,
    may: usize,
    excluded: usize,
    cannot_say: usize,
}

fn exclude_check(
    arguments: &Arguments,
    suspect: &Pattern,
    history: &History,
    slice: &slice::Slice,
    out: &mut impl Write,
) -> Result<ExitCode> {
    let bound = suspect.bind(history);
    let mut found =
        Suspicion { worst: Verdict::Excluded, must: 0, may: 0, excluded: 0, cannot_say: 0 };
    for (index, _) in history.events.iter().enumerate().filter(|(_, e)| bound.matches(e)) {
        match slice.verdict(history, index as u32) {
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
        true => json::suspicion(&found, out)?,
        false => text::suspicion(suspect, &found, out)?,
    }
    Ok(ExitCode::SUCCESS)
}
