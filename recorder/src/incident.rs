//! What a person who was woken up needs first: which failure to look at, and what most likely caused it.
//!
//! A [`Culprit`] is an event of a kind that ends or hinders others. Ranking, in this order:
//!
//! 1. what must have led to the symptom comes before what only may have; of that, acts before what shows
//!    their effect (a reset that came in, an error), and what lies on the chain before what lies beside it;
//! 2. the kind: an out-of-memory kill, a kill, a crash, a reset, a refusal, an unreachable peer, a lost
//!    packet, a connection that was closed too early, a program that gave up ([`Cause`]);
//! 3. of one kind, what is further from the symptom by the proven chain: the abort before the reset that it sent.
//!
//! Without a pattern the symptom is found by the same order: of each kind of failure the last one is tried,
//! and the one with the best culprit taken, the later one where they are equal.

mod delay;
mod early;
pub mod silence;

use std::cmp::Reverse;
use std::collections::HashSet;

use crate::event::{Event, EventIndex, Flags, History, Op};
use crate::explain::{self, Answer};
use crate::graph::{EdgeKind, Graph, Side, node};
use crate::pattern::Pattern;
use crate::slice::{self, Options, Reach, Via};

/// A symptom with its culprits.
#[derive(Debug)]
pub struct Incident {
    pub symptom: EventIndex,
    /// How many events the pattern matched; 1 where it was found without.
    pub matched: usize,
    /// The likeliest first.
    pub culprits: Vec<Culprit>,
    pub answer: Answer,
}

/// An event that may be to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Culprit {
    pub event: EventIndex,
    pub cause: Cause,
    pub reach: Reach,
    /// Its place in the answer's chain, where it is in there.
    pub step: Option<usize>,
}

/// Kinds of culprits, the most telling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    OutOfMemory,
    Killed,
    Crashed,
    Reset,
    Refused,
    Unreachable,
    Lost,
    ClosedEarly,
    GaveUp,
}

impl Cause {
    /// In words.
    pub const fn told(self) -> &'static str {
        match self {
            Self::OutOfMemory => "the kernel ran out of memory",
            Self::Killed => "a process was killed or stopped",
            Self::Crashed => "a process died of a signal",
            Self::Reset => "a connection was reset",
            Self::Refused => "nobody listened",
            Self::Unreachable => "the other end could not be reached",
            Self::Lost => "packets were lost",
            Self::ClosedEarly => "a connection was closed too early",
            Self::GaveUp => "a process ended with an error",
        }
    }

    /// For programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OutOfMemory => "out_of_memory",
            Self::Killed => "killed",
            Self::Crashed => "crashed",
            Self::Reset => "reset",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Lost => "lost",
            Self::ClosedEarly => "closed_early",
            Self::GaveUp => "gave_up",
        }
    }

    /// What an event is to blame for; most are for nothing.
    pub fn of(event: &Event) -> Option<Self> {
        let error = i32::from(event.error);
        match event.op {
            Op::OomKill => Some(Self::OutOfMemory),
            Op::Signal if event.flags.has(Flags::IGNORED) => None,
            Op::Signal => deadly(event.signal).then_some(Self::Killed),
            // Not a death by SIGKILL: so all threads die of a process that ends by itself.
            Op::Exit if event.signal != 0 => Some(Self::Crashed),
            Op::Exit if event.result != 0 && event.flags.has(Flags::LAST_THREAD) => {
                Some(Self::GaveUp)
            }
            Op::Abort | Op::ResetSent | Op::ResetReceived => Some(Self::Reset),
            Op::Unlisten => Some(Self::Refused),
            Op::Error => match error {
                libc::ECONNREFUSED => Some(Self::Refused),
                libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH => Some(Self::Unreachable),
                _ => None,
            },
            Op::Retransmit | Op::Dropped => Some(Self::Lost),
            _ => None,
        }
    }
}

/// Signals that end or stop a process unless it does something about them.
fn deadly(signal: u8) -> bool {
    let harmless =
        [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT, libc::SIGALRM, libc::SIGPROF];
    signal != 0 && !harmless.contains(&i32::from(signal)) && i32::from(signal) < 32
}

/// Failures of different kinds that are looked at where no pattern says which is meant.
const MOST_CANDIDATES: usize = 32;
/// Culprits that are told.
const MOST_CULPRITS: usize = 5;

/// Explains the last event that matches the first pattern that matches anything; without patterns, or where
/// none matches, the failure that can be explained best: in the scope, else anywhere. `None`: nothing failed.
pub fn find(
    history: &History,
    graph: &Graph,
    patterns: &[Pattern],
    scope: &Pattern,
    options: Options,
) -> Option<Incident> {
    let matched = |pattern: &Pattern| explain::last_match(history, &pattern.bind(history));
    let asked = patterns.iter().find_map(matched);
    let worst = || {
        let anywhere = Pattern::default();
        let found = worst_failure(history, graph, scope);
        Some((found.or_else(|| worst_failure(history, graph, &anywhere))?, 1))
    };
    let (symptom, matched) = asked.or_else(worst)?;
    Some(explain(history, graph, symptom, matched, options))
}

/// Explains one event.
pub fn explain(
    history: &History,
    graph: &Graph,
    symptom: EventIndex,
    matched: usize,
    options: Options,
) -> Incident {
    let answer = explain::why(history, graph, symptom, options);
    Incident { symptom, matched, culprits: culprits(history, graph, &answer), answer }
}

fn worst_failure(history: &History, graph: &Graph, scope: &Pattern) -> Option<EventIndex> {
    let scope = scope.bind(history);
    let mut kinds = HashSet::new();
    let mut candidates: Vec<EventIndex> = Vec::new();
    for (index, event) in history.events.iter().enumerate().rev() {
        let failed = explain::failed(event) && !event.in_kernel_lane();
        let ended = event.op == Op::Exit && Cause::of(event).is_some();
        if (failed || ended)
            && scope.matches(event)
            && kinds.insert((event.comm, event.op, event.error, event.signal))
        {
            candidates.push(index as EventIndex);
        }
        if candidates.len() == MOST_CANDIDATES {
            break;
        }
    }
    let best = |symptom: &EventIndex| {
        let steps = slice::trace(history, graph, *symptom).steps;
        let cause = steps.iter().filter_map(|s| Cause::of(&history.events[s.event as usize])).min();
        let time_ns = crate::describe::wall_ns(history, &history.events[*symptom as usize]);
        (cause.is_none(), cause, Reverse(time_ns))
    };
    candidates.into_iter().min_by_key(best).or_else(|| explain::last_error_in(history, &scope))
}

fn culprits(history: &History, graph: &Graph, answer: &Answer) -> Vec<Culprit> {
    let mut found: Vec<Culprit> = Vec::new();
    for &event in &answer.slice.order {
        let Some(cause) = Cause::of(&history.events[event as usize]) else { continue };
        let step = answer.chain.iter().position(|step| step.event == event);
        // Listeners come and go; that one went is to blame for what it refused.
        let is_to_blame = history.events[event as usize].op != Op::Unlisten
            || step.is_some()
            || refused(graph, answer, event);
        if is_to_blame {
            found.push(Culprit { event, cause, reach: answer.slice.reach(event), step });
        }
    }
    for (number, step) in answer.chain.iter().enumerate() {
        if early::closed_too_early(history, graph, step.event) {
            let (cause, reach) = (Cause::ClosedEarly, Reach::Must);
            found.push(Culprit { event: step.event, cause, reach, step: Some(number) });
        }
    }
    for event in early::behind_resets(history, graph, &answer.chain) {
        found.push(Culprit { event, cause: Cause::ClosedEarly, reach: Reach::May, step: None });
    }
    for event in delay::delays(history, graph, &answer.chain) {
        found.push(Culprit { event, cause: Cause::Lost, reach: Reach::May, step: None });
    }
    // What somebody else did shows here as a reset, which the kernel sent for it, or as an error.
    let is_effect = |c: &Culprit| {
        let op = history.events[c.event as usize].op;
        matches!(op, Op::ResetSent | Op::ResetReceived | Op::Error)
    };
    let certainty = |c: &Culprit| (Reverse(c.reach), is_effect(c), c.step.is_none());
    found.sort_by_key(|c| {
        let time_ns = history.events[c.event as usize].time_ns;
        (certainty(c), c.cause, Reverse(c.step), Reverse(time_ns))
    });
    // One of a kind from one process: the first tells.
    let mut told = HashSet::new();
    found.retain(|culprit| {
        let event = &history.events[culprit.event as usize];
        told.insert((culprit.cause, event.host, event.pid))
    });
    found.truncate(MOST_CULPRITS);
    found
}

/// Whether the slice came to a listener's end by a connection that was refused.
fn refused(graph: &Graph, answer: &Answer, unlisten: EventIndex) -> bool {
    let via = answer.slice.via(node(unlisten, Side::Begin));
    matches!(via, Some(Via::Edge(edge)) if graph.nodes[edge].kind == EdgeKind::Close)
}

#[cfg(test)]
mod tests;
