//! Explains an event of a large recording from a few of its parts: those around the event, and those that
//! hold what its chain needs.
//!
//! The index says which threads and sockets have events in which part, of what kinds, and which bytes
//! they moved. So it can be told whether a part that was not read could change the chain; if so it is read,
//! and the chain made anew. When no such part is left, the chain is the one that the whole recording gives.

mod needs;
mod symptom;

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::event::{Event, EventIndex, History};
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
    /// The symptom's host.
    pub host: u16,
    /// By host: from here on (at the symptom's, to the symptom) everything was read; of what was before, only some
    /// parts.
    pub from_ns: Vec<u64>,
    /// Events of the recording, and how many of them were read.
    pub events: u64,
    pub read: u64,
    /// Nothing that was not read can change the chain.
    pub settled: bool,
    /// Processes that have events in parts that were not read, by host.
    pub elsewhere: BTreeSet<(u16, u32)>,
}

impl Extent {
    /// Whether everything of its host that happened when the event did was read.
    pub fn covers(&self, event: &Event) -> bool {
        self.from_ns.get(usize::from(event.host)).is_none_or(|&from_ns| event.time_ns >= from_ns)
    }
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

/// Reads as much of recordings as it takes to explain the last event that matches, or without a pattern
/// the last error.
pub fn look_back(
    paths: &[PathBuf],
    pattern: Option<&Pattern>,
    options: Options,
    limits: Limits,
) -> Result<Outcome, ReadError> {
    let Some(mut partial) = Partial::open(paths)? else { return Ok(Outcome::Whole) };
    if partial.events() <= limits.whole {
        return Ok(Outcome::Whole);
    }
    let Some(symptom) = symptom::find(&mut partial, pattern)? else {
        let indexes = (0..partial.parts()).filter_map(|part| partial.index(part));
        let comms = indexes.flat_map(|part| part.comms.iter().cloned()).collect();
        return Ok(Outcome::NoMatch { events: partial.events(), comms });
    };
    let event = partial.history().events[symptom as usize];
    let around = around(&partial, &event);
    partial.read(&around)?;
    loop {
        let graph = Graph::build(partial.history());
        let symptom = partial.find(&event).expect("parts are added, never taken away");
        let trace = trace(partial.history(), &graph, symptom, options);
        let needs = needs::needs(&partial, &graph, &trace);
        let more = within(&partial, more(&partial, &needs, &event), limits);
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

/// The parts of its host in which the symptom's time lies, the one before them and the one after: calls that race
/// on one socket are seldom further apart.
fn around(partial: &Partial, event: &Event) -> Vec<usize> {
    let time_ns = event.time_ns;
    let own: Vec<usize> =
        (0..partial.parts()).filter(|&part| partial.host(part) == event.host).collect();
    let within = |&part: &usize| {
        partial.is_read(part)
            || partial.index(part).is_none_or(|p| p.from_ns <= time_ns && time_ns <= p.to_ns)
    };
    let inside: Vec<usize> = own.iter().copied().filter(within).collect();
    let (Some(&first), Some(&last)) = (inside.first(), inside.last()) else { return Vec::new() };
    let beside = own.iter().copied().filter(|&part| part + 1 == first || part == last + 1);
    let all: BTreeSet<usize> = beside.chain(inside.iter().copied()).collect();
    all.into_iter().filter(|&part| !partial.is_read(part)).collect()
}

/// What is needed first; then, so that few rounds suffice, the newest parts before the symptom until what
/// is read has doubled. What is newest on other hosts, their wall clocks tell well enough for that.
fn more(partial: &Partial, needs: &BTreeSet<usize>, event: &Event) -> Vec<usize> {
    let mut more: Vec<usize> = needs.iter().rev().copied().collect();
    if more.is_empty() {
        return more;
    }
    let read = (0..partial.parts()).filter(|&part| partial.is_read(part)).count();
    let at_ns = partial.wall_ns(event.host, event.time_ns);
    let wall_ns = |part: usize, time_ns: u64| partial.wall_ns(partial.host(part), time_ns);
    let begun = |&part: &usize| {
        partial.index(part).is_none_or(|index| wall_ns(part, index.from_ns) <= at_ns)
    };
    let before = partial.unread(|_| true).filter(begun);
    let mut before: Vec<usize> = before.filter(|part| !needs.contains(part)).collect();
    let until = |&part: &usize| partial.index(part).map(|index| wall_ns(part, index.to_ns));
    before.sort_by_key(|part| std::cmp::Reverse(until(part)));
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
    let Event { host, time_ns, .. } = partial.history().events[symptom as usize];
    let elsewhere = partial.unread(|_| true).filter_map(|part| {
        let threads = &partial.index(part)?.threads;
        let host = partial.host(part);
        Some(threads.iter().map(move |thread| (host, thread.pid)))
    });
    let hosts = 0..partial.history().hosts.len() as u16;
    let extent = Extent {
        host,
        from_ns: hosts.map(|of| read_from(&partial, of, (host, time_ns))).collect(),
        events: partial.events(),
        read: partial.history().events.len() as u64,
        settled,
        elsewhere: elsewhere.flatten().collect(),
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

/// From when on everything of a host was read: up to the symptom on its own host, up to the end on others, whose
/// clocks do not tell when the symptom was.
fn read_from(partial: &Partial, of: u16, (host, time_ns): (u16, u64)) -> u64 {
    let before = |part: usize| match partial.index(part) {
        Some(index) if of == host && index.from_ns > time_ns => None,
        Some(index) => Some(index.to_ns),
        None => Some(u64::MAX),
    };
    let unread = partial.unread_of(of, |_| true).filter_map(before).max();
    let events = &partial.history().events;
    let first = events.partition_point(|event| event.host < of);
    let first_ns = events.get(first).filter(|event| event.host == of).map_or(0, |e| e.time_ns);
    unread.unwrap_or(first_ns)
}
