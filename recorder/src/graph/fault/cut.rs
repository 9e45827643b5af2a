//! Cut networks: from a cut's beginning to the packets that it lost, and from these to what their loss made happen.
//!
//! A segment that is sent again from the byte where a lost packet began is sent again because of it. What else is sent
//! again may be: of a cut only the first packets that were lost are told, and segments are joined. A connection
//! that gives up had its packets lost for as long as it tried, if it was a cut that had not healed: proven where it was such
//! a segment that it tried, or where its first packet was lost and it never came about.

use std::collections::HashMap;

use super::super::build::in_time;
use super::super::endpoint::Notable;
use super::super::{EdgeKind, Graph, Proof, Side};
use crate::event::{Event, EventIndex, Flags, History, Name, Op};

/// When cuts began and healed, by host and name: in order, whether it healed.
#[derive(Default)]
pub(super) struct Turns(HashMap<(u16, Name), Vec<(EventIndex, bool)>>);

impl Turns {
    fn of(history: &History, rare: &[EventIndex]) -> Self {
        let mut turns = Self::default();
        for &index in rare {
            let event = &history.events[index as usize];
            if event.op == Op::Fault && event.in_kernel_lane() && event.socket == 0 {
                let healed = event.flags.has(Flags::HEALED);
                turns.0.entry((event.host, event.fault)).or_default().push((index, healed));
            }
        }
        turns
    }

    fn begin_before(&self, lost: &Event, index: EventIndex) -> Option<EventIndex> {
        let turns = self.0.get(&(lost.host, lost.fault))?;
        let before = turns.iter().rev().find(|&&(turn, healed)| turn < index && !healed);
        before.map(|&(turn, _)| turn)
    }

    fn healed_between(&self, lost: &Event, from: EventIndex, to: EventIndex) -> bool {
        let turns = self.0.get(&(lost.host, lost.fault)).into_iter().flatten();
        turns.into_iter().any(|&(turn, healed)| healed && (from..to).contains(&turn))
    }
}

/// Faults from which on all packets of a connection are lost, by host and name, in order.
struct Holes(HashMap<(u16, Name), Vec<EventIndex>>);

impl Holes {
    fn of_all(history: &History, rare: &[EventIndex]) -> Self {
        let mut holes: HashMap<_, Vec<EventIndex>> = HashMap::new();
        for &index in rare {
            let event = &history.events[index as usize];
            if event.is_hole() {
                holes.entry((event.host, event.fault)).or_default().push(index);
            }
        }
        Self(holes)
    }

    /// The one that lost a packet: at the same end of the connection, or at the other; or the only one there was.
    fn of(&self, history: &History, graph: &Graph, index: EventIndex) -> Option<EventIndex> {
        let lost = &history.events[index as usize];
        let before = self.0.get(&(lost.host, lost.fault))?.iter().copied();
        let before: Vec<EventIndex> = before.take_while(|&hole| hole < index).collect();
        let endpoint = graph.endpoint_of(history, index);
        let same = |hole: &&EventIndex| {
            let other = graph.endpoint_of(history, **hole);
            history.events[**hole as usize].socket == lost.socket
                || endpoint
                    .zip(other)
                    .is_some_and(|(one, other)| graph.peers(one).any(|(peer, _)| peer == other))
        };
        match before[..] {
            [only] => Some(only),
            _ => before.iter().find(same).copied(),
        }
    }
}

pub(super) fn edges(history: &History, rare: &[EventIndex], notable: &Notable, graph: &mut Graph) {
    let (turns, holes) = (Turns::of(history, rare), Holes::of_all(history, rare));
    for &index in rare {
        let lost = &history.events[index as usize];
        if lost.op != Op::Fault || !lost.flags.has(Flags::LOST) || !lost.in_kernel_lane() {
            continue;
        }
        let begin = turns.begin_before(lost, index).or_else(|| holes.of(history, graph, index));
        if let Some(begin) = begin {
            push(history, graph, begin, index, Proof::Must);
        }
        let turns = begin.is_some().then_some(&turns);
        for sender in senders(history, graph, index) {
            resent(history, notable, graph, begin.is_some(), (index, lost), &sender);
            gave_up(history, notable, graph, turns, (index, lost), &sender);
        }
    }
}

/// The end that sent the packet.
struct Sender {
    endpoint: u32,
    proof: Proof,
    /// What has to be added to its offsets to get those of the end where the packet was lost.
    shift: u64,
}

fn senders(history: &History, graph: &Graph, lost: EventIndex) -> Vec<Sender> {
    let Some(endpoint) = graph.endpoint_of(history, lost) else { return Vec::new() };
    if !history.events[lost as usize].flags.has(Flags::INCOMING) {
        return vec![Sender { endpoint, proof: Proof::Must, shift: 0 }];
    }
    let ends = graph.connections.iter().flat_map(|connection| {
        let ([a, b], shift) = (connection.ends, connection.shift);
        [(a, b, shift[0]), (b, a, shift[1])].map(|ends| (ends, connection.proof))
    });
    let to = ends.filter(|&((_, to, _), _)| to == endpoint);
    to.map(|((from, _, shift), proof)| Sender { endpoint: from, proof, shift }).collect()
}

/// From a packet to the segments that were sent again for it, or for others behind it that a cut has lost as well.
fn resent(
    history: &History,
    notable: &Notable,
    graph: &mut Graph,
    is_cut: bool,
    (index, lost): (EventIndex, &Event),
    sender: &Sender,
) {
    for again in of(history, notable, sender.endpoint, index, Op::Retransmit) {
        let segment = &history.events[again as usize];
        if same_bytes(lost, segment, sender.shift) {
            push(history, graph, index, again, sender.proof);
        } else if may_be_for(lost, segment, sender.shift, is_cut) {
            push(history, graph, index, again, Proof::May);
        }
    }
}

/// From a packet to the error of a connection that had waited too long for an answer to it.
fn gave_up(
    history: &History,
    notable: &Notable,
    graph: &mut Graph,
    turns: Option<&Turns>,
    (index, lost): (EventIndex, &Event),
    sender: &Sender,
) {
    for error in of(history, notable, sender.endpoint, index, Op::Error) {
        if i32::from(history.events[error as usize].error) != libc::ETIMEDOUT {
            continue;
        }
        let mut again = of(history, notable, sender.endpoint, index, Op::Retransmit);
        let tried = again.any(|again| {
            again < error && same_bytes(lost, &history.events[again as usize], sender.shift)
        });
        let asked = !lost.has_range()
            && notable.first(history, sender.endpoint, Op::Connect).is_some()
            && notable.first(history, sender.endpoint, Op::Established).is_none();
        // (After a single packet, those that follow may have got through.)
        let all_lost = turns.is_some_and(|turns| !turns.healed_between(lost, index, error));
        let proven = all_lost && (tried || asked) && sender.proof == Proof::Must;
        push(history, graph, index, error, if proven { Proof::Must } else { Proof::May });
    }
}

fn of<'a>(
    history: &'a History,
    notable: &'a Notable,
    endpoint: u32,
    after: EventIndex,
    op: Op,
) -> impl Iterator<Item = EventIndex> + 'a {
    let events = notable.of(endpoint).iter().copied();
    events.filter(move |&event| event > after && history.events[event as usize].op == op)
}

fn same_bytes(lost: &Event, again: &Event, shift: u64) -> bool {
    let placed = lost.has_range() && again.has_range();
    placed && again.stream_start.wrapping_add(shift) == lost.stream_start
}

/// Whether a segment that begins elsewhere has some of the packet's bytes or, after a cut's packet, any behind it.
fn may_be_for(lost: &Event, again: &Event, shift: u64, is_cut: bool) -> bool {
    let ends = [again.stream_start, again.stream_end].map(|at| at.wrapping_add(shift));
    let reaches = is_cut || ends[0] < lost.stream_end;
    lost.has_range() && again.has_range() && reaches && ends[1] > lost.stream_start
}

fn push(history: &History, graph: &mut Graph, from: EventIndex, to: EventIndex, proof: Proof) {
    let (from, to) = ((from, Side::Begin), (to, Side::Begin));
    if in_time(history, from, to) {
        graph.push(from, to, EdgeKind::Fault, proof);
    }
}
