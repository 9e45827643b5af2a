//! Connections: from the call that asks for one to its first use at both ends.

use std::collections::HashMap;

use super::build::{Point, in_time, lossless};
use super::endpoint::Notable;
use super::{EdgeKind, Graph, Proof, Side};
use crate::event::{Address, Event, EventIndex, History, Op, Protocol};

pub(super) fn edges(history: &History, rare: &[EventIndex], notable: &Notable, graph: &mut Graph) {
    for endpoint in 0..graph.endpoints.len() as u32 {
        asked(history, notable, graph, endpoint);
        first_uses(history, notable, graph, endpoint);
    }
    for connection in 0..graph.connections.len() {
        let connection = graph.connections[connection].clone();
        let [a, b] = connection.ends;
        match (notable.active(history, a), notable.active(history, b)) {
            (Some(true), Some(true)) => {}
            (Some(true), _) | (None, Some(false)) => {
                joined(history, notable, graph, (a, b), connection.proof)
            }
            (_, Some(true)) | (Some(false), None) => {
                joined(history, notable, graph, (b, a), connection.proof)
            }
            _ => {}
        }
    }
    accepted(history, rare, graph);
}

/// A connect precedes what the kernel makes of it at the same end.
fn asked(history: &History, notable: &Notable, graph: &mut Graph, endpoint: u32) {
    let mut connect: Option<EventIndex> = None;
    for &index in notable.of(endpoint) {
        match history.events[index as usize].op {
            Op::Connect => connect = Some(index),
            Op::Established | Op::Error | Op::ResetReceived => {
                let Some(from) = connect else { continue };
                let to = (index, Side::Begin);
                graph.push((from, Side::Begin), to, EdgeKind::Connection, Proof::Must);
                returned(history, graph, from, index);
                if history.events[index as usize].op == Op::Established {
                    connect = None;
                }
            }
            _ => {}
        }
    }
}

/// Where a connect failed, what its thread did next may have been done because of it.
fn returned(history: &History, graph: &mut Graph, connect: EventIndex, error: EventIndex) {
    if history.events[error as usize].op != Op::Error {
        return;
    }
    let asker = &history.events[connect as usize];
    let next = graph.lives_of(asker.host, asker.tid).iter().find_map(|life| {
        let events = graph.events_of_thread(life);
        let place = events.binary_search(&connect).ok()?;
        let failed_ns = history.events[error as usize].time_ns;
        let after = |e: &&EventIndex| history.events[**e as usize].time_ns >= failed_ns;
        events[place + 1..].iter().find(after).copied()
    });
    if let Some(next) = next {
        graph.push_may(history, (error, Side::Begin), (next, Side::End), EdgeKind::Connection);
    }
}

/// The end that asked is established before the end that accepts: the latter waits for its ACK.
fn joined(
    history: &History,
    notable: &Notable,
    graph: &mut Graph,
    (asked, accepted): (u32, u32),
    proof: Proof,
) {
    let Some(effect) = notable.first(history, accepted, Op::Established) else { return };
    for op in [Op::Connect, Op::Established] {
        let Some(cause) = notable.first(history, asked, op) else { continue };
        // Multipath TCP learns of it after the ACK has left.
        let protocol = history.events[cause as usize].protocol;
        if op == Op::Established && protocol == Some(Protocol::Mptcp) {
            continue;
        }
        let (from, to) = ((cause, Side::Begin), (effect, Side::Begin));
        match proof {
            Proof::Must => graph.push(from, to, EdgeKind::Connection, Proof::Must),
            Proof::May => graph.push_may(history, from, to, EdgeKind::Connection),
        }
    }
}

/// Establishing precedes accepting and the first success that each thread has with the socket. Where it was seen
/// which thread accepted, the others have the socket from there.
fn first_uses(history: &History, notable: &Notable, graph: &mut Graph, endpoint: u32) {
    let Some(established) = notable.first(history, endpoint, Op::Established) else { return };
    let accept = notable.first(history, endpoint, Op::Accept);
    let accept = accept.filter(|&accept| accept > established);
    if let Some(accept) = accept {
        let (from, to) = ((established, Side::Begin), (accept, Side::End));
        graph.push(from, to, EdgeKind::Connection, Proof::Must);
    }
    let mut threads = Vec::new();
    for place in graph.endpoints[endpoint as usize].events.clone() {
        let index = graph.endpoint_events[place as usize];
        let event = &history.events[index as usize];
        // With TCP Fast Open data may go before the connection stands.
        let uses = matches!(event.op, Op::Send | Op::Recv) && event.error == 0;
        if uses && index > established && !threads.contains(&event.tid) {
            threads.push(event.tid);
            let (from, to) = ((established, Side::Begin), (index, Side::End));
            graph.push(from, to, EdgeKind::Connection, Proof::Must);
            let given = accept.filter(|&accept| {
                accept < index && history.events[accept as usize].tid != event.tid
            });
            if let Some(accept) = given {
                let (from, to) = ((accept, Side::End), (index, Side::Begin));
                graph.push(from, to, EdgeKind::Connection, Proof::Must);
            }
        }
    }
}

/// Listening precedes what was accepted.
fn accepted(history: &History, rare: &[EventIndex], graph: &mut Graph) {
    let listeners = Listeners::new(history, rare);
    for &index in rare {
        let event = &history.events[index as usize];
        if event.op != Op::Established || event.flags.has(crate::event::Flags::ACTIVE) {
            continue;
        }
        let open = listeners.open(history, event, event.local, index);
        let (to, kind) = ((index, Side::Begin), EdgeKind::Connection);
        match open[..] {
            [only] if lossless(history, event.host) => {
                graph.push((only, Side::Begin), to, kind, Proof::Must);
            }
            _ => open.iter().for_each(|&l| graph.push_may(history, (l, Side::Begin), to, kind)),
        }
    }
}

/// Who listened where, and when.
pub(super) struct Listeners(HashMap<(u16, u16), Vec<EventIndex>>);

impl Listeners {
    pub(super) fn new(history: &History, rare: &[EventIndex]) -> Self {
        let mut ports: HashMap<(u16, u16), Vec<EventIndex>> = HashMap::new();
        for &index in rare {
            let event = &history.events[index as usize];
            if matches!(event.op, Op::Listen | Op::Unlisten)
                && !event.is_changed()
                && let Some(local) = history.names.address(event.local)
            {
                ports.entry((event.host, local.port())).or_default().push(index);
            }
        }
        Self(ports)
    }

    /// What was done to listeners that an address reaches, before an event of the same host.
    pub(super) fn before(
        &self,
        history: &History,
        event: &Event,
        address: Address,
        index: EventIndex,
    ) -> Vec<EventIndex> {
        let Some(address) = history.names.address(address) else { return Vec::new() };
        let all = self.0.get(&(event.host, address.port())).map_or(&[][..], Vec::as_slice);
        let reached = |&&at: &&EventIndex| {
            let listener = &history.events[at as usize];
            let same_netns =
                listener.netns == event.netns || listener.netns == 0 || event.netns == 0;
            let local = history.names.address(listener.local).map(|a| a.ip().to_canonical());
            at < index
                && same_netns
                && local.is_some_and(|l| l.is_unspecified() || l == address.ip().to_canonical())
        };
        all.iter().filter(reached).copied().collect()
    }

    /// The listens of these that were not yet stopped.
    fn open(
        &self,
        history: &History,
        event: &Event,
        address: Address,
        index: EventIndex,
    ) -> Vec<EventIndex> {
        let mut open: Vec<EventIndex> = Vec::new();
        for at in self.before(history, event, address, index) {
            let socket = history.events[at as usize].socket;
            open.retain(|&l| history.events[l as usize].socket != socket);
            if history.events[at as usize].op == Op::Listen {
                open.push(at);
            }
        }
        open
    }
}

/// Pushes a proven edge where the proof holds and time allows it, a possible one otherwise.
pub(super) fn push_if(
    history: &History,
    graph: &mut Graph,
    proven: bool,
    from: Point,
    to: Point,
    kind: EdgeKind,
) {
    if proven && in_time(history, from, to) {
        graph.push(from, to, kind, Proof::Must);
    } else {
        graph.push_may(history, from, to, kind);
    }
}
