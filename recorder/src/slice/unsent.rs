//! What came from another host that is recorded, and that its recording does not have: it ended before, or began after.
//! Whatever its threads did then may have led to the symptom, so that nobody is excluded.
//!
//! Only what its recording would have. What processes out of its scope sent is beyond the recordings, as what other
//! hosts sent is; who is excluded is so as far as these reach.

use std::collections::HashMap;
use std::ops::Range;

use petgraph::Direction::Incoming;
use petgraph::visit::EdgeRef;

use crate::event::{Event, EventIndex, Flags, History, Op};
use crate::graph::{Direction, Graph, Side, event_of, node};

/// Something that was received, and not sent by anything in its sender's recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsent {
    pub received: EventIndex,
    /// Whose recording does not have it.
    pub host: u16,
    /// Whether it came after all that this recording has of the connection.
    pub after_all: bool,
}

/// Of events, in their order.
pub(super) fn unsent(history: &History, graph: &Graph, events: &[EventIndex]) -> Vec<Unsent> {
    if history.hosts.len() < 2 {
        return Vec::new();
    }
    let mut holes: HashMap<u32, Vec<Range<u64>>> = HashMap::new();
    for hole in graph.holes.iter().filter(|hole| hole.direction == Direction::Sent) {
        holes.entry(hole.endpoint).or_default().push(hole.start..hole.end);
    }
    let mut ends: HashMap<u32, Vec<u32>> = HashMap::new();
    for [one, other] in graph.connections.iter().map(|connection| connection.ends) {
        ends.entry(one).or_default().push(other);
        ends.entry(other).or_default().push(one);
    }
    let mut looker = Looker { history, graph, ends, holes, sent: HashMap::new() };
    events.iter().filter_map(|&event| looker.look(event)).collect()
}

struct Looker<'a> {
    history: &'a History,
    graph: &'a Graph,
    /// By endpoint: those that may be at its other end.
    ends: HashMap<u32, Vec<u32>>,
    /// By endpoint: what of its stream nobody is known to have sent.
    holes: HashMap<u32, Vec<Range<u64>>>,
    /// By endpoint: where the first bytes begin that it is known to have sent, and where the last end.
    sent: HashMap<u32, Option<(u64, u64)>>,
}

impl Looker<'_> {
    fn look(&mut self, index: EventIndex) -> Option<Unsent> {
        let event = &self.history.events[index as usize];
        if !is_received(event) {
            return None;
        }
        let own = self.graph.endpoint_of(self.history, index)?;
        let ends = self.ends.get(&own)?.clone();
        let host = self.graph.endpoints[*ends.first()? as usize].host;
        if ends.iter().any(|&end| self.graph.endpoints[end as usize].host == event.host) {
            return None;
        }
        let unsent = |after_all| Some(Unsent { received: index, host, after_all });
        let sent = ends.iter().filter_map(|&end| self.sent(end));
        let sent = sent.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        if event.op == Op::Established {
            return if ends.iter().any(|&end| self.is_made(end)) { None } else { unsent(false) };
        }
        let Some((first, last)) = sent.filter(|_| is_bytes(event) && event.has_range()) else {
            return if self.has_cause(index) { None } else { unsent(false) };
        };
        // Numbers that were computed may be one off.
        let (start, end) = (event.stream_start, event.stream_end);
        match () {
            () if end > last + 1 => unsent(true),
            () if start + 1 < first => unsent(false),
            () if ends.iter().any(|&end| self.is_holed(end, event)) => unsent(false),
            () => None,
        }
    }

    fn sent(&mut self, endpoint: u32) -> Option<(u64, u64)> {
        let (history, graph) = (self.history, self.graph);
        *self.sent.entry(endpoint).or_insert_with(|| {
            let events = graph.events_of_endpoint(&graph.endpoints[endpoint as usize]);
            let events = events.iter().map(|&event| &history.events[event as usize]);
            let sends = events.filter(|e| e.op == Op::Send && e.error == 0 && e.has_range());
            let ranges = sends.map(|e| (e.stream_start, e.stream_end));
            ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
        })
    }

    /// Whether bytes that the event took lie where nothing that the other end sent is known.
    fn is_holed(&self, sender: u32, event: &Event) -> bool {
        let mut holes = self.holes.get(&sender).into_iter().flatten();
        holes.any(|hole| hole.start + 1 < event.stream_end && event.stream_start + 1 < hole.end)
    }

    /// Whether it was seen how the connection was made at this end.
    fn is_made(&self, endpoint: u32) -> bool {
        let events = self.graph.events_of_endpoint(&self.graph.endpoints[endpoint as usize]);
        let mut ops = events.iter().map(|&event| self.history.events[event as usize].op);
        ops.any(|op| matches!(op, Op::Connect | Op::Established))
    }

    /// Whether anything on another host leads to the event.
    fn has_cause(&self, index: EventIndex) -> bool {
        let host = self.history.events[index as usize].host;
        let mut edges = self.graph.nodes.edges_directed(node(index, Side::End), Incoming);
        edges.any(|edge| {
            let from = &self.history.events[event_of(edge.source()).0 as usize];
            from.host != host
        })
    }
}

fn is_bytes(event: &Event) -> bool {
    event.op == Op::Recv && event.error == 0 && event.result > 0
}

/// Whether it is another's doing: bytes, the end of a stream, a reset, or a connection that was asked for.
fn is_received(event: &Event) -> bool {
    let ended = event.op == Op::Recv && event.flags.has(Flags::EOF);
    let asked = event.op == Op::Established && !event.flags.has(Flags::ACTIVE);
    is_bytes(event) || ended || asked || event.op == Op::ResetReceived
}
