//! Whether an end closed its connection too early. To close one is what everybody does; it is to blame for something where
//! the other end was still to say something.

use crate::event::{Event, EventIndex, Flags, History, Op, Proof};
use crate::explain::Step;
use crate::explain::missing::taken;
use crate::graph::Graph;
use crate::slice;

/// Where the chain came to a reset of which it is not known who sent it: the earliest close that may have led to it, if it was too
/// early. The kernel of an end that has closed answers with a reset what still comes for it.
pub(super) fn behind_resets(history: &History, graph: &Graph, chain: &[Step]) -> Vec<EventIndex> {
    let op = |step: &Step| history.events[step.event as usize].op;
    let resets = chain.iter().enumerate().filter(|&(number, step)| {
        let cause = chain.get(number + 1).map(op);
        op(step) == Op::ResetReceived && !matches!(cause, Some(Op::ResetSent | Op::Abort))
    });
    resets.filter_map(|(_, reset)| behind(history, graph, reset.event)).collect()
}

fn behind(history: &History, graph: &Graph, reset: EventIndex) -> Option<EventIndex> {
    let end = graph.endpoint_of(history, reset)?;
    let host = history.events[reset as usize].host;
    let closes = |peer: u32| {
        let events = graph.events_of_endpoint(&graph.endpoints[peer as usize]).iter().copied();
        events.filter(|&event| history.events[event as usize].op == Op::Close)
    };
    let before = |&close: &EventIndex| history.events[close as usize].host != host || close < reset;
    let close = graph.peers(end).flat_map(|(peer, _)| closes(peer)).filter(before).last()?;
    let steps = slice::trace(history, graph, close).steps;
    let early = steps.iter().rev().find(|step| closed_too_early(history, graph, step.event));
    let early = early?.event;
    Some(gone_before(history, graph, early).unwrap_or(early))
}

/// The last close that was too early, before a close, at the other end of a connection that the closing thread still had: event
/// loops are told that somebody has gone (`EPOLLRDHUP`) and need no call to see it.
fn gone_before(history: &History, graph: &Graph, close: EventIndex) -> Option<EventIndex> {
    let closer = &history.events[close as usize];
    let is_closers = |event: &EventIndex| {
        let event = &history.events[*event as usize];
        (event.host, event.tid) == (closer.host, closer.tid)
    };
    let mut gone = None;
    for (number, endpoint) in graph.endpoints.iter().enumerate() {
        let before = graph.events_of_endpoint(endpoint).iter().take_while(|&&event| event < close);
        let mut own = before.filter(|event| is_closers(event)).peekable();
        let is_close = |&event: &EventIndex| history.events[event as usize].op == Op::Close;
        if endpoint.host != closer.host
            || own.peek().is_none()
            || own.copied().any(|e| is_close(&e))
        {
            continue;
        }
        for (peer, _) in graph.peers(number as u32) {
            let theirs = graph.events_of_endpoint(&graph.endpoints[peer as usize]).iter().copied();
            let before = theirs.filter(|&event| {
                let host = history.events[event as usize].host;
                is_close(&event) && host == closer.host && event < close && Some(event) > gone
            });
            gone = before.rev().find(|&event| closed_too_early(history, graph, event)).or(gone);
        }
    }
    gone
}

/// Whether whoever closed had asked for the connection, asked something, and did not wait for the answer; or whether
/// the other end sent it what it never took.
pub(super) fn closed_too_early(history: &History, graph: &Graph, index: EventIndex) -> bool {
    let close = &history.events[index as usize];
    // Offsets that may be one off would show a byte that was never taken.
    if close.op != Op::Close || close.is_changed() || close.proof < Proof::Agreed {
        return false;
    }
    let Some(end) = graph.endpoint_of(history, index) else { return false };
    let own = graph.events_of_endpoint(&graph.endpoints[end as usize]);
    let moved = |&&event: &&EventIndex| moved_bytes(&history.events[event as usize]);
    let (before, after) = own.split_at(own.partition_point(|&event| event < index));
    // It closed only its own direction, and went on listening.
    if after.iter().any(|&event| is_taken(&history.events[event as usize])) {
        return false;
    }
    let asked = |&event: &EventIndex| {
        let event = &history.events[event as usize];
        event.op == Op::Connect || event.flags.has(Flags::ACTIVE)
    };
    let last = before.iter().rev().find(moved);
    let unanswered = last.is_some_and(|&last| history.events[last as usize].op == Op::Send)
        && own.iter().any(asked);
    unanswered
        || graph.peers(end).any(|(peer, _)| sent(history, graph, peer) > taken(history, graph, end))
}

fn moved_bytes(event: &Event) -> bool {
    matches!(event.op, Op::Send | Op::Recv) && event.error == 0 && event.result > 0
}

fn is_taken(event: &Event) -> bool {
    event.op == Op::Recv && moved_bytes(event)
}

/// Up to where an endpoint has sent its stream.
fn sent(history: &History, graph: &Graph, endpoint: u32) -> u64 {
    let events = graph.events_of_endpoint(&graph.endpoints[endpoint as usize]).iter();
    let sent = events.map(|&event| &history.events[event as usize]).filter(|event| {
        event.op == Op::Send && event.has_range() && !event.flags.has(Flags::URGENT)
    });
    sent.map(|event| event.stream_end).max().unwrap_or(0)
}
