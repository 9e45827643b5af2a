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
use crate::graph::{Connection, Direction, Graph, Side, bytes, event_of, node};

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
    let mut ends: HashMap<u32, Vec<End>> = HashMap::new();
    for Connection { ends: [one, other], shift: [from_one, from_other], .. } in &graph.connections {
        ends.entry(*one).or_default().push(End { endpoint: *other, shift: *from_other });
        ends.entry(*other).or_default().push(End { endpoint: *one, shift: *from_one });
    }
    let mut looker = Looker { history, graph, ends, holes, sent: HashMap::new() };
    events.iter().filter_map(|&event| looker.look(event)).collect()
}

/// What may be at the other end of a connection.
#[derive(Clone, Copy)]
struct End {
    endpoint: u32,
    /// Added to what it says of where its bytes lie, this end's numbers come out.
    shift: u64,
}

struct Looker<'a> {
    history: &'a History,
    graph: &'a Graph,
    /// By endpoint: those that may be at its other end.
    ends: HashMap<u32, Vec<End>>,
    /// By endpoint: what of its stream nobody is known to have sent.
    holes: HashMap<u32, Vec<Range<u64>>>,
    /// By endpoint: where the first bytes begin that it is known to have sent, and where the last end, by its own numbers.
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
        let host = self.graph.endpoints[ends.first()?.endpoint as usize].host;
        if ends.iter().any(|end| self.graph.endpoints[end.endpoint as usize].host == event.host) {
            return None;
        }
        let sent = ends.iter().filter_map(|&end| self.sent(end));
        let sent = sent.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let (missing, after_all) = if event.op == Op::Established {
            (!ends.iter().any(|end| self.is_made(end.endpoint)), false)
        } else if let Some((first, last)) = sent.filter(|_| is_bytes(event) && event.has_range()) {
            let holed = ends.iter().any(|end| self.is_holed(end.endpoint, event));
            (event.stream_start < first || holed, event.stream_end > last)
        } else {
            (!self.has_cause(index), false)
        };
        (missing || after_all).then_some(Unsent { received: index, host, after_all })
    }

    /// Where lies what it is known to have sent, by the receiver's numbers.
    fn sent(&mut self, End { endpoint, shift }: End) -> Option<(u64, u64)> {
        let (history, graph) = (self.history, self.graph);
        let sent = *self.sent.entry(endpoint).or_insert_with(|| {
            let end = &graph.endpoints[endpoint as usize];
            let events = graph.events_of_endpoint(end).iter();
            let events = events.map(|&event| &history.events[event as usize]);
            let sends = events.filter(|e| e.op == Op::Send && e.error == 0 && e.has_range());
            let ranges = sends.map(|e| {
                let by = bytes::own_shift(end, e);
                (e.stream_start.wrapping_add(by), e.stream_end.wrapping_add(by))
            });
            ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
        });
        sent.map(|(first, last)| (first.wrapping_add(shift), last.wrapping_add(shift)))
    }

    /// Whether bytes that the event took lie where nothing that the other end sent is known.
    fn is_holed(&self, sender: u32, event: &Event) -> bool {
        let mut holes = self.holes.get(&sender).into_iter().flatten();
        holes.any(|hole| hole.start < event.stream_end && event.stream_start < hole.end)
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
