//! The answer to "why did this happen?": the chain that leads to a symptom, what else may have influenced
//! it, and what cannot have. Data only; the command line makes text of it.

pub mod beyond;
pub mod missing;

use std::collections::BTreeMap;

use petgraph::Direction;
use petgraph::visit::EdgeRef;

use crate::clocks::{Clocks, Contradiction, Reading};
use crate::describe;
use crate::event::{Event, EventIndex, Flags, History, Name, Op, Protocol, Window};
use crate::graph::{EdgeKind, Graph, Side, event_of, node};
use crate::pattern::{Bound, Pattern};
use crate::slice::{self, Domain, Link, Options, Reach, Slice};

/// Why an event happened.
#[derive(Debug)]
pub struct Answer {
    /// Nearest to the symptom first; the last is the origin.
    pub chain: Vec<Step>,
    /// The chain is longer than what is told of it: its last step is no origin.
    pub goes_on: bool,
    pub processes: Processes,
    /// Bytes in the chain that came from outside the recording, and stretches that are missing.
    pub frontiers: Vec<String>,
    /// Whom the slice heard from and no recording has.
    pub beyond: Vec<beyond::Beyond>,
    /// How the other hosts' clocks differed from that of the symptom's, at its end; nothing for one host.
    pub clocks: Option<Result<Reading, Contradiction>>,
    pub slice: Slice,
    /// How far unobserved channels were assumed to reach.
    pub domain: Domain,
}

/// One event of the chain.
#[derive(Clone, Debug)]
pub struct Step {
    pub event: EventIndex,
    /// What joins it to the step before: the kind of edge, or nothing where the same thread did both.
    pub kind: Option<EdgeKind>,
    /// In words: `bytes 0..497`, `same thread, 69 µs before`.
    pub proof: String,
}

/// What the slice says of every process.
#[derive(Debug, Default)]
pub struct Processes {
    /// Events of theirs must precede the symptom; those of the chain first, then the latest.
    pub must: Vec<Process>,
    /// Some of theirs may precede it, and only may: what other threads of a process did, and all of others.
    pub may: Vec<Process>,
    /// None can.
    pub excluded: Vec<Process>,
    /// None is known to, but the recording is not complete.
    pub cannot_say: Vec<Process>,
}

/// A process in the light of a slice.
#[derive(Clone, Debug)]
pub struct Process {
    pub host: u16,
    pub pid: u32,
    pub comm: String,
    /// The control group it was in last.
    pub cgroup: Name,
    /// Events that must precede the symptom, that only may, and all.
    pub must: usize,
    pub may: usize,
    pub events: usize,
    /// Threads whose events only may.
    pub may_threads: usize,
    /// Whether messages or bytes may have led from it, rather than a channel that nobody observes.
    pub may_by_bytes: bool,
    /// How long before the symptom the last of the events in question ended, ns; nothing across hosts.
    pub before_ns: Option<u64>,
}

/// Explains one event.
pub fn why(history: &History, graph: &Graph, symptom: EventIndex, options: Options) -> Answer {
    let slice = slice::backward(history, graph, &[symptom], options);
    let steps = slice::chain(history, graph, &slice, symptom);
    let mut chain: Vec<Step> = Vec::new();
    for step in steps {
        let after = chain.last().map(|s| s.event);
        chain.push(described(history, graph, step, after));
    }
    let most = options.depth.map_or(usize::MAX, |depth| depth as usize + 1);
    let goes_on = chain.len() > most || chain.len() >= slice::STEPS_MAX;
    chain.truncate(most);
    let frontiers = frontiers(history, graph, &slice, &chain);
    let processes = processes(history, graph, &slice, &chain);
    let reached = slice.order.iter().map(|&event| (event, slice.reach(event)));
    let beyond = beyond::beyond(history, graph, reached);
    let event = &history.events[symptom as usize];
    let clocks = (history.hosts.len() > 1)
        .then(|| Clocks::new(history, graph).at(event.host, event.time_ns));
    let domain = options.domain;
    Answer { chain, goes_on, processes, frontiers, beyond, clocks, slice, domain }
}

fn described(
    history: &History,
    graph: &Graph,
    step: slice::Step,
    after: Option<EventIndex>,
) -> Step {
    let event = &history.events[step.event as usize];
    let (kind, proof) = match step.link {
        Link::Symptom if event.flags.has(Flags::EOF) && event.has_range() => {
            (None, format!("after {} bytes", event.stream_start))
        }
        Link::Symptom => (None, describe::byte_range(event).unwrap_or_default()),
        Link::Thread => (None, same_thread(history, step.event, after)),
        Link::Edge(edge) => {
            let kind = graph.nodes[edge].kind;
            (Some(kind), proof(history, event, kind, after))
        }
    };
    Step { event: step.event, kind, proof }
}

fn same_thread(history: &History, event: EventIndex, after: Option<EventIndex>) -> String {
    let end = history.events[event as usize].time_ns;
    match after.map(|after| &history.events[after as usize]) {
        Some(after) if after.time_ns >= end => {
            format!("same thread, {} before", short_duration(after.time_ns - end))
        }
        _ => "same thread".to_owned(),
    }
}

/// Why the edge from `event` to the step before holds, in words.
fn proof(history: &History, event: &Event, kind: EdgeKind, after: Option<EventIndex>) -> String {
    match kind {
        EdgeKind::Bytes => after
            .and_then(|after| common_bytes(event, &history.events[after as usize]))
            .unwrap_or_else(|| "bytes".to_owned()),
        EdgeKind::Program if event.in_kernel_lane() => "same socket, in order".to_owned(),
        EdgeKind::Program => "same thread".to_owned(),
        EdgeKind::Interval => "the same call".to_owned(),
        EdgeKind::Connection => "makes the connection".to_owned(),
        EdgeKind::Close if event.flags.has(Flags::EOF) && event.has_range() => {
            format!("end of stream at byte {}", event.stream_start)
        }
        EdgeKind::Close => "ends the connection".to_owned(),
        EdgeKind::Task if event.op == Op::Exit => "its end was waited for".to_owned(),
        EdgeKind::Task => "starts it".to_owned(),
        EdgeKind::Signal => "the signal".to_owned(),
        EdgeKind::Wake => "woke it".to_owned(),
        EdgeKind::Fault if event.is_hole() => "lost from then on".to_owned(),
        EdgeKind::Fault if event.flags.has(Flags::LOST) => "it was lost".to_owned(),
        EdgeKind::Fault if event.socket == 0 && event.in_kernel_lane() => {
            "cut from then on".to_owned()
        }
        EdgeKind::Fault => "injected".to_owned(),
    }
}

/// The bytes that both events cover.
fn common_bytes(from: &Event, to: &Event) -> Option<String> {
    if !from.has_range() || !to.has_range() {
        return None;
    }
    let start = from.stream_start.max(to.stream_start);
    let end = from.stream_end.min(to.stream_end);
    (start < end).then(|| describe::range(from.protocol, start..end))
}

/// A duration for people: three digits and a unit.
pub fn short_duration(ns: u64) -> String {
    let scaled = |value: f64, unit: &str| match value {
        v if v >= 100.0 => format!("{v:.0} {unit}"),
        v if v >= 10.0 => format!("{v:.1} {unit}"),
        v => format!("{v:.2} {unit}"),
    };
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => scaled(ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => scaled(ns as f64 / 1e6, "ms"),
        _ => scaled(ns as f64 / 1e9, "s"),
    }
}

/// Where the chain meets what was not recorded.
fn frontiers(history: &History, graph: &Graph, slice: &Slice, chain: &[Step]) -> Vec<String> {
    let mut found = unsent(history, slice);
    let is_told = |event| slice.unsent.iter().any(|unsent| unsent.received == event);
    for step in chain {
        let event = &history.events[step.event as usize];
        if event.op == Op::Recv
            && event.has_range()
            && !has_cause(graph, step.event)
            && !is_told(step.event)
        {
            let from = describe::address(history, event.remote);
            let from = from.unwrap_or_else(|| "an unknown address".to_owned());
            let range = describe::byte_range(event).unwrap_or_default();
            found.push(format!("{range} came from {from}, whose sender is not in the recording"));
        }
        found.extend(datagram(history, graph, step.event));
        if let Some(hole) = graph.hole_before(step.event) {
            found.push(format!(
                "{} before {} were moved by nobody who was recorded",
                describe::range(event.protocol, hole.start..hole.end),
                describe::describe(history, event)
            ));
        }
        if event.flags.has(Flags::AFTER_GAP) {
            found.push(format!(
                "events of {} are missing before {}",
                describe::lane(history, event),
                describe::clock(history, event)
            ));
        }
    }
    if graph.truncated > 0 {
        found.push(format!("{} possible edges were too many to keep", graph.truncated));
    }
    found.dedup();
    found
}

/// The first of what other hosts' recordings do not have, and how much more there is.
fn unsent(history: &History, slice: &Slice) -> Vec<String> {
    const TOLD: usize = 3;
    let tell = |unsent: &slice::Unsent| {
        let event = &history.events[unsent.received as usize];
        let host = &history.hosts[usize::from(unsent.host)].name;
        let bytes = describe::byte_range(event).zip(describe::address(history, event.remote));
        match bytes.filter(|_| event.result > 0) {
            Some((range, from)) if unsent.after_all => {
                format!("{range} came from {from} after all that {host}'s recording has of it")
            }
            Some((range, from)) => {
                format!("{range} came from {from}; {host}'s recording has not all of their sends")
            }
            None => {
                let told = describe::describe(history, event);
                format!("{told}: {host}'s recording does not have what did it")
            }
        }
    };
    let mut told: Vec<_> = slice.unsent.iter().take(TOLD).map(tell).collect();
    if slice.unsent.len() > TOLD {
        told.push(format!("{} more of the kind", slice.unsent.len() - TOLD));
    }
    told
}

/// What a datagram that was received may be, or that nobody in the recording sent it.
fn datagram(history: &History, graph: &Graph, index: EventIndex) -> Option<String> {
    let event = &history.events[index as usize];
    let datagram = event.protocol.is_some_and(Protocol::is_datagram);
    if !datagram || event.op != Op::Recv || event.error != 0 {
        return None;
    }
    let edges = graph.nodes.edges_directed(node(index, Side::End), Direction::Incoming);
    let bytes = edges.filter(|edge| edge.weight().kind == EdgeKind::Bytes);
    let mut sends: Vec<EventIndex> = bytes.map(|edge| event_of(edge.source()).0).collect();
    sends.sort_unstable();
    let told = describe::describe(history, event);
    Some(match sends[..] {
        [] => format!("{told}: whose sender is not in the recording, or not known"),
        [only] => {
            let send = &history.events[only as usize];
            let (clock, lane) = (describe::clock(history, send), describe::lane(history, send));
            let act = describe::act(history, send);
            format!("{told} can only be what {lane} sent at {clock}, of what is recorded: {act}")
        }
        _ => format!("{told} may be each of {} datagrams that went this way", sends.len()),
    })
}

/// Whether anything outside its thread precedes an event's end.
fn has_cause(graph: &Graph, event: EventIndex) -> bool {
    graph.nodes.edges_directed(node(event, Side::End), Direction::Incoming).any(|edge| {
        !matches!(edge.weight().kind, EdgeKind::Interval | EdgeKind::Program)
            && edge.source().index() / 2 != event as usize
    })
}

/// Sorts every process of the history by what the slice says of it.
fn processes(history: &History, graph: &Graph, slice: &Slice, chain: &[Step]) -> Processes {
    let mut found: BTreeMap<(u16, u32), Tally> = BTreeMap::new();
    for (index, event) in history.events.iter().enumerate() {
        if event.in_kernel_lane() || event.pid == 0 {
            continue;
        }
        let tally = found.entry((event.host, event.pid)).or_default();
        tally.add(history, event, slice.reach(index as EventIndex));
        tally.may_by_bytes |= slice.reach(index as EventIndex) == Reach::May
            && by_bytes(graph, slice, index as EventIndex);
    }
    for (number, host) in history.hosts.iter().enumerate() {
        for task in host.tasks.iter().filter(|t| t.tid == t.pid && t.pid != 0) {
            let tally = found.entry((number as u16, task.pid)).or_default();
            if tally.comm.is_empty() {
                tally.comm.clone_from(&task.comm);
            }
        }
    }
    // Edges that were left out may have led anywhere.
    let complete = graph.truncated == 0 && slice.can_exclude(history);
    let symptom = &history.events[chain[0].event as usize];
    let place = |process: &Process| {
        chain.iter().position(|step| {
            let event = &history.events[step.event as usize];
            (event.host, event.pid) == (process.host, process.pid)
        })
    };
    let mut processes = Processes::default();
    for ((host, pid), tally) in found {
        let process = |last_ns| tally.process(host, pid, symptom, last_ns);
        if tally.must > 0 {
            processes.must.push(process(tally.last_must_ns));
        }
        // What a process of the chain did besides is worth a word; of the others it would be noise.
        let beside = tally.must > 0 && place(&process(0)).is_some();
        match (tally.must, tally.may) {
            (0, 0) if complete && !tally.outside => processes.excluded.push(process(0)),
            (0, 0) => processes.cannot_say.push(process(0)),
            (must, may) if may > 0 && (must == 0 || beside) => {
                processes.may.push(process(tally.last_may_ns));
            }
            _ => {}
        }
    }
    let latest = |p: &Process| (place(p).unwrap_or(usize::MAX), p.before_ns.unwrap_or(u64::MAX));
    processes.must.sort_by_key(latest);
    processes.may.sort_by_key(latest);
    processes.excluded.sort_by_key(|p| std::cmp::Reverse(p.events));
    processes
}

/// Whether a slice came to an event by bytes that it may have sent or received.
fn by_bytes(graph: &Graph, slice: &Slice, event: EventIndex) -> bool {
    [Side::Begin, Side::End].into_iter().any(|side| {
        let via = slice.via(node(event, side));
        matches!(via, Some(slice::Via::Edge(edge)) if graph.nodes[edge].kind == EdgeKind::Bytes)
    })
}

/// What a process's events add up to.
#[derive(Default)]
struct Tally {
    comm: String,
    cgroup: Name,
    must: usize,
    may: usize,
    events: usize,
    may_threads: Vec<u32>,
    may_by_bytes: bool,
    /// Whether some of its events lie where the recording is not complete.
    outside: bool,
    last_must_ns: u64,
    last_may_ns: u64,
}

impl Tally {
    fn add(&mut self, history: &History, event: &Event, reach: Reach) {
        // A process is known by its first thread's newest name.
        let comm = history.comm(event);
        if !comm.is_empty() && (event.tid == event.pid || self.comm.is_empty()) && self.comm != comm
        {
            comm.clone_into(&mut self.comm);
        }
        if event.cgroup != Name::NONE {
            self.cgroup = event.cgroup;
        }
        self.events += 1;
        self.outside |= !slice::inside(history, event);
        match reach {
            Reach::Must => {
                self.must += 1;
                self.last_must_ns = self.last_must_ns.max(event.time_ns);
            }
            Reach::May => {
                self.may += 1;
                self.last_may_ns = self.last_may_ns.max(event.time_ns);
                if !self.may_threads.contains(&event.tid) {
                    self.may_threads.push(event.tid);
                }
            }
            Reach::Not => {}
        }
    }

    fn process(&self, host: u16, pid: u32, symptom: &Event, last_ns: u64) -> Process {
        Process {
            host,
            pid,
            comm: self.comm.clone(),
            cgroup: self.cgroup,
            must: self.must,
            may: self.may,
            events: self.events,
            may_threads: self.may_threads.len(),
            may_by_bytes: self.may_by_bytes,
            before_ns: (host == symptom.host && last_ns != 0)
                .then(|| symptom.time_ns.saturating_sub(last_ns)),
        }
    }
}

/// The last event that matches, and how many do.
pub fn last_match(history: &History, pattern: &Bound) -> Option<(EventIndex, usize)> {
    let matching = |(_, event): &(usize, &Event)| pattern.matches(event);
    let count = history.events.iter().enumerate().filter(matching).count();
    let last = latest(history, |event| pattern.matches(event))?;
    Some((last, count))
}

/// The last error: what is asked about when nothing is said. That a call would have had to wait is none.
pub fn last_error(history: &History) -> Option<EventIndex> {
    last_error_in(history, &Pattern::default().bind(history))
}

/// The last of those that match.
pub fn last_error_in(history: &History, scope: &Bound) -> Option<EventIndex> {
    latest(history, |event| failed(event) && event.op != Op::Fault && scope.matches(event))
}

/// Whether something went wrong in an event, as against a call that would have had to wait, or has waited in vain.
pub fn failed(event: &Event) -> bool {
    let in_vain = [libc::ETIMEDOUT, libc::EINTR, libc::ECHILD];
    let waited = event.op == Op::Call && in_vain.contains(&i32::from(event.error));
    event.error != 0 && !is_wait(event.error) && !waited
}

/// Whether an errno says that a call would have had to wait.
pub fn is_wait(error: u16) -> bool {
    [libc::EAGAIN, libc::EINPROGRESS].contains(&i32::from(error))
}

/// The latest by the wall clock, since hosts' own clocks cannot be compared.
fn latest(history: &History, wanted: impl Fn(&Event) -> bool) -> Option<EventIndex> {
    let events = history.events.iter().enumerate().filter(|(_, event)| wanted(event));
    let last = events.max_by_key(|(_, event)| describe::wall_ns(history, event));
    last.map(|(index, _)| index as EventIndex)
}

/// The stretch for which a host's recording is complete: both rings' common window.
pub fn window(host: &crate::event::Host) -> Window {
    Window {
        from_ns: host.bulk_window.from_ns.max(host.rare_window.from_ns),
        to_ns: host.bulk_window.to_ns.min(host.rare_window.to_ns),
    }
}
