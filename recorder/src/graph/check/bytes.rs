//! The rule of bytes: what an edge joins can meet, and what was received was sent by someone.

use std::collections::{HashMap, HashSet};

use super::flow::Limits;
use super::{Broken, Known, Violation, causes, mirrored};
use crate::event::{Event, EventIndex, Flags, Op, Proof as Numbers, Protocol};
use crate::graph::{Direction, EdgeKind, Graph, Proof, Side};

type Point = (EventIndex, Side);

pub(super) fn broken(known: &Known<'_>, from: Point, to: Point, proof: Proof) -> Broken {
    let (send, receive) = (known.event(from.0), known.event(to.0));
    let messages = send.protocol.is_some_and(Protocol::is_datagram);
    let why = if (send.op, receive.op) != (Op::Send, Op::Recv) {
        "it does not lead from a send to a receive"
    } else if (from.1, to.1) != (Side::Begin, Side::End) {
        "it does not lead from a begin to an end"
    } else if messages {
        return datagram(known, send, receive, proof);
    } else if !mirrored(send, receive) {
        "the two are not the ends of one connection"
    } else if known.bypassed(send) || known.bypassed(receive) {
        return (proof == Proof::Must).then_some(("bytes", "the bytes were not counted"));
    } else if !send.has_range() || !receive.has_range() {
        "where the bytes lie is unknown"
    } else if !can_meet(known, (from.0, to.0)) {
        "the bytes cannot meet, wherever they lie"
    } else if proof == Proof::Must
        && [send, receive].iter().any(|event| known.unsure.contains(&way(event)))
    {
        "not all that was moved may have been counted"
    } else if proof == Proof::Must && known.refuted.contains(&stream_of(send)) {
        "what was counted contradicts the clock"
    } else if proof == Proof::Must && !known.streams.must_meet(from.0, to.0) {
        "the bytes need not meet"
    } else {
        return None;
    };
    Some(("bytes", why))
}

/// What was received on an address can be what was sent to it; that it is, nothing proves.
fn datagram(known: &Known<'_>, send: &Event, receive: &Event, proof: Proof) -> Broken {
    let names = &known.history.names;
    let why = if proof == Proof::Must {
        "which message it was is never proven"
    } else if send.protocol != receive.protocol || send.error != 0 || receive.error != 0 {
        "the one is no message as the other"
    } else if send.protocol == Some(Protocol::Udp) {
        let port = |address| names.address(address).map(|address| address.port());
        let ports = |local, remote| (port(local), port(remote));
        if ports(send.local, send.remote) == ports(receive.remote, receive.local) {
            return None;
        }
        "they went different ways"
    } else if send.host == receive.host
        && (send.irs == receive.socket as u32 || send.remote == receive.local)
    {
        return None;
    } else {
        "they went different ways"
    };
    Some(("bytes", why))
}

/// The send's offsets, counted as the receiver counts.
fn range(send: &Event, receive: &Event) -> (u64, u64) {
    let shift = u64::from(send.iss.wrapping_sub(receive.irs));
    (send.stream_start + shift, send.stream_end + shift)
}

/// A call's bytes end at or below what it reported, and begin at or above what its thread's call before
/// it reported.
fn can_meet(known: &Known<'_>, (send, receive): (EventIndex, EventIndex)) -> bool {
    let floor = |index: EventIndex| known.floors[index as usize];
    let (one, other) = (known.event(send), known.event(receive));
    if is_counted(one) {
        return has_bytes(one) && has_bytes(other) && known.streams.can_meet(send, receive);
    }
    let (_, end) = range(one, other);
    floor(send) < other.stream_end && floor(receive) < end && has_bytes(one) && has_bytes(other)
}

pub(super) fn is_counted(event: &Event) -> bool {
    event.protocol.is_some_and(Protocol::is_counted)
}

pub(super) fn has_bytes(event: &Event) -> bool {
    event.has_range()
        && event.stream_start < event.stream_end
        && event.error == 0
        && !event.flags.has(Flags::EOF)
        && !event.flags.has(Flags::URGENT)
}

/// Which threads use an endpoint in one direction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Users {
    One(u32),
    Many,
}

pub(super) type Way = (u16, u64, Op);

pub(super) fn way(event: &Event) -> Way {
    (event.host, event.socket, event.op)
}

/// Per endpoint and direction, who uses it; per event, what its thread's call before it reported.
pub(super) fn users(events: &[Event]) -> (HashMap<Way, Users>, Vec<u64>) {
    let mut users = HashMap::new();
    let mut floors = vec![0; events.len()];
    let mut latest: HashMap<(Way, u32, u32), u64> = HashMap::new();
    for (event, floor) in events.iter().zip(&mut floors) {
        if !matches!(event.op, Op::Send | Op::Recv) || !has_bytes(event) {
            continue;
        }
        let user = users.entry(way(event)).or_insert(Users::One(event.tid));
        if *user != Users::One(event.tid) {
            *user = Users::Many;
        }
        let latest = latest.entry((way(event), event.tid, event.irs)).or_insert(0);
        *floor = *latest;
        // A peek may look further ahead than the counter stands.
        if !event.flags.has(Flags::PEEK) {
            *latest = (*latest).max(event.stream_end);
        }
    }
    (users, floors)
}

/// A stream, by one of its ends.
pub(super) type StreamOf = (u16, u64, Op, u32);

pub(super) fn stream_of(event: &Event) -> StreamOf {
    (event.host, event.socket, event.op, event.irs)
}

/// Streams whose calls moved more bytes than their counters tell: one that ends before its thread's call before it
/// did, or more than there was room for, as the other end counts: a computed number may be one too high.
pub(super) fn bypassed(events: &[Event], floors: &[u64], calls: &[Limits]) -> HashSet<StreamOf> {
    let mut found = HashSet::new();
    let mut moved: HashMap<StreamOf, Vec<(u64, u64)>> = HashMap::new();
    for ((event, &floor), call) in events.iter().zip(floors).zip(calls) {
        let uncounted = !event.has_range()
            && event.protocol == Some(Protocol::Tcp)
            && event.result > 0
            && event.error == 0
            && event.proof != Numbers::Unknown
            && !event.flags.has(Flags::URGENT)
            && !event.flags.has(Flags::PEEK);
        if !matches!(event.op, Op::Send | Op::Recv) || !(has_bytes(event) || uncounted) {
            continue;
        }
        if uncounted || event.stream_start < floor {
            found.insert(stream_of(event));
        } else if !event.flags.has(Flags::PEEK) {
            moved.entry(stream_of(event)).or_default().push((call.end, call.len));
        }
    }
    for (stream, mut calls) in moved {
        calls.sort_unstable();
        let mut sum = 0;
        let too_many = |(end, length): (u64, u64)| {
            sum += length;
            sum > end
        };
        if calls.into_iter().any(too_many) {
            found.insert(stream);
        }
    }
    found
}

fn alone(known: &Known<'_>, event: &Event) -> bool {
    known.users.get(&way(event)).is_some_and(|users| *users != Users::Many)
}

/// Where the bytes of a send are; where they may be, if it raced with another.
fn where_it_may_lie(known: &Known<'_>, send: EventIndex, receive: &Event) -> (u64, u64) {
    let (start, end) = range(known.event(send), receive);
    if alone(known, known.event(send)) { (start, end) } else { (known.floors[send as usize], end) }
}

/// Receives whose bytes someone in the recording must have sent, and that have no edge for some of them
/// although no hole is named there.
pub(super) fn uncovered(known: &Known<'_>, graph: &Graph) -> Vec<Violation> {
    let events = &known.history.events;
    let mut last_sent: HashMap<(u32, u32), u64> = HashMap::new();
    for event in events.iter().filter(|e| e.op == Op::Send && has_bytes(e) && !is_counted(e)) {
        let last = last_sent.entry((event.iss, event.irs)).or_insert(0);
        *last = event.stream_end.max(*last);
    }
    let mut holes: HashMap<(u32, u32), Vec<(u64, u64)>> = HashMap::new();
    for hole in graph.holes.iter().filter(|hole| hole.direction == Direction::Sent) {
        let end = &graph.endpoints[hole.endpoint as usize];
        holes.entry((end.iss, end.irs)).or_default().push((hole.start, hole.end));
    }
    // What passes by at one end is not missing at the other.
    let passed: HashSet<(u32, u32)> = events
        .iter()
        .filter(|event| event.op == Op::Send && known.bypassed(event))
        .map(|event| (event.iss, event.irs))
        .collect();
    let mut violations = Vec::new();
    for (index, event) in events.iter().enumerate() {
        let index = index as EventIndex;
        // What was counted may have been moved up by a call that nobody knows of.
        let exact = event.op == Op::Recv
            && has_bytes(event)
            && !is_counted(event)
            && alone(known, event)
            && event.stream_start == known.floors[index as usize];
        let stream = (event.irs, event.iss);
        let Some(&last) = last_sent.get(&stream).filter(|_| exact) else { continue };
        if passed.contains(&stream) || known.bypassed(event) {
            continue;
        }
        let sends = causes(graph, index, EdgeKind::Bytes);
        let mut covered: Vec<(u64, u64)> =
            sends.map(|send| where_it_may_lie(known, send, event)).collect();
        covered.extend(holes.get(&stream).into_iter().flatten());
        covered.sort_unstable();
        let mut reached = event.stream_start;
        for (start, end) in covered {
            if start <= reached {
                reached = reached.max(end);
            }
        }
        if reached < event.stream_end.min(last) {
            let text = format!("byte {reached}, which event {index} received, comes from nowhere");
            violations.push(Violation { edge: None, rule: "bytes", text });
        }
    }
    violations
}
