//! The causal graph: which begin and which end of which event happened before which, and why.
//!
//! A [`Graph`] is a value built from a [`History`](crate::event::History). Each event has two nodes,
//! since causes act on begins and effects are seen at ends. Every edge points from cause to effect and
//! says which rule made it and whether it is proven.

use petgraph::graph::{DiGraph, NodeIndex};

use crate::event::EventIndex;

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
    /// Bytes that were sent are the bytes that were received.
    Bytes,
    /// A connection's making: connect, established at both ends, first use.
    Connection,
    /// A connection's end: close and EOF, abort and reset, reset and error.
    Close,
    /// A thread's life: fork and first event.
    Task,
    /// A signal's way from sender to the thread that takes it.
    Signal,
}

impl EdgeKind {
    pub const ALL: [Self; 7] = [
        Self::Interval,
        Self::Program,
        Self::Bytes,
        Self::Connection,
        Self::Close,
        Self::Task,
        Self::Signal,
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

/// The causal graph of a history.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub nodes: DiGraph<(), Edge, u32>,
}
