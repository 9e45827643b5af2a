//! What most commands begin with: recordings and a pattern.

use std::path::PathBuf;

use anyhow::Result;

use crate::cli::Hinted;
use crate::event::{EventIndex, History};
use crate::pattern::Pattern;
use crate::recording::read;
use crate::slice::{Domain, Options};

/// Reads recordings, and says on stderr what a reader of the answer should know about them.
pub fn open(files: &[PathBuf]) -> Result<History> {
    let recording = read::open(files)?;
    tell_notes(&recording.notes, &recording.history);
    Ok(recording.history)
}

#[expect(clippy::print_stderr, reason = "talk goes to stderr")]
pub fn tell_notes(notes: &[read::Note], history: &History) {
    for note in notes {
        eprintln!("note: {note}");
    }
    for host in history.hosts.iter().filter(|h| h.lost > 0) {
        eprintln!("note: {} of {}'s events were lost", host.lost, host.name);
    }
}

/// Files, and after them perhaps a pattern: `why F [F…] [PATTERN]`. A word that names no file and has an
/// operator in it is the pattern.
pub fn split_pattern(mut words: Vec<PathBuf>) -> Result<(Vec<PathBuf>, Option<Pattern>)> {
    let is_pattern = |word: &PathBuf| {
        word.to_str().is_some_and(|t| t.contains(['=', '<', '>'])) && !word.exists()
    };
    let pattern = match words.pop_if(|word| is_pattern(word)) {
        Some(word) => Some(word.to_string_lossy().parse::<Pattern>()?),
        None => None,
    };
    Ok((words, pattern))
}

/// The event that an answer is about.
pub struct Symptom {
    pub event: EventIndex,
    /// How many matched; the event is the last of them.
    pub matched: usize,
}

/// The last event that matches, or without a pattern the last error. `None` when there is no such event.
pub fn symptom(history: &History, pattern: Option<&Pattern>) -> Option<Symptom> {
    match pattern {
        Some(pattern) => crate::explain::last_match(history, &pattern.bind(history))
            .map(|(event, matched)| Symptom { event, matched }),
        None => crate::explain::last_error(history).map(|event| Symptom { event, matched: 1 }),
    }
}

/// What to say when no event matches.
pub fn no_match(history: &History, pattern: Option<&Pattern>) -> Hinted {
    let comms = history.events.iter().map(|event| history.comm(event));
    no_match_among(history.events.len() as u64, comms, pattern)
}

/// The same of so many events by programs of these names.
pub fn no_match_among<'a>(
    events: u64,
    comms: impl Iterator<Item = &'a str>,
    pattern: Option<&Pattern>,
) -> Hinted {
    match pattern {
        Some(pattern) => Hinted {
            message: format!("no event matches `{pattern}` ({events} events, of {})", names(comms)),
            hint: "`--missing` explains why something did not happen".to_owned(),
        },
        None => Hinted {
            message: format!("no call failed in this recording ({events} events)"),
            hint: "say which event is meant, for example 'comm=curl op=recv'".to_owned(),
        },
    }
}

/// Some of the programs, each once.
fn names<'a>(comms: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = Vec::new();
    for comm in comms {
        if !comm.is_empty() && !names.contains(&comm) {
            names.push(comm);
        }
        if names.len() == 9 {
            break;
        }
    }
    let more = if names.len() == 9 { ", …" } else { "" };
    let names = names.iter().take(8).map(|n| crate::describe::printable(n)).collect::<Vec<_>>();
    format!("{}{more}", names.join(", "))
}

/// How slices are made
#[derive(Debug, clap::Args)]
pub struct SliceArguments {
    /// How far unobserved channels (memory, files, locks) are assumed to reach
    #[arg(long, value_enum, default_value_t = DomainName::Process)]
    domain: DomainName,
    /// Go at most so many steps from the symptom
    #[arg(long, value_name = "STEPS")]
    depth: Option<u32>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum DomainName {
    Process,
    Cgroup,
    Host,
}

impl SliceArguments {
    pub const fn options(&self) -> Options {
        let domain = match self.domain {
            DomainName::Process => Domain::Process,
            DomainName::Cgroup => Domain::Cgroup,
            DomainName::Host => Domain::Host,
        };
        Options { domain, depth: self.depth, partial: false }
    }
}
