//! Explains an event of a large recording from a few of its parts: those around the event, and those that
//! hold what its chain needs.
//!
//! The index says which threads and sockets have events in which part, of what kinds, and which bytes
//! they moved. So it can be told whether a part that was not read could change the chain; if so it is read,
//! and the chain made anew. When no such part is left, the chain is the one that the whole recording gives.

mod needs;
mod symptom;

use std::collections::BTreeSet;
use std::path::Path;

use crate::event::{EventIndex, History};
use crate::explain::last_match;
use crate::graph::Graph;
use crate::pattern::Pattern;
use crate::recording::partial::Partial;
use crate::recording::read::{Note, ReadError};
use crate::slice::{self, Options, Trace};

/// When to read only parts, and how many.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A recording of no more events is read as a whole.
    pub whole: u64,
    /// Events to read at most, unless the few parts around the symptom have more.
    pub most: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { whole: 1_000_000, most: 2_000_000 }
    }
}

/// What of a recording was read, and what of it was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// From here to the symptom everything was read; of what was before, only some parts.
    pub from_ns: u64,
    /// Events of the recording, and how many of them were read.
    pub events: u64,
    pub read: u64,
    /// Nothing that was not read can change the chain.
    pub settled: bool,
    /// Processes that have events in parts that were not read.
    pub elsewhere: BTreeSet<u32>,
}

/// What came of looking.
#[derive(Debug)]
pub enum Outcome {
    /// The recording is to be read as a whole.
    Whole,
    /// No event matches, of so many, made by threads of these names.
    NoMatch {
        events: u64,
        comms: BTreeSet<String>,
    },
    Found(Box<LookedBack>),
}

/// Part of a history, around an event and what led to it.
#[derive(Debug)]
pub struct LookedBack {
    pub history: History,
    pub notes: Vec<Note>,
    pub graph: Graph,
    pub symptom: EventIndex,
    /// How many of the events that were read match.
    pub matched: usize,
    pub extent: Extent,
}

/// Reads as much of a recording as it takes to explain the last event that matches, or without a pattern
/// the last error.
pub fn look_back(
    path: &Path,
    pattern: Option<&Pattern>,
    options: Options,
    limits: Limits,
) -> Result<Outcome, ReadError> {
    let mut partial = Partial::open(path)?;
    if partial.events() <= limits.whole {
        return Ok(Outcome::Whole);
    }
    let Some(symptom) = symptom::find(&mut partial, pattern)? else {
        let indexes = (0..partial.parts()).filter_map(|part| partial.index(part));
        let comms = indexes.flat_map(|part| part.comms.iter().cloned()).collect();
        return Ok(Outcome::NoMatch { events: partial.events(), comms });
    };
    let event = partial.history().events[symptom as usize];
    let around = around(&partial, event.time_ns);
    partial.read(&around)?;
    loop {
        let graph = Graph::build(partial.history());
        let symptom = partial.find(&event).expect("parts are added, never taken away");
        let trace = trace(partial.history(), &graph, symptom, options);
        let needs = needs::needs(&partial, &graph, &trace);
        let more = within(&partial, more(&partial, &needs, event.time_ns), limits);
        if more.is_empty() {
            let found = finish(partial, graph, symptom, pattern, needs.is_empty());
            return Ok(Outcome::Found(Box::new(found)));
        }
        partial.read(&more)?;
    }
}

fn trace(history: &History, graph: &Graph, symptom: EventIndex, options: Options) -> Trace {
    let mut trace = slice::trace(history, graph, symptom);
    if let Some(depth) = options.depth {
        trace.cut(depth as usize + 1);
    }
    trace
}

/// The parts in which the symptom's time lies, the one before them and the one after: calls that race on
/// one socket are seldom further apart.
fn around(partial: &Partial, time_ns: u64) -> Vec<usize> {
    let inside = (0..partial.parts()).filter(|&part| {
        partial.is_read(part)
            || partial.index(part).is_none_or(|p| p.from_ns <= time_ns && time_ns <= p.to_ns)
    });
    let inside: Vec<usize> = inside.collect();
    let first = inside.first().map_or(0, |&first| first.saturating_sub(1));
    let last = inside.last().map_or(0, |&last| (last + 1).min(partial.parts() - 1));
    let beside = [first, last];
    let all: BTreeSet<usize> = inside.iter().copied().chain(beside).collect();
    all.into_iter().filter(|&part| !partial.is_read(part)).collect()
}

/// What is needed first; then, so that few rounds suffice, the newest parts before the symptom until what
/// is read has doubled.
fn more(partial: &Partial, needs: &BTreeSet<usize>, time_ns: u64) -> Vec<usize> {
    let mut more: Vec<usize> = needs.iter().rev().copied().collect();
    if more.is_empty() {
        return more;
    }
    let read = (0..partial.parts()).filter(|&part| partial.is_read(part)).count();
    let before = partial.unread(|part| part.from_ns <= time_ns);
    let mut before: Vec<usize> = before.filter(|part| !needs.contains(part)).collect();
    before.sort_by_key(|&part| std::cmp::Reverse(partial.index(part).map(|p| p.to_ns)));
    more.extend(before.into_iter().take(read.saturating_sub(more.len())));
    more
}

/// As many of these parts as may still be read.
fn within(partial: &Partial, parts: Vec<usize>, limits: Limits) -> Vec<usize> {
    let mut events = partial.history().events.len() as u64;
    let fits = |&part: &usize| {
        events += partial.events_in([part]);
        events <= limits.most
    };
    parts.into_iter().take_while(fits).collect()
}

fn finish(
    partial: Partial,
    graph: Graph,
    symptom: EventIndex,
    pattern: Option<&Pattern>,
    settled: bool,
) -> LookedBack {
    let time_ns = partial.history().events[symptom as usize].time_ns;
    let before = |part: usize| partial.index(part).filter(|p| p.from_ns <= time_ns);
    let from_ns = partial.unread(|_| true).filter_map(before).map(|p| p.to_ns).max();
    let first_ns = partial.history().events[0].time_ns;
    let elsewhere = partial.unread(|_| true).filter_map(|part| partial.index(part));
    let elsewhere = elsewhere.flat_map(|part| part.threads.iter().map(|thread| thread.pid));
    let extent = Extent {
        from_ns: from_ns.unwrap_or(first_ns),
        events: partial.events(),
        read: partial.history().events.len() as u64,
        settled,
        elsewhere: elsewhere.collect(),
    };
    let recording = partial.into_recording();
    let matched = pattern.and_then(|p| last_match(&recording.history, &p.bind(&recording.history)));
    LookedBack {
        matched: matched.map_or(1, |(_, matched)| matched),
        history: recording.history,
        notes: recording.notes,
        graph,
        symptom,
        extent,
    }
}
