//! Datagrams: a message has no place in a stream, so what was received *may* be what was sent the same way, with the
//! same length, and not before what came earlier. It is never more than may: datagrams can be lost, doubled and, between
//! hosts, overtake each other.

use std::collections::HashMap;
use std::net::IpAddr;

use super::build::in_time;
use super::{EdgeKind, Graph, Side};
use crate::event::{Address, Event, EventIndex, Flags, History, Op, Protocol};

/// Candidates beyond this per message are counted and left out: those in the middle.
const MAY_MAX: usize = 16;

/// More messages than this do not wait in a socket.
const NEAR_MAX: usize = 4096;

/// Joins receives with the sends that they may be of.
pub(super) fn edges(history: &History, graph: &mut Graph) {
    let mut ways: HashMap<Way, (Vec<EventIndex>, Vec<EventIndex>)> = HashMap::new();
    for endpoint in &graph.endpoints {
        if !endpoint.protocol.is_some_and(Protocol::is_datagram) {
            continue;
        }
        for &index in graph.events_of_endpoint(endpoint) {
            let event = &history.events[index as usize];
            let Some(way) = is_message(event).then(|| Way::of(history, event)).flatten() else {
                continue;
            };
            let (sent, received) = ways.entry(way).or_default();
            if event.op == Op::Send { sent.push(index) } else { received.push(index) }
        }
    }
    let mut ways: Vec<_> = ways.into_values().collect();
    ways.sort_unstable();
    for (mut sent, mut received) in ways {
        sent.sort_unstable();
        received.sort_unstable();
        join(history, graph, &sent, &received);
    }
    refusals(history, graph);
}

/// Sends before an error of the network that are shown as what it may answer.
const LAST_SENDS: usize = 4;

/// What comes back when a datagram finds nobody: to its socket's kernel lane or, where the socket was not known yet, to
/// the next call.
fn refusals(history: &History, graph: &mut Graph) {
    let mut found = Vec::new();
    for endpoint in graph.endpoints.iter().filter(|e| e.protocol == Some(Protocol::Udp)) {
        let mut sent: Vec<EventIndex> = Vec::new();
        let mut told = false;
        for &index in graph.events_of_endpoint(endpoint) {
            let event = &history.events[index as usize];
            let side = match event.op {
                Op::Send if event.error == 0 => {
                    sent.push(index);
                    continue;
                }
                Op::Error => Side::Begin,
                _ => Side::End,
            };
            if !is_refusal(event) {
                continue;
            }
            // An error in the kernel lane leads to the call that returns it.
            if side == Side::Begin || !told {
                found.extend(sent.iter().rev().take(LAST_SENDS).map(|&send| (send, (index, side))));
            }
            told = side == Side::Begin;
        }
    }
    for (send, to) in found {
        graph.push_may(history, (send, Side::Begin), to, EdgeKind::Close);
    }
}

fn is_refusal(event: &Event) -> bool {
    let refusals = [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ENETUNREACH, libc::EHOSTDOWN];
    refusals.contains(&i32::from(event.error))
}

fn is_message(event: &Event) -> bool {
    event.protocol.is_some_and(Protocol::is_datagram)
        && matches!(event.op, Op::Send | Op::Recv)
        && event.error == 0
        && !event.flags.has(Flags::URGENT)
        && !event.flags.has(Flags::EOF)
}

/// What the sends of a message and its receive have in common, and is known of both for sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Way {
    /// The name that the receiving socket is bound to.
    Named(u16, Address),
    /// The low half of the receiving socket's cookie.
    Unix(u16, u32),
    /// Ports, from and to.
    Udp(u16, u16),
}

impl Way {
    fn of(history: &History, event: &Event) -> Option<Self> {
        let sends = event.op == Op::Send;
        if event.protocol == Some(Protocol::UnixDgram) {
            let name = if sends { event.remote } else { event.local };
            let receiver = if sends { event.irs } else { event.socket as u32 };
            return match name {
                Address::NONE => (receiver != 0).then_some(Self::Unix(event.host, receiver)),
                name => Some(Self::Named(event.host, name)),
            };
        }
        let port = |address| Some(history.names.address(address)?.port());
        let (local, remote) = (port(event.local)?, port(event.remote)?);
        Some(if sends { Self::Udp(local, remote) } else { Self::Udp(remote, local) })
    }
}

/// Whether the addresses of a send and a receive are those of one way: a socket that is bound to all has the one that
/// is written to. Loopback addresses are each network namespace's own.
fn same_way(history: &History, send: &Event, receive: &Event) -> bool {
    if send.protocol != Some(Protocol::Udp) {
        return true;
    }
    let ip = |address| history.names.address(address).map(|a| a.ip().to_canonical());
    let is = |own: Option<IpAddr>, told: Option<IpAddr>| match (own, told) {
        (Some(own), Some(told)) => own.is_unspecified() || own == told,
        _ => false,
    };
    let (to, from) = (ip(send.remote), ip(receive.remote));
    let here = (send.host, send.netns) == (receive.host, receive.netns);
    let inside = [to, from].into_iter().flatten().any(|ip| ip.is_loopback());
    is(ip(receive.local), to) && is(ip(send.local), from) && (here || !inside)
}

/// In order: a message is of no send before the first that the one before it can be of.
fn join(history: &History, graph: &mut Graph, sent: &[EventIndex], received: &[EventIndex]) {
    let of = |event: EventIndex| &history.events[event as usize];
    let mut first = 0;
    for &receive in received {
        let event = of(receive);
        let near = near(history, &sent[first..], event);
        let possible = |send: &&EventIndex| {
            same_way(history, of(**send), event)
                && in_time(history, (**send, Side::Begin), (receive, Side::End))
        };
        let possible: Vec<EventIndex> = near.iter().filter(possible).copied().collect();
        let same = |send: &&EventIndex| of(**send).result == event.result;
        let mut candidates: Vec<EventIndex> = possible.iter().filter(same).copied().collect();
        if candidates.is_empty() {
            // Cut to the buffer's length, or several in one (GSO, GRO).
            candidates = possible;
        }
        let Some(&earliest) = candidates.first() else { continue };
        let left_out = candidates.len().saturating_sub(MAY_MAX);
        graph.truncated += left_out as u64;
        if left_out > 0 {
            candidates.drain(MAY_MAX / 2..MAY_MAX / 2 + left_out);
        }
        for send in candidates {
            graph.push_may(history, (send, Side::Begin), (receive, Side::End), EdgeKind::Bytes);
        }
        if !event.flags.has(Flags::PEEK) {
            // A send of several messages (GSO) may have more of them to come.
            let done = of(earliest).result <= event.result;
            first = sent.partition_point(|&send| send < earliest) + usize::from(done);
        }
    }
}

/// The sends that a receive's message is looked for among: the newest before it or, of another host, the first.
fn near<'a>(history: &History, sent: &'a [EventIndex], receive: &Event) -> &'a [EventIndex] {
    let here = |&send: &EventIndex| history.events[send as usize].host == receive.host;
    let all_here = sent.first().is_some_and(here) && sent.last().is_some_and(here);
    if !all_here {
        return &sent[..sent.len().min(NEAR_MAX)];
    }
    // A send may be noted after what it sent was received.
    let begun = |&send: &EventIndex| history.events[send as usize].begin_ns <= receive.time_ns;
    let upto = sent.partition_point(begun);
    &sent[upto.saturating_sub(NEAR_MAX)..upto]
}
