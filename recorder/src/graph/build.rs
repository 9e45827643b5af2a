//! Puts the graph together: indexes first, then one rule after another.

use petgraph::graph::DiGraph;

use super::births::Births;
use super::{Edge, EdgeKind, Graph, Proof, Side, node};
use super::{bytes, close, connection, datagram, endpoint, fault, signal, task, thread, wake};
use crate::event::{EventIndex, History, Op, Ring};

/// One side of one event, as rules name it.
pub(super) type Point = (EventIndex, Side);

pub(super) fn build(history: &History) -> Graph {
    let mut graph = Graph::default();
    let events = history.events.len();
    let rare = rare(history);
    let births = Births::of_forks(history, &rare);
    thread::index(history, &births, &mut graph);
    let notable = endpoint::index(history, &mut graph);
    // Interval and program edges are one per event each; bytes about one per call. What is reserved and
    // not used costs no memory, since it is never touched.
    graph.nodes = DiGraph::with_capacity(events * 2, events * 3 + events / 4 + 64);
    for _ in 0..events * 2 {
        graph.nodes.add_node(());
    }
    for event in 0..events as EventIndex {
        graph.push((event, Side::Begin), (event, Side::End), EdgeKind::Interval, Proof::Must);
    }
    thread::edges(history, &mut graph);
    let births = births.and_listed(history);
    task::edges(history, &rare, &births, &mut graph);
    task::wait_edges(history, &rare, &mut graph);
    endpoint::connect(history, &mut graph);
    endpoint::lane_edges(history, &notable, &mut graph);
    connection::edges(history, &rare, &notable, &mut graph);
    bytes::edges(history, &mut graph);
    datagram::edges(history, &mut graph);
    close::edges(history, &rare, &notable, &mut graph);
    signal::edges(history, &rare, &mut graph);
    fault::edges(history, &rare, &notable, &mut graph);
    wake::edges(history, &births, &mut graph);
    graph.holes.sort_by_key(|hole| hole.before);
    graph
}

/// All events but sends, receives, system calls and wakes: few, and what most rules are about.
fn rare(history: &History) -> Vec<EventIndex> {
    let events = history.events.iter().enumerate();
    events
        .filter(|(_, event)| event.op.ring() == Ring::Rare)
        .map(|(index, _)| index as EventIndex)
        .collect()
}

impl Graph {
    pub(super) fn push(&mut self, from: Point, to: Point, kind: EdgeKind, proof: Proof) {
        self.nodes.add_edge(node(from.0, from.1), node(to.0, to.1), Edge { kind, proof });
    }

    /// Adds a possible edge, unless time forbids it: within a host no effect ends before its cause begins.
    pub(super) fn push_may(&mut self, history: &History, from: Point, to: Point, kind: EdgeKind) {
        if in_time(history, from, to) {
            self.push(from, to, kind, Proof::May);
        }
    }
}

/// Whether the times of one host allow `from` before `to`; different hosts' clocks are never compared.
pub(super) fn in_time(history: &History, from: Point, to: Point) -> bool {
    let (cause, effect) = (&history.events[from.0 as usize], &history.events[to.0 as usize]);
    cause.host != effect.host
        || cause.op == Op::ResetSent
        || cause.op == Op::OomKill
        || at(history, from) <= at(history, to)
}

/// A lower bound of a begin; the moment of an end.
pub(super) fn at(history: &History, (event, side): Point) -> u64 {
    let event = &history.events[event as usize];
    // What the kernel did has no duration that matters.
    if side == Side::Begin && !event.in_kernel_lane() { event.begin_ns } else { event.time_ns }
}

/// Whether all that happened on a host while it was recorded is there.
pub(super) fn lossless(history: &History, host: u16) -> bool {
    let host = history.hosts.get(usize::from(host));
    host.is_none_or(|host| host.lost == 0 && host.gaps.is_empty())
}
