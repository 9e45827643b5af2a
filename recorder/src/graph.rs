//! The causal graph: which begin and which end of which event happened before which, and why.
//!
//! A [`Graph`] is a value built from a [`History`](crate::event::History). Each event has two nodes,
//! since causes act on begins and effects are seen at ends. Every edge points from cause to effect and
//! says which rule made it and whether it is proven.

mod births;
mod build;
pub mod bytes;
pub mod check;
mod close;
mod connection;
mod datagram;
mod endpoint;
mod fault;
mod group;
mod signal;
mod task;
#[cfg(test)]
mod tests;
mod thread;
mod wake;
#[cfg(test)]
pub(crate) mod written;

pub use fault::changed as fault_changed;
pub use thread::gap_between;

use std::ops::Range;

use petgraph::graph::{DiGraph, NodeIndex};

use crate::event::{Address, EventIndex, History, Host, Protocol, Ring, Window};

/// A begin or an end of an event: node number `2 × event + side`.
pub type Node = NodeIndex<u32>;

/// Which end of an event's interval a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Side {
    Begin,
    End,
}

impl Side {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::End => "end",
        }
    }
}

/// The node of one side of an event.
pub fn node(event: EventIndex, side: Side) -> Node {
    Node::new(event as usize * 2 + side as usize)
}

/// The event and side that a node stands for.
pub fn event_of(node: Node) -> (EventIndex, Side) {
    let number = node.index();
    let side = if number.is_multiple_of(2) { Side::Begin } else { Side::End };
    ((number / 2) as EventIndex, side)
}

/// Why one node precedes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    pub kind: EdgeKind,
    pub proof: Proof,
}

/// The rule that made an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EdgeKind {
    /// An event's begin precedes its end.
    Interval,
    /// One thread does one thing after another; one endpoint's kernel lane likewise.
    Program,
    /// Bytes that were sent are the bytes that were received; of datagrams, that they can be.
    Bytes,
    /// A connection's making: connect, established at both ends, first use.
    Connection,
    /// A connection's end: close and EOF, abort and reset, reset and error.
    Close,
    /// A thread's life: fork and first event.
    Task,
    /// A signal's way from sender to the thread that takes it.
    Signal,
    /// An injected fault, and what it changed.
    Fault,
    /// A thread is woken by another.
    Wake,
}

impl EdgeKind {
    pub const ALL: [Self; 9] = [
        Self::Interval,
        Self::Program,
        Self::Bytes,
        Self::Connection,
        Self::Close,
        Self::Task,
        Self::Signal,
        Self::Fault,
        Self::Wake,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interval => "interval",
            Self::Program => "program",
            Self::Bytes => "bytes",
            Self::Connection => "connection",
            Self::Close => "close",
            Self::Task => "task",
            Self::Signal => "signal",
            Self::Fault => "fault",
            Self::Wake => "wake",
        }
    }
}

/// Whether an edge is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Proof {
    /// It cannot have been otherwise.
    Must,
    /// It is one of several possibilities.
    May,
}

impl Proof {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::May => "may",
        }
    }
}

/// The causal graph of a history, and the indexes it was built with.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub nodes: DiGraph<(), Edge, u32>,
    /// One life of a thread each, sorted by host, tid and time.
    pub threads: Vec<Thread>,
    /// Events of the threads, in program order; [`Thread::events`] are ranges of it.
    pub thread_events: Vec<EventIndex>,
    /// One life of a socket each, sorted by host, cookie and time.
    pub endpoints: Vec<Endpoint>,
    /// Events of the endpoints, in order of time; [`Endpoint::events`] are ranges of it.
    pub endpoint_events: Vec<EventIndex>,
    /// Pairs of endpoints that are the two ends of one connection.
    pub connections: Vec<Connection>,
    /// Stretches of streams that no recorded call sent or took, sorted by `before`.
    pub holes: Vec<Hole>,
    /// Possible edges that were left out because one call had too many candidates.
    pub truncated: u64,
}

/// One life of a thread: from its first event to its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    pub host: u16,
    pub pid: u32,
    pub tid: u32,
    /// Range of [`Graph::thread_events`].
    pub events: Range<u32>,
}

/// One life of a socket: as long as its connection's initial sequence numbers stay the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: u16,
    /// Cookie of the socket.
    pub socket: u64,
    /// Range of [`Graph::endpoint_events`].
    pub events: Range<u32>,
    pub iss: u32,
    pub irs: u32,
    pub proof: crate::event::Proof,
    pub local: Address,
    pub remote: Address,
    pub netns: u32,
    pub protocol: Option<Protocol>,
    /// Index in [`Graph::connections`] of the first connection it may belong to.
    pub connection: Option<u32>,
}

impl Endpoint {
    /// Whether the other end is on the same machine, whatever the addresses.
    pub fn is_local(&self) -> bool {
        self.protocol.is_some_and(Protocol::is_local)
    }
}

/// Two endpoints whose initial sequence numbers mirror each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Indexes in [`Graph::endpoints`].
    pub ends: [u32; 2],
    /// Whether each is the other's only possible peer.
    pub proof: Proof,
    /// What to add to the offsets that the end reports for its sends, so that they count as the other
    /// end's receives do: 1 where its initial number was computed one too high.
    pub shift: [u64; 2],
    /// The addresses mirror each other too; without it there is NAT between the two, or an address is
    /// unknown.
    pub addresses_mirror: bool,
}

/// Which of an endpoint's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    Sent,
    Received,
}

/// Bytes of a stream that no recorded call sent or took: the recording began later, events were lost, or
/// an unseen party (splice, another process) used the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Index in [`Graph::endpoints`].
    pub endpoint: u32,
    pub direction: Direction,
    /// The missing bytes lie in `start..end`; seen calls may share it where calls raced.
    pub start: u64,
    pub end: u64,
    /// The first call beyond the hole.
    pub before: EventIndex,
}

impl Graph {
    /// Builds the graph. The history must be sorted ([`History::sort`]).
    pub fn build(history: &History) -> Self {
        build::build(history)
    }

    pub fn events_of_thread(&self, thread: &Thread) -> &[EventIndex] {
        &self.thread_events[thread.events.start as usize..thread.events.end as usize]
    }

    pub fn events_of_endpoint(&self, endpoint: &Endpoint) -> &[EventIndex] {
        &self.endpoint_events[endpoint.events.start as usize..endpoint.events.end as usize]
    }

    /// The lives of a thread, in order of time.
    pub fn lives_of(&self, host: u16, tid: u32) -> &[Thread] {
        let from = self.threads.partition_point(|t| (t.host, t.tid) < (host, tid));
        let len = self.threads[from..].partition_point(|t| (t.host, t.tid) == (host, tid));
        &self.threads[from..from + len]
    }

    /// Index of the endpoint that an event belongs to; `None` when it has no socket.
    pub fn endpoint_of(&self, history: &History, event: EventIndex) -> Option<u32> {
        let key = history.events.get(event as usize).map(|e| (e.host, e.socket))?;
        let from = self.endpoints.partition_point(|e| (e.host, e.socket) < key);
        self.endpoints[from..]
            .iter()
            .take_while(|e| (e.host, e.socket) == key)
            .position(|e| self.events_of_endpoint(e).binary_search(&event).is_ok())
            .map(|life| (from + life) as u32)
    }

    /// The endpoints that may be at the other end, with how certain that is. None: the other end is
    /// outside the recording.
    pub fn peers(&self, endpoint: u32) -> impl Iterator<Item = (u32, Proof)> + '_ {
        let first = self.endpoints[endpoint as usize].connection.map_or(usize::MAX, |c| c as usize);
        self.connections.iter().skip(first).filter_map(move |c| match c.ends {
            [a, b] if a == endpoint => Some((b, c.proof)),
            [a, b] if b == endpoint => Some((a, c.proof)),
            _ => None,
        })
    }

    /// The hole that lies directly before a call in its stream.
    pub fn hole_before(&self, event: EventIndex) -> Option<&Hole> {
        let index = self.holes.partition_point(|h| h.before < event);
        self.holes.get(index).filter(|h| h.before == event)
    }
}

/// Whether all that happened on a host in `from_ns ..= to_ns` is in the recording, as far as one ring is
/// concerned. A host that says nothing of its windows and losses is believed to be complete.
pub fn complete(host: &Host, ring: Ring, from_ns: u64, to_ns: u64) -> bool {
    let window = if ring == Ring::Bulk { host.bulk_window } else { host.rare_window };
    let inside = window == Window::default() || window.from_ns <= from_ns && to_ns <= window.to_ns;
    inside && host.lost == 0 && host.gaps.is_empty()
}
