//! Bytes: what was sent is what is received, where the ranges of a send and a receive meet.
//!
//! ```text
//! sent      |----- send 1 -----|-- send 2 --|------ send 3 ------|
//! received  |-- recv 1 --|------- recv 2 -------|---- recv 3 ----|
//! ```
//!
//! A call's range is exact or, where calls raced on one socket, known within limits. An edge is proven when
//! the two meet wherever their bytes lie. It leads from the send's begin, since a send that blocks can be
//! received, and answered, before it returns.
//!
//! Where something passes bytes by the stream, so that the counters do not count them, the calls' lengths are all
//! there is to go by, and edges are only possible.

mod counted;
mod sweep;
mod tiling;

use super::build::in_time;
use super::{Direction, EdgeKind, Endpoint, Graph, Hole, Proof, Side};
use crate::event::{Event, EventIndex, Flags, History, Op, Proof as Numbers, Protocol, Ring};
use sweep::{Span, Stream, meetings};
use tiling::{Call, Tiling, tile};

/// No stream is longer; a larger offset is damage.
const OFFSET_MAX: u64 = 1 << 60;

/// Joins the sends and receives of every connection, both ways.
pub(super) fn edges(history: &History, graph: &mut Graph) {
    for connection in 0..graph.connections.len() {
        let connection = graph.connections[connection].clone();
        let [a, b] = connection.ends;
        let ways = [(a, b, connection.shift[0]), (b, a, connection.shift[1])];
        for (from, to, shift) in &ways[..if a == b { 1 } else { 2 }] {
            let sent = stream(history, graph, *from, Direction::Sent, *shift);
            let received = stream(history, graph, *to, Direction::Received, 0);
            join(history, graph, &sent, &received, connection.proof);
        }
    }
    // Holes in streams whose other end is not in the recording are worth knowing too.
    for endpoint in 0..graph.endpoints.len() as u32 {
        if graph.endpoints[endpoint as usize].connection.is_none() {
            stream(history, graph, endpoint, Direction::Sent, 0);
            stream(history, graph, endpoint, Direction::Received, 0);
        }
    }
}

fn join(history: &History, graph: &mut Graph, sent: &Stream, received: &Stream, connection: Proof) {
    if sent.bypassed || received.bypassed {
        let (sent, received) = (sent.counted(), received.counted());
        graph.truncated += meetings(&sent, &received, |send, receive, _| {
            graph.push_may(history, (send, Side::Begin), (receive, Side::End), EdgeKind::Bytes);
        });
        return;
    }
    let points = |send, receive| ((send, Side::Begin), (receive, Side::End));
    let mut proven = connection == Proof::Must;
    if sent.summed {
        // What time refutes was not moved up by what is recorded: then nothing of the stream is proven.
        meetings(sent, received, |send, receive, proof| {
            let (from, to) = points(send, receive);
            proven &= proof == Proof::May || in_time(history, from, to);
        });
    }
    graph.truncated += meetings(sent, received, |send, receive, proof| {
        let (from, to) = points(send, receive);
        if proof == Proof::Must && proven {
            graph.push(from, to, EdgeKind::Bytes, Proof::Must);
        } else {
            graph.push_may(history, from, to, EdgeKind::Bytes);
        }
    });
}

/// Where the calls of one endpoint lie in one of its streams; notes the holes between them.
fn stream(
    history: &History,
    graph: &mut Graph,
    endpoint: u32,
    direction: Direction,
    shift: u64,
) -> Stream {
    let end = &graph.endpoints[endpoint as usize];
    let op = if direction == Direction::Sent { Op::Send } else { Op::Recv };
    let mut threads = Vec::new();
    let mut calls = Vec::new();
    let mut events: Vec<EventIndex> = Vec::new();
    let mut sure = true;
    for &index in graph.events_of_endpoint(end) {
        let event = &history.events[index as usize];
        if event.op != op || !has_bytes(event) && !is_bypassed(event) {
            continue;
        }
        sure &= !event.flags.has(Flags::UNSURE);
        let by = match direction {
            Direction::Sent => own_shift(end, event).wrapping_add(shift),
            Direction::Received => 0,
        };
        let thread = thread_number(&mut threads, event.tid);
        calls.push(Call {
            thread,
            end: event.stream_end.wrapping_add(by),
            len: length(event),
            peek: event.flags.has(Flags::PEEK),
        });
        events.push(index);
    }
    let summed = end.protocol.is_some_and(Protocol::is_counted);
    let tiling = if summed { counted::tile(&calls) } else { tile(&calls) };
    let Tiling { places, holes, filled, bypassed, settled } = tiling;
    sure &= !summed || events.last().is_none_or(|&last| heard_to_the_end(history, last));
    graph.holes.extend(holes.into_iter().map(|hole| Hole {
        endpoint,
        direction,
        start: hole.start,
        end: hole.end,
        before: events[hole.before],
    }));
    let each = events.iter().zip(&calls).zip(&places);
    let spans = each
        .map(|((&event, call), place)| Span {
            event,
            lo: place.lo,
            hi: place.hi,
            len: call.len,
            peek: call.peek,
            sure: sure && call.end <= settled,
        })
        .collect();
    Stream { spans, filled, bypassed, summed }
}

/// By how much a send's offsets are less than its endpoint's: they count from the event's own idea of the initial number.
/// What went with the SYN (TCP Fast Open) has none yet, and counts rightly.
pub fn own_shift(end: &Endpoint, send: &Event) -> u64 {
    match send.proof {
        Numbers::Unknown => 0,
        _ => send.iss.wrapping_sub(end.iss).cast_signed() as u64,
    }
}

/// Whether no later call of a stream can have been lost: a hole that nothing follows cannot be seen.
fn heard_to_the_end(history: &History, last: EventIndex) -> bool {
    let last = &history.events[last as usize];
    history.hosts.get(usize::from(last.host)).is_none_or(|host| {
        host.bulk_window.from_ns <= last.time_ns
            && host.gaps.iter().all(|gap| gap.ring == Ring::Rare || gap.to_ns < last.time_ns)
    })
}

/// Whether a call moved (or looked at) bytes of the stream and says which.
fn has_bytes(event: &Event) -> bool {
    event.has_range()
        && event.stream_end > event.stream_start
        && event.stream_end <= OFFSET_MAX
        && event.error == 0
        && !event.flags.has(Flags::EOF)
        && !event.flags.has(Flags::URGENT)
}

/// Whether a call moved bytes that the stream's counter cannot have counted.
fn is_bypassed(event: &Event) -> bool {
    !event.has_range()
        && event.protocol == Some(Protocol::Tcp)
        && event.proof != Numbers::Unknown
        && event.result > 0
        && event.error == 0
        && !event.flags.has(Flags::URGENT)
        && !event.flags.has(Flags::PEEK)
}

fn length(event: &Event) -> u64 {
    if event.has_range() { event.stream_end - event.stream_start } else { event.result as u64 }
}

/// Numbers the threads that use a stream: few, so that a search from the newest is quick.
fn thread_number(threads: &mut Vec<u32>, tid: u32) -> u32 {
    let known = threads.iter().rposition(|&t| t == tid);
    known.unwrap_or_else(|| {
        threads.push(tid);
        threads.len() - 1
    }) as u32
}
