//! Endpoints, and which two of them are the ends of one connection.
//!
//! The initial sequence numbers of both directions name a connection: its other end has the same pair,
//! mirrored. Nothing rewrites them on the way but a few middleboxes, so this holds across hosts, network
//! namespaces, NAT and reused ports.

use std::ops::Range;

use super::build::in_time;
use super::group::group;
use super::{Connection, EdgeKind, Endpoint, Graph, Proof, Side};
use crate::event::{Address, Event, EventIndex, Flags, History, Names, Op, Proof as Known};

/// More possible peers than this are not looked at: sequence numbers that so many share prove nothing.
const PEERS_MAX: u32 = 16;

/// Finds the endpoints and their events. A socket that was connected anew is another endpoint.
pub(super) fn index(history: &History, graph: &mut Graph) -> Notable {
    let mut notable = Notable::default();
    let (groups, members) = group(&history.events, |e| {
        // What was never done tells nothing of a connection.
        e.is_of_stream().then_some((e.host, e.socket))
    });
    for ((host, socket), range) in groups {
        let events = &members[range.start as usize..range.end as usize];
        let event = |place: usize| &history.events[events[place] as usize];
        let (mut start, mut numbers, mut connect) = (0, None, None);
        for place in 0..events.len() {
            let now = event(place);
            if now.op == Op::Connect {
                connect = Some(place);
            }
            if now.proof == Known::Unknown {
                continue;
            }
            if numbers.is_some_and(|of| !same_connection(of, now)) {
                let end = connect.unwrap_or(place);
                let life = range.start + start as u32..range.start + end as u32;
                graph.endpoints.push(notable.endpoint(history, host, socket, &members, life));
                start = end;
            }
            (numbers, connect) = (Some(now), None);
        }
        let life = range.start + start as u32..range.end;
        graph.endpoints.push(notable.endpoint(history, host, socket, &members, life));
    }
    graph.endpoint_events = members;
    notable
}

fn same_connection(one: &Event, other: &Event) -> bool {
    let computed = one.proof == Known::Computed || other.proof == Known::Computed;
    let apart = one.iss.wrapping_sub(other.iss);
    one.irs == other.irs && (apart == 0 || computed && (apart == 1 || apart == u32::MAX))
}

/// What happened to endpoints but sends and receives that went well: few events, which most rules are
/// about.
#[derive(Default)]
pub(super) struct Notable {
    events: Vec<EventIndex>,
    /// By endpoint: where its events begin.
    starts: Vec<usize>,
}

impl Notable {
    pub(super) fn of(&self, endpoint: u32) -> &[EventIndex] {
        let endpoint = endpoint as usize;
        let end = self.starts.get(endpoint + 1).copied().unwrap_or(self.events.len());
        &self.events[self.starts[endpoint]..end]
    }

    /// The first event of an endpoint with the given operation.
    pub(super) fn first(&self, history: &History, endpoint: u32, op: Op) -> Option<EventIndex> {
        let mut events = self.of(endpoint).iter().copied();
        events.find(|&e| history.events[e as usize].op == op)
    }

    /// Whether an endpoint asked for its connection rather than accepting it; `None` when that was not
    /// seen.
    pub(super) fn active(&self, history: &History, endpoint: u32) -> Option<bool> {
        self.of(endpoint).iter().find_map(|&e| {
            let event = &history.events[e as usize];
            match event.op {
                Op::Connect => Some(true),
                Op::Established => Some(event.flags.has(Flags::ACTIVE)),
                _ => None,
            }
        })
    }

    /// The endpoint that some events belong to; takes note of those that are notable.
    fn endpoint(
        &mut self,
        history: &History,
        host: u16,
        socket: u64,
        members: &[EventIndex],
        life: Range<u32>,
    ) -> Endpoint {
        let mut endpoint = Endpoint {
            host,
            socket,
            events: life.clone(),
            iss: 0,
            irs: 0,
            proof: Known::Unknown,
            local: Address::NONE,
            remote: Address::NONE,
            netns: 0,
            protocol: None,
            connection: None,
        };
        self.starts.push(self.events.len());
        for &index in &members[life.start as usize..life.end as usize] {
            let event = &history.events[index as usize];
            if !matches!(event.op, Op::Send | Op::Recv)
                || event.error != 0
                || event.flags.has(Flags::EOF)
            {
                self.events.push(index);
            }
            describe(history, &mut endpoint, event);
        }
        endpoint
    }
}

fn describe(history: &History, endpoint: &mut Endpoint, event: &Event) {
    if event.proof > endpoint.proof {
        (endpoint.iss, endpoint.irs, endpoint.proof) = (event.iss, event.irs, event.proof);
    }
    endpoint.protocol = endpoint.protocol.or(event.protocol);
    // The local port reads 0 before a connect has chosen it and after the end.
    if better(&history.names, endpoint.local, event.local) {
        endpoint.local = event.local;
    }
    if better(&history.names, endpoint.remote, event.remote) {
        endpoint.remote = event.remote;
    }
    if endpoint.netns == 0 {
        endpoint.netns = event.netns;
    }
}

fn better(names: &Names, old: Address, new: Address) -> bool {
    let port = |address| names.address(address).map_or(0, |a| a.port());
    new != old && new != Address::NONE && (old == Address::NONE || port(old) == 0 && port(new) != 0)
}

/// Finds the pairs of endpoints that are one connection.
pub(super) fn connect(history: &History, graph: &mut Graph) {
    let pairs = candidates(history, graph);
    // Per endpoint: the best score of its candidates, and how many have it.
    let mut best = vec![(0, 0); graph.endpoints.len()];
    for &(a, b, score) in &pairs {
        for end in [Some(a), (a != b).then_some(b)].into_iter().flatten() {
            let (top, count) = &mut best[end as usize];
            match score.cmp(top) {
                std::cmp::Ordering::Greater => (*top, *count) = (score, 1),
                std::cmp::Ordering::Equal => *count += 1,
                std::cmp::Ordering::Less => {}
            }
        }
    }
    for (a, b, score) in pairs {
        let (of_a, of_b) = (best[a as usize], best[b as usize]);
        if score != of_a.0 || score != of_b.0 {
            continue;
        }
        let proof = if of_a.1 == 1 && of_b.1 == 1 { Proof::Must } else { Proof::May };
        let number = graph.connections.len() as u32;
        for end in [a, b] {
            graph.endpoints[end as usize].connection.get_or_insert(number);
        }
        let (one, other) = (&graph.endpoints[a as usize], &graph.endpoints[b as usize]);
        let shift = [one.iss.wrapping_sub(other.irs), other.iss.wrapping_sub(one.irs)];
        let local = one.is_local();
        graph.connections.push(Connection {
            ends: [a, b],
            proof,
            shift: shift.map(u64::from),
            addresses_mirror: local || mirror(one, other),
        });
    }
}

/// All pairs whose numbers mirror each other, with a score that prefers what else speaks for the pair.
fn candidates(history: &History, graph: &Graph) -> Vec<(u32, u32, u32)> {
    let known = |e: &Endpoint| e.proof != Known::Unknown;
    let mut by_irs: Vec<(u32, u32)> = (0..graph.endpoints.len() as u32)
        .filter(|&e| known(&graph.endpoints[e as usize]))
        .map(|e| (graph.endpoints[e as usize].irs, e))
        .collect();
    by_irs.sort_unstable();
    let mut pairs = Vec::new();
    for &(_, a) in &by_irs {
        let one = &graph.endpoints[a as usize];
        let mut found = 0;
        for iss in possible_iss(one) {
            let from = by_irs.partition_point(|&(irs, _)| irs < iss);
            for &(_, b) in by_irs[from..].iter().take_while(|&&(irs, _)| irs == iss) {
                let other = &graph.endpoints[b as usize];
                let itself = a == b && one.local == one.remote && one.local != Address::NONE;
                if a > b || a == b && !itself || !possible_iss(other).any(|iss| iss == one.irs) {
                    continue;
                }
                if !comparable(one, other) {
                    continue;
                }
                found += 1;
                if found <= PEERS_MAX {
                    pairs.push((a, b, score(history, graph, one, other)));
                }
            }
        }
    }
    pairs
}

/// Whether the two ends' numbers are of one kind: those of what is local mean something on their host alone.
fn comparable(one: &Endpoint, other: &Endpoint) -> bool {
    let fits = match (one.protocol, other.protocol) {
        (Some(one), Some(other)) => one.fits(other),
        (one, other) => one == other,
    };
    fits && (!one.is_local() || one.host == other.host)
}

/// An initial number that was computed may be one too high.
fn possible_iss(endpoint: &Endpoint) -> impl Iterator<Item = u32> + use<> {
    let slack = u32::from(endpoint.proof == Known::Computed);
    let iss = endpoint.iss;
    (0..=slack).map(move |by| iss.wrapping_sub(by))
}

fn mirror(one: &Endpoint, other: &Endpoint) -> bool {
    one.local != Address::NONE
        && one.remote != Address::NONE
        && one.local == other.remote
        && one.remote == other.local
}

fn score(history: &History, graph: &Graph, one: &Endpoint, other: &Endpoint) -> u32 {
    let span = |e: &Endpoint| {
        let events = graph.events_of_endpoint(e);
        let time = |i: Option<&u32>| i.map_or(0, |&i| history.events[i as usize].time_ns);
        (time(events.first()), time(events.last()))
    };
    let (a, b) = (span(one), span(other));
    let overlap = one.host == other.host && a.0 <= b.1 && b.0 <= a.1;
    1 + 4 * u32::from(mirror(one, other))
        + 2 * u32::from(one.host == other.host)
        + u32::from(overlap)
}

/// Orders what the kernel did at one endpoint. Within one ring of one CPU the order is certain; between
/// CPUs only where the connection's states allow no other.
pub(super) fn lane_edges(history: &History, notable: &Notable, graph: &mut Graph) {
    for endpoint in 0..graph.endpoints.len() as u32 {
        let mut previous: Option<u32> = None;
        for &index in notable.of(endpoint) {
            let event = &history.events[index as usize];
            if !event.in_kernel_lane() {
                continue;
            }
            if let Some(before) = previous {
                let earlier = &history.events[before as usize];
                let (from, to) = ((before, Side::End), (index, Side::Begin));
                let forced = (earlier.cpu, earlier.ring) == (event.cpu, event.ring)
                    || state_forces(earlier.op, event.op);
                if forced {
                    graph.push(from, to, EdgeKind::Program, Proof::Must);
                } else if in_time(history, from, to) {
                    graph.push(from, to, EdgeKind::Program, Proof::May);
                }
            }
            previous = Some(index);
        }
    }
}

fn state_forces(earlier: Op, later: Op) -> bool {
    later == Op::Closed && matches!(earlier, Op::Established | Op::Retransmit | Op::ResetReceived)
}
