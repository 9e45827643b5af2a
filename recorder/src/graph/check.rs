//! Verifies a graph, edge by edge, from the events alone and with none of the builder's code.
//!
//! What it derives is simpler than what the builder does, and never more certain: every edge must be
//! allowed by its rule, and what must be there and is not is found too.

mod bytes;
mod early;
mod flow;
mod order;
mod refuted;
mod rules;
mod streams;

use std::collections::{HashMap, HashSet};

use petgraph::algo::toposort;
use petgraph::visit::{EdgeFiltered, EdgeRef};

use super::{Edge, EdgeKind, Graph, Proof, event_of};
use crate::clocks::{Clocks, Contradiction};
use crate::event::{Address, Event, EventIndex, Flags, History, Op, Protocol};

/// Clocks of one host's CPUs differ by less: they are read from one counter, which the kernel keeps
/// synchronised to well under a microsecond or does not use.
pub const CLOCK_ERROR_NS: u64 = 1000;

/// An edge that is wrong, or something that should be in the graph and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Number of the edge in [`Graph::nodes`]; `None` when the fault is of the whole.
    pub edge: Option<u32>,
    /// Name of the rule that is broken.
    pub rule: &'static str,
    pub text: String,
}

/// All that is wrong with a graph; nothing, if all is well.
pub fn check(history: &History, graph: &Graph) -> Vec<Violation> {
    early::numbered(history)
        .map_or_else(|| verify(history, graph), |numbered| verify(&numbered, graph))
}

fn verify(history: &History, graph: &Graph) -> Vec<Violation> {
    let mut violations = Vec::new();
    let known = Known::new(history);
    for (number, edge) in graph.nodes.raw_edges().iter().enumerate() {
        let (from, to) = (event_of(edge.source()), event_of(edge.target()));
        let found = rules::broken(&known, from, to, &edge.weight)
            .or_else(|| against_time(history, from.0, to.0));
        if let Some((rule, why)) = found {
            violations.push(Violation {
                edge: Some(number as u32),
                rule,
                text: describe(history, from.0, to.0, &edge.weight, why),
            });
        }
    }
    violations.extend(cycle(graph));
    violations.extend(rules::missing_program_edges(&known, graph));
    violations.extend(bytes::uncovered(&known, graph));
    violations.extend(clocks(history, graph));
    violations
}

/// What came from one host to another and back allows an offset of their clocks.
fn clocks(history: &History, graph: &Graph) -> Vec<Violation> {
    if history.hosts.len() < 2 {
        return Vec::new();
    }
    let violation = |found: Contradiction| {
        let names = found.hosts.map(|host| &history.hosts[usize::from(host)].name);
        let messages = found.messages.map_or(String::new(), |[forth, back]| {
            let numbers = [forth.cause, forth.effect, back.cause, back.effect];
            let [a, b, c, d] = numbers;
            format!(", those from event {a} to {b} and from {c} to {d} by {} ns", found.by_ns)
        });
        let text = format!(
            "no offset of the clocks of {} and {} fits their messages{messages}",
            names[0], names[1]
        );
        Violation { edge: None, rule: "clocks", text }
    };
    Clocks::new(history, graph).contradictions().into_iter().map(violation).collect()
}

type Broken = Option<(&'static str, &'static str)>;

/// Within a host, no effect ends before its cause begins.
fn against_time(history: &History, from: EventIndex, to: EventIndex) -> Broken {
    let (cause, effect) = (&history.events[from as usize], &history.events[to as usize]);
    // The kernel notes these two when what they cause is already under way.
    let late = matches!(cause.op, Op::ResetSent | Op::OomKill);
    let against = cause.host == effect.host
        && !late
        && cause.begin_ns > effect.time_ns.saturating_add(CLOCK_ERROR_NS);
    against.then_some(("time", "the effect ends before its cause begins"))
}

/// What is proven is free of cycles; what is only possible may contradict itself across hosts, whose
/// clocks cannot tell which possibility it was.
fn cycle(graph: &Graph) -> Option<Violation> {
    let proven = EdgeFiltered::from_fn(&graph.nodes, |edge| edge.weight().proof == Proof::Must);
    let cycle = toposort(&proven, None).err()?;
    let (event, side) = event_of(cycle.node_id());
    let text = format!("the {} of event {event} precedes itself", side.as_str());
    Some(Violation { edge: None, rule: "acyclic", text })
}

fn describe(history: &History, from: EventIndex, to: EventIndex, edge: &Edge, why: &str) -> String {
    let name = |index: EventIndex| {
        let event = &history.events[index as usize];
        let lane = crate::describe::lane(history, event);
        format!("{} of {lane} (event {index})", event.op)
    };
    let (proof, kind) = (edge.proof.as_str(), edge.kind.as_str());
    format!("{proof} {kind} edge from {} to {}: {why}", name(from), name(to))
}

/// The history, and what the rules ask of it.
struct Known<'a> {
    history: &'a History,
    order: order::Order,
    users: HashMap<bytes::Way, bytes::Users>,
    /// Directions in which something was moved that may not have been counted.
    unsure: HashSet<bytes::Way>,
    floors: Vec<u64>,
    bypassed: HashSet<bytes::StreamOf>,
    /// Counted streams whose sums contradict the host's clock.
    refuted: HashSet<bytes::StreamOf>,
    streams: streams::Streams,
    /// Per socket, an event for each pair of initial numbers that it had.
    numbered: HashMap<(u16, u64), Vec<EventIndex>>,
    /// When each thread number was given to a thread, as far as is known.
    given: HashMap<(u16, u32), Vec<u64>>,
    /// The processes that each thread number was seen in.
    processes: HashMap<(u16, u32), HashSet<u32>>,
    /// Host, target and time of each SIGKILL.
    kills: Vec<(u16, u32, u64)>,
    /// When threads of each process died of a signal, in order.
    deaths: HashMap<(u16, u32), Vec<u64>>,
    /// The sockets that bore a pair of addresses on a host.
    sockets: HashMap<(u16, Address, Address), HashSet<u64>>,
}

impl<'a> Known<'a> {
    fn new(history: &'a History) -> Self {
        let (users, floors) = bytes::users(&history.events);
        let calls = streams::as_the_peer_counts(&history.events, &floors);
        let bypassed = bytes::bypassed(&history.events, &floors, &calls);
        let streams = streams::Streams::new(history, calls);
        let refuted = refuted::streams(&history.events, &streams);
        let mut numbered: HashMap<(u16, u64), Vec<EventIndex>> = HashMap::new();
        let mut sockets: HashMap<_, HashSet<u64>> = HashMap::new();
        for (index, event) in history.events.iter().enumerate() {
            if event.socket != 0 && event.proof != crate::event::Proof::Unknown {
                let addresses = (event.host, event.local, event.remote);
                sockets.entry(addresses).or_default().insert(event.socket);
                let known = numbered.entry((event.host, event.socket)).or_default();
                let same = |&&other: &&EventIndex| {
                    let other = &history.events[other as usize];
                    (other.iss, other.irs, other.proof) == (event.iss, event.irs, event.proof)
                };
                if known.iter().rev().find(same).is_none() {
                    known.push(index as EventIndex);
                }
            }
        }
        let mut given: HashMap<(u16, u32), Vec<u64>> = HashMap::new();
        for fork in history.events.iter().filter(|event| event.op == Op::Fork) {
            given.entry((fork.host, fork.target)).or_default().push(fork.time_ns);
        }
        let mut processes: HashMap<(u16, u32), HashSet<u32>> = HashMap::new();
        for event in history.events.iter().filter(|event| event.tid != 0) {
            processes.entry((event.host, event.tid)).or_default().insert(event.pid);
        }
        for (number, host) in history.hosts.iter().enumerate() {
            for task in &host.tasks {
                processes.entry((number as u16, task.tid)).or_default().insert(task.pid);
                given.entry((number as u16, task.tid)).or_default().push(task.start_ns);
            }
        }
        let signals = history.events.iter().filter(|event| event.op == Op::Signal);
        let kills = signals
            .filter(|event| {
                i32::from(event.signal) == libc::SIGKILL && !event.flags.has(Flags::IGNORED)
            })
            .map(|event| (event.host, event.target, event.time_ns))
            .collect();
        let unsure = history.events.iter().filter(|event| event.flags.has(Flags::UNSURE));
        let unsure = unsure.map(bytes::way).collect();
        Self {
            history,
            order: order::Order::new(history),
            users,
            unsure,
            floors,
            bypassed,
            refuted,
            streams,
            numbered,
            given,
            processes,
            kills,
            deaths: deaths(history),
            sockets,
        }
    }

    /// Whether a thread's number went to another after one event and before another had ended.
    fn is_given_between(&self, number: (u16, u32), one: &Event, other: &Event) -> bool {
        let between = |&ns: &u64| one.time_ns < ns && ns <= other.time_ns;
        self.given.get(&number).is_some_and(|given| given.iter().any(between))
    }

    /// Events of a socket that say which connections it had; of all with an event's addresses, if it has no
    /// socket.
    fn numbered(&self, of: &Event) -> Vec<&'a Event> {
        let own = (of.socket != 0).then_some(of.socket);
        let namesakes = self.sockets.get(&(of.host, of.local, of.remote)).filter(|_| own.is_none());
        let sockets = own.into_iter().chain(namesakes.into_iter().flatten().copied());
        let known = sockets.filter_map(|socket| self.numbered.get(&(of.host, socket)));
        known.flatten().map(|&index| self.event(index)).collect()
    }

    /// Whether two events' sockets were ever the two ends of one connection.
    fn joined(&self, one: &Event, other: &Event) -> bool {
        let others = self.numbered(other);
        self.numbered(one).iter().any(|one| others.iter().any(|other| mirrored(one, other)))
    }

    /// Whether a thread number may be one of a process: it was seen there, or nowhere.
    fn may_be_of(&self, host: u16, tid: u32, pid: u32) -> bool {
        tid == pid || self.processes.get(&(host, tid)).is_none_or(|pids| pids.contains(&pid))
    }

    /// When the first thread of an event's process died of a signal that was sent at some time.
    fn first_death(&self, event: &Event, sent_ns: u64) -> u64 {
        let deaths = self.deaths.get(&(event.host, event.pid)).map_or(&[][..], Vec::as_slice);
        let first = deaths.partition_point(|&died_ns| died_ns < sent_ns);
        deaths.get(first).copied().unwrap_or(event.time_ns)
    }

    /// Whether the calls of an event's stream moved bytes that its counter did not count.
    fn bypassed(&self, event: &Event) -> bool {
        self.bypassed.contains(&bytes::stream_of(event))
    }

    fn event(&self, index: EventIndex) -> &'a Event {
        &self.history.events[index as usize]
    }
}

/// When threads died of a signal, by host and process.
fn deaths(history: &History) -> HashMap<(u16, u32), Vec<u64>> {
    let mut deaths: HashMap<_, Vec<u64>> = HashMap::new();
    for event in &history.events {
        if event.op == Op::Deliver && i32::from(event.signal) == libc::SIGKILL {
            deaths.entry((event.host, event.pid)).or_default().push(event.time_ns);
        }
    }
    deaths
}

/// Whether two events' endpoints can be the two ends of one connection.
fn mirrored(one: &Event, other: &Event) -> bool {
    use crate::event::Proof as Numbers;
    if one.proof == Numbers::Unknown || other.proof == Numbers::Unknown {
        return false;
    }
    // What is numbered within a machine has no meaning on another.
    let local = one.protocol.is_some_and(Protocol::is_local);
    let fits = one.protocol.is_some_and(|one| other.protocol.is_some_and(|other| one.fits(other)));
    if !fits || local && one.host != other.host {
        return false;
    }
    let is = |event: &Event, number: u32| {
        event.iss == number
            || event.proof == Numbers::Computed && event.iss.wrapping_sub(1) == number
    };
    is(one, other.irs) && is(other, one.irs)
}

/// The proven or possible causes of an event, of one kind.
fn causes(
    graph: &Graph,
    event: EventIndex,
    kind: EdgeKind,
) -> impl Iterator<Item = EventIndex> + '_ {
    [super::Side::Begin, super::Side::End].into_iter().flat_map(move |side| {
        let edges =
            graph.nodes.edges_directed(super::node(event, side), petgraph::Direction::Incoming);
        edges.filter(move |e| e.weight().kind == kind).map(|e| event_of(e.source()).0)
    })
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)
    }
}
