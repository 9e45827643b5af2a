//! Packets that were sent again, or that the kernel dropped, while a step of the chain was on its way. That they made it late
//! cannot be proven: the first of them may have come all the same, and only its acknowledgement have been lost.

use crate::event::{EventIndex, History, Op};
use crate::explain::Step;
use crate::graph::{EdgeKind, Graph};

/// Between two steps no more events of a connection are looked at.
const MOST: usize = 4096;

/// The first such packet of each step.
pub(super) fn delays(history: &History, graph: &Graph, chain: &[Step]) -> Vec<EventIndex> {
    let steps = chain
        .windows(2)
        .filter(|pair| matches!(pair[1].kind, Some(EdgeKind::Bytes | EdgeKind::Connection)));
    steps.filter_map(|pair| first(history, graph, pair[1].event, pair[0].event)).collect()
}

/// Between what was sent, or asked, and its arrival.
fn first(
    history: &History,
    graph: &Graph,
    cause: EventIndex,
    effect: EventIndex,
) -> Option<EventIndex> {
    let (sent, arrived) = (&history.events[cause as usize], &history.events[effect as usize]);
    if !matches!(sent.op, Op::Send | Op::Connect) {
        return None;
    }
    let endpoint = &graph.endpoints[graph.endpoint_of(history, cause)? as usize];
    let events = graph.events_of_endpoint(endpoint);
    let later = &events[events.partition_point(|&event| event <= cause)..];
    let before = |&&event: &&EventIndex| sent.host != arrived.host || event < effect;
    later.iter().take(MOST).take_while(before).copied().find(|&event| {
        let again = &history.events[event as usize];
        let apart = again.has_range()
            && sent.has_range()
            && (again.stream_end <= sent.stream_start || sent.stream_end <= again.stream_start);
        matches!(again.op, Op::Retransmit | Op::Dropped) && !apart
    })
}
